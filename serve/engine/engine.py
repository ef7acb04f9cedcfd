"""Many calls at once: whoever has a frame goes into the next batch, nobody waits for the slow.

A round is schedule -> run -> emit. What is run is of one kind: frames, one position of every open
action, or a part of what is to be taken in (role, tools, results). The kind whose earliest item is
due first is run, with all others of its kind. No asyncio, no sockets.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from model.action_session import ActionEvent
from model.frame import FRAME_SIZE
from model.streaming import State
from model.tokens import PAD
from serve.engine.admission import Admission
from serve.engine.agent import Agent
from serve.engine.messages import (
    Acted,
    Close,
    Closed,
    Frame,
    Heard,
    Open,
    Opened,
    Refused,
    Reply,
    Result,
    Resume,
    Tell,
)
from serve.engine.metrics import Metrics
from serve.engine.prefixes import Prefixes
from serve.engine.saving import resumed, saved
from serve.engine.schedule import Batch, next_batch
from serve.engine.session import EngineSession, Waiting
from serve.engine.traces import Traces

_INT16 = 2**15
_RETRY_AFTER_S = 5.0
_LOOK_S = 1.0


@dataclass(frozen=True)
class EngineConfig:
    """`slots` callers; `queue_frames` of each may wait, and one of whom nothing comes for
    `patience_s` is gone. Nobody more comes in where answers would take more than `most_share` of a
    frame (serve/engine/admission.py). After a frame come at most `actions_per_frame` positions of
    its actions before the next one; `prefill_tokens` are taken in at a time. A caller is saved
    every `save_frames`; the last `prefixes` (role and tools) are kept as they were taken in.

    A round runs as many rows as it has callers, or the fewest of `buckets` that hold them. With the
    kernels of `model.ops` a caller hears the same bit by bit whoever else is there. Without them
    one bucket does that: rounding of sums may else tell a batch of two from one of three."""

    slots: int = 16
    queue_frames: int = 8
    actions_per_frame: int = 6
    prefill_tokens: int = 32
    save_frames: int = 12
    prefixes: int = 16
    patience_s: float = 20.0
    most_share: float = 0.7
    buckets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            assert name == "buckets" or value > 0, f"{name} {value} must be positive"
        rising = [*self.buckets] == sorted({*self.buckets}) and min(self.buckets, default=1) > 0
        assert rising, f"buckets {self.buckets} must be positive and grow"
        assert not self.buckets or self.buckets[-1] >= self.slots, (
            f"buckets {self.buckets}: the last must hold all {self.slots} slots"
        )

    def rows(self, callers: int) -> int:
        """Of a round for so many."""
        return next((bucket for bucket in self.buckets if bucket >= callers), callers)


class Engine:
    """An agent, its state, and who is in it."""

    def __init__(
        self,
        agent: Agent,
        config: EngineConfig,
        clock: Callable[[], float] = time.monotonic,
        traces: Traces | None = None,
    ) -> None:
        self.agent, self.config, self.clock = agent, config, clock
        self.traces = traces or Traces()
        self.admission, self.metrics = Admission(config.most_share), Metrics(config.slots)
        self.state: State = agent.init_state(config.slots + 1)  # the last fills up batches
        self.prefixes = Prefixes(config.prefixes)
        self.sessions: dict[str, EngineSession] = {}
        self.is_idle = True  # there is nothing to do until a message comes
        self._free = list(range(config.slots))[::-1]
        self._looked_s = clock()  # for sessions of which nothing comes
        self._texts = [agent.tokenizer.decode([token]) for token in range(len(agent.tokenizer))]
        self._texts[agent.tokenizer.id_of(PAD)] = ""

    def take(self, command: Open | Resume | Frame | Result | Tell | Close) -> Reply | None:
        """A message of a gateway's; the reply is what is to be said of it at once."""
        self.is_idle = False
        reply = self._taken(command)
        if isinstance(reply, Refused):
            self.metrics.refused.labels(reply.code).inc()
        return reply

    def _taken(self, command: Open | Resume | Frame | Result | Tell | Close) -> Reply | None:
        if isinstance(command, Open):
            return self._open(command)
        if isinstance(command, Resume):
            return self._resume(command)
        session = self.sessions.get(command.session)
        if session is None:
            return Refused(command.session, "no_session", "there is no such session here")
        session.seen_s = self.clock()
        if isinstance(command, Frame):
            return self._queue(session, command)
        if isinstance(command, Result | Tell):
            session.told.append(command)
            refused = self._give_what_is_due(session)
            return refused[0] if refused else None
        self._close(session, "closed")
        return None

    def step(self) -> list[Reply]:
        """One round; empty where there was nothing to do."""
        closed = self._close_silent()
        batch = self._next_batch()
        self.is_idle = batch is None
        if batch is None:
            return closed
        begun_s = self.clock()
        replies = self._run(batch)
        took_s = self.clock() - begun_s
        self.metrics.round_s.labels(batch.kind).observe(took_s)
        if batch.kind == "hear":
            self.metrics.round_callers.observe(len(batch.sessions))
        return closed + replies

    def _run(self, batch: Batch) -> list[Reply]:
        if batch.kind == "prefill":
            return self._prefill(batch.sessions[0])
        slots = [session.slot for session in batch.sessions]
        empty = [self.config.slots] * (self.config.rows(len(slots)) - len(slots))
        rows = torch.tensor(slots + empty)
        part = self.state.gather(rows)
        active = rows < self.config.slots
        replies = (self._hear if batch.kind == "hear" else self._act)(batch.sessions, part, active)
        self.state.scatter(rows, part)
        if batch.kind == "hear":
            replies += self._save(batch.sessions)
        return replies

    def _save(self, sessions: list[EngineSession]) -> list[Reply]:
        """Those whose turn it is, not all at once."""
        each = self.config.save_frames
        due = (one for one in sessions if (one.number + one.slot) % each == 0)
        return [saved(self.agent, self.state, session) for session in due]

    def _next_batch(self) -> Batch | None:
        each = self.config.actions_per_frame
        return next_batch(self.sessions.values(), self.agent.sessions, each)

    def _hear(self, sessions: list[EngineSession], part: State, active: Tensor) -> list[Reply]:
        frames = [session.frames.popleft() for session in sessions]
        pcm = torch.zeros(len(active), FRAME_SIZE)
        pcm[: len(frames)] = torch.from_numpy(np.stack([frame.pcm for frame in frames]))
        begun_s = self.clock()
        heard = self.agent.hear(part, pcm, active)
        now_s = self.clock()
        sound = (heard.pcm.clamp(-1, 1) * (_INT16 - 1)).round().to(torch.int16).numpy()
        streams = torch.stack([heard.agent_text, heard.user_text, heard.floor], dim=1).tolist()
        replies: list[Reply] = []
        for session, frame, samples, (agent_text, user_text, floor) in zip(
            sessions,
            frames,
            sound,
            streams,
            strict=False,  # rows without a caller come last
        ):
            session.heard = frame
            texts = (self._texts[agent_text], self._texts[user_text])
            late = (now_s - frame.arrived_s, now_s > frame.due_s)
            self.metrics.waited_s.observe(begun_s - frame.arrived_s)
            self.metrics.latency_s.observe(late[0])
            self.admission.observe(len(self.sessions), late[0])
            self.metrics.late.inc(late[1])
            replies.append(
                Heard(session.name, frame.number, samples.tobytes(), *texts, floor, *late)
            )
        for session in sessions:
            self._go_on(session, self.config.actions_per_frame)
            replies += self._give_what_is_due(session)
        return replies + self._told(sessions, heard.events)

    def _act(self, sessions: list[EngineSession], part: State, active: Tensor) -> list[Reply]:
        events = self.agent.act(part, active)
        refused: list[Refused] = []
        for session in sessions:
            self._go_on(session, session.actions_left - 1)
            refused += self._give_what_is_due(session)
        return [*self._told(sessions, events), *refused]

    def _go_on(self, session: EngineSession, positions: int) -> None:
        is_open = self.agent.sessions[session.slot].is_open
        session.actions_left = positions if is_open else 0

    def _prefill(self, session: EngineSession) -> list[Reply]:
        self.agent.prefill(self.state, session.slot, self.config.prefill_tokens)
        if session.opening is None or self.agent.sessions[session.slot].is_waiting:
            return []
        saved = self.agent.save(self.state, session.slot, ())
        self.prefixes.keep(session.opening, saved)
        session.opening = None
        return [Opened(session.name)]

    def _told(self, sessions: list[EngineSession], events: list[ActionEvent]) -> list[Reply]:
        by_slot = {session.slot: session for session in sessions}
        told = ((by_slot[event.row], event) for event in events)
        acted = [Acted(session.name, session.number, *event[1:]) for session, event in told]
        for one in acted:
            self.traces.acted(one)
        return [*acted]

    def _open(self, command: Open) -> Reply | None:
        name, known = command.session, self.sessions.get(command.session)
        if known and (known.heard or known.frames):
            return Refused(name, "session_exists", "there is one of this name: take another")
        if not known and (why := self._has_no_room()):
            return Refused(name, "at_capacity", why, retry_after_s=_RETRY_AFTER_S)
        slot = known.slot if known else self._free[-1]
        seed, prefix = command.seed, self.prefixes.find(command)
        try:
            if prefix:
                self.agent.load(self.state, slot, command.tools, [prefix], seed)
            else:
                self.agent.begin(self.state, slot, command.system, command.tools, seed)
        except ValueError as error:
            return Refused(name, "bad_message", str(error))
        is_in = prefix is not None or not self.agent.sessions[slot].is_waiting
        opening = None if is_in else command
        if known:
            known.opening = opening
        else:
            self._let_in(EngineSession(name, slot, self.clock(), opening=opening), command)
        return Opened(name) if is_in else None

    def _resume(self, command: Resume) -> Reply:
        """A caller who was let in before: there only has to be a slot."""
        name = command.session
        if name in self.sessions:
            return Refused(name, "session_exists", "there is one of this name: take another")
        if not self._free:
            why = f"all {self.config.slots} slots are taken"
            return Refused(name, "at_capacity", why, retry_after_s=_RETRY_AFTER_S)
        try:
            session = resumed(self.agent, self.state, self._free[-1], command, self.clock())
        except ValueError as error:
            return Refused(name, "bad_message", str(error))
        self._let_in(session, command)
        self.metrics.resumed.inc()
        return Opened(name, session.number)

    def _let_in(self, session: EngineSession, command: Open | Resume) -> None:
        is_resumed = isinstance(command, Resume)
        self.traces.opened(session.name, session.slot, command.traceparent, is_resumed)
        self._free.remove(session.slot)
        self.sessions[session.name] = session
        self.metrics.opened.inc()
        self.metrics.sessions.set(len(self.sessions))

    def _has_no_room(self) -> str:
        """Why nobody may come in; empty where somebody may."""
        callers = len(self.sessions) + 1
        if not self._free:
            return f"all {self.config.slots} slots are taken"
        # Where nobody is in, nothing would ever tell that it has become faster.
        if self.sessions and not self.admission.may_come(callers):
            predicted_ms = 1000 * self.admission.predicted_s(callers)
            return f"{callers} callers would wait {predicted_ms:.0f} ms for what may take 80 ms"
        return ""

    def _queue(self, session: EngineSession, command: Frame) -> Reply | None:
        samples = np.frombuffer(command.pcm, "<i2") if len(command.pcm) % 2 == 0 else []
        if len(samples) != FRAME_SIZE:
            message = f"pcm has {len(command.pcm)} bytes: must be {2 * FRAME_SIZE} (int16)"
            return Refused(session.name, "bad_message", message)
        if len(session.frames) >= self.config.queue_frames:
            message = f"frame {command.number}: {len(session.frames)} wait already, it is dropped"
            return Refused(session.name, "queue_full", message)
        pcm = np.asarray(samples, np.float32) / np.float32(_INT16)
        arrived_s = command.sent_s or self.clock()
        session.frames.append(Waiting(command.number, pcm, arrived_s))
        return None

    def _give_what_is_due(self, session: EngineSession) -> list[Refused]:
        """Results and other things told whose frame was heard. A result waits while its call is
        still being made, since who says everything again after a `Resume` says that too early;
        tools don't change under an open action."""
        slot, refused = session.slot, []
        while session.told and session.told[0].after <= session.number:
            command = session.told[0]
            acting = self.agent.sessions[slot]
            if acting.is_open and (isinstance(command, Tell) or command.call > acting.calls):
                break
            session.told.popleft()
            session.taken += 1
            try:
                if isinstance(command, Tell):
                    self.agent.tell(self.state, slot, command.system, command.tools)
                    continue
                self.agent.give(self.state, slot, command.call, command.result)
                self.traces.answered(session.name, command.call, command.result)
            except ValueError as error:
                refused.append(Refused(session.name, "bad_message", str(error)))
        return refused

    def end(self) -> list[Closed]:
        """Closes all sessions."""
        return [self._closed(session, "engine_ends") for session in [*self.sessions.values()]]

    def _close_silent(self) -> list[Reply]:
        """Ends the sessions of which nothing has come for long; looks once a second."""
        now_s = self.clock()
        if now_s - self._looked_s < _LOOK_S:
            return []
        self._looked_s, since_s = now_s, now_s - self.config.patience_s
        silent = [session for session in self.sessions.values() if session.seen_s < since_s]
        return [self._closed(session, "no_frames") for session in silent]

    def _closed(
        self, session: EngineSession, reason: Literal["no_frames", "engine_ends"]
    ) -> Closed:
        self._close(session, reason)
        return Closed(session.name, reason)

    def _close(self, session: EngineSession, reason: str) -> None:
        del self.sessions[session.name]
        self.traces.closed(session.name, reason, session.number + 1)
        self.metrics.closed.labels(reason).inc()
        self.metrics.sessions.set(len(self.sessions))
        self.agent.sessions.pop(session.slot)
        self._free.append(session.slot)
