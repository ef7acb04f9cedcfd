"""Plays callers to an agent frame by frame, many at a time; writes down what it says and does."""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.dialogue import USER, Action, Dialogue
from data.scripts.backend import Backend
from model.action_session import ActionEvent
from model.agent import AgentFrame
from model.frame import FRAME_S, FRAME_SIZE
from train.conversation import Conversation, Event, Tokens, Wait, words_of
from train.scoring.patience import (
    MOST_CUE_FRAMES,
    MOST_FRAMES,
    is_quiet,
    speaking_frames,
    waits_of,
)
from train.tool_desk import ToolDesk

_TAIL_S = 1.6  # after the caller's last sound, for an agent that is a little late


class Agent(Protocol):
    """What is talked to: `model.agent.Agent`, or a stand-in."""

    @property
    def tokenizer(self) -> Tokens:
        """What reads its text streams."""
        ...

    def init_state(self, batch: int) -> Any:
        """A fresh state of `batch` rows."""
        ...

    def begin(
        self, state: Any, row: int, system: str, tools: Sequence[Mapping[str, Any]], seed: int
    ) -> None:
        """Clears a row and gives it its role and its tools."""
        ...

    def step(self, state: Any, pcm: Tensor, active: Tensor | None = None) -> AgentFrame:
        """One frame of each active row."""
        ...

    def give(self, state: Any, row: int, number: int, result: Mapping[str, Any]) -> None:
        """A call's result, before the next frame."""
        ...


@dataclass(frozen=True)
class Caller:
    """One who calls: `audio` is float32 [T] at 24 kHz. `labels` say which results are to come.
    `waits` are the frames before which he lets the agent finish, and for how many silent ones,
    `cues` those before which he lets it begin, and how many of them it is to have spoken."""

    name: str
    audio: NDArray[np.float32]
    system: str
    tools: Sequence[Mapping[str, Any]]
    labels: tuple[Action, ...] = ()
    waits: Mapping[int, int] = field(default_factory=dict)
    cues: Mapping[int, int] = field(default_factory=dict)
    tail_s: float = _TAIL_S

    @property
    def frames(self) -> int:
        """How many frames it takes, silence at the end included."""
        return -(-len(self.audio) // FRAME_SIZE) + round(self.tail_s / FRAME_S)


Hold = Callable[[Iterable[Caller]], Iterator[tuple[Caller, Conversation]]]  # callers' calls


def caller_of(dialogue: Dialogue) -> Caller:
    """The caller of a dialogue, who lets an agent finish whom he didn't interrupt there."""
    tools, waits = json.loads(dialogue.tools), waits_of(dialogue)
    audio = dialogue.audio[USER]
    return Caller(dialogue.name, audio, dialogue.system, tools, dialogue.actions, waits)


@dataclass
class Playing:
    """A caller as he is played: `waited` are the frames in which he let the agent finish, by the
    frame of his own before which he did, and `pcm` all that he gave."""

    caller: Caller
    waited: Counter[int] = field(default_factory=Counter)
    pcm: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def own_frame(self) -> int:
        """How many frames of his own he has given."""
        return len(self.pcm) - self.waited.total()

    @property
    def is_over(self) -> bool:
        """Whether he has hung up."""
        return self.own_frame == self.caller.frames

    @property
    def waits(self) -> tuple[Wait, ...]:
        """When he waited, and how long."""
        return tuple(
            Wait(own * FRAME_S, count * FRAME_S)
            for own, count in sorted(self.waited.items())
            if count
        )

    def next_frame(self, heard: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """His next frame [1920] after those of the agent's, silence while he waits and after his
        end."""
        own, said = self.own_frame, np.zeros(0, np.float32)
        if self._waits(own, heard):
            self.waited[own] += 1
        else:
            said = self.caller.audio[own * FRAME_SIZE : (own + 1) * FRAME_SIZE]
        self.pcm.append(np.pad(said, (0, FRAME_SIZE - len(said))))
        return self.pcm[-1]

    def _waits(self, own: int, heard: Sequence[NDArray[np.float32]]) -> bool:
        """Whether frame `own` of his is not to come yet."""
        quiet, cue = self.caller.waits.get(own, 0), self.caller.cues.get(own, 0)
        is_answering = not all(map(is_quiet, heard[len(heard) - quiet :]))
        if is_answering and self.waited[own] < MOST_FRAMES:
            return True
        return bool(cue) and self.waited[own] < MOST_CUE_FRAMES and speaking_frames(heard) < cue


@dataclass
class Session:
    """A call that is going on in one row."""

    playing: Playing
    desk: ToolDesk
    pcm: list[NDArray[np.float32]] = field(default_factory=list)  # the agent's
    streams: list[tuple[int, int, int]] = field(default_factory=list)  # agent, user, floor
    events: list[Event] = field(default_factory=list)
    tools: dict[int, str] = field(default_factory=dict)  # by the call's number

    @property
    def now_s(self) -> float:
        """Up to when it has heard."""
        return len(self.pcm) * FRAME_S

    def give(self, agent: Agent, state: Any, row: int) -> None:
        """Gives the agent what its calls have brought by now."""
        for number, result in self.desk.ready(self.playing.own_frame * FRAME_S):
            agent.give(state, row, number, result)
            tool = self.tools.get(number, "")
            self.events.append(Event(self.now_s, "result", number, "result", tool, result))

    def heard(self, frame: AgentFrame, row: int) -> None:
        """Writes down what came of a frame. It is there when the frame is over."""
        self.pcm.append(frame.pcm[row].float().numpy().copy())
        streams = (frame.agent_text, frame.user_text, frame.floor)
        agent, user, floor = (int(stream[row]) for stream in streams)
        self.streams.append((agent, user, floor))
        for found in frame.events:
            if found.row == row:
                self._happened(found)

    def _happened(self, found: ActionEvent) -> None:
        if found.action in ("call", "revise"):
            self.tools[found.number] = found.tool
        tool = found.tool or self.tools.get(found.number, "")
        event = Event(
            self.now_s,
            found.kind,
            found.number,
            found.action,
            tool,
            dict(found.arguments or {}),
            found.confidence,
        )
        self.events.append(event)
        if event.kind == "made":
            self.desk.made(event._replace(time_s=self.playing.own_frame * FRAME_S))

    def conversation(self, tokenizer: Tokens) -> Conversation:
        """All of it. The agent's frame is heard while the caller's next one is."""
        samples = len(self.pcm) * FRAME_SIZE
        audio = np.zeros((2, samples), np.float32)
        audio[0, FRAME_SIZE:] = np.concatenate(self.pcm)[: samples - FRAME_SIZE]
        audio[1] = np.concatenate(self.playing.pcm)
        agent, user, floor = zip(*self.streams, strict=True)
        words = (words_of(agent, tokenizer), words_of(user, tokenizer))
        floors, playing = np.array(floor, np.uint8), self.playing
        return Conversation(
            playing.caller.name, audio, words, floors, tuple(self.events), playing.waits
        )


@torch.inference_mode()
def converse(
    agent: Agent, callers: Iterable[Caller], batch: int, backend: Backend
) -> Iterator[tuple[Caller, Conversation]]:
    """Each caller's conversation with the agent, as it ends; at most `batch` are held at a time.

    What comes of a caller does not depend on who else calls: a row's draws have the caller's seed.
    """
    state = agent.init_state(batch)
    waiting = iter(callers)
    sessions: list[Session | None] = [None] * batch
    while True:
        for row in range(batch):
            if sessions[row] is None and (caller := next(waiting, None)) is not None:
                sessions[row] = Session(Playing(caller), ToolDesk(backend, caller.labels))
                seed = zlib.crc32(caller.name.encode())
                agent.begin(state, row, caller.system, caller.tools, seed)
        if not any(sessions):
            return
        _step(agent, state, sessions)
        for row, session in enumerate(sessions):
            if session is not None and session.playing.is_over:
                sessions[row] = None
                yield session.playing.caller, session.conversation(agent.tokenizer)


def _step(agent: Agent, state: Any, sessions: Sequence[Session | None]) -> None:
    """One frame of every call."""
    pcm = np.zeros((len(sessions), FRAME_SIZE), np.float32)
    for row, session in enumerate(sessions):
        if session is not None:
            session.give(agent, state, row)
            pcm[row] = session.playing.next_frame(session.pcm)
    active = torch.tensor([session is not None for session in sessions])
    frame = agent.step(state, torch.from_numpy(pcm), active)
    for row, session in enumerate(sessions):
        if session is not None:
            session.heard(frame, row)
