"""The cascade as an agent: frame by frame, late by what its recogniser and its voice compute."""

import heapq
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.scripts.domain import load_domain
from data.voices.say import ENGINES, say
from data.voices.utterance import SAMPLE_RATE_HZ, Utterance
from model.action_session import ActionEvent
from model.agent import AgentFrame
from model.frame import AGENTS, FRAME_S, FRAME_SIZE, NOBODY, USERS
from train import intervals
from train.cascade.listener import Listener
from train.cascade.manager import Act, Do, Manager, Say
from train.cascade.parser import load_parser
from train.intervals import Metric
from train.scoring import recognizers

_GREETED_FRAME = 5  # a greeting begins 0.4 s after the call
_WAITED_FRAMES = 8  # for a result, before something is said: 0.64 s
_SILENT_FRAMES = 75  # of both, before the caller is asked whether he is there: 6 s
_ASKED_AGAIN_FRAMES = 750  # a minute

Recognizer = Callable[[NDArray[np.float32]], str]


@dataclass(frozen=True)
class CascadeConfig:
    """A turn is over after `pause_ms` of silence, if `least_ms` of it were speech. Who speaks for
    `yield_ms` silences it."""

    pause_ms: int = 500
    least_ms: int = 192
    yield_ms: int = 256
    recognizer: str = "moonshine"

    def __post_init__(self) -> None:
        for name in ("pause_ms", "least_ms", "yield_ms"):
            if getattr(self, name) < 32:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least 32, a window")


def cpu_seconds() -> float:
    """What this process and the synthesisers that it has started have computed so far. Beside other
    work a wall clock would make the cascade later than it is."""
    children = (child.cpu_times() for child in psutil.Process().children())
    return time.process_time() + sum(times.user + times.system for times in children)


class Phrases:
    """The tokens of its text: each is a phrase, numbered as it is first said; 0 is silence."""

    def __init__(self) -> None:
        self.known = [""]
        self.numbers = {"": 0}

    def number(self, phrase: str) -> int:
        """A phrase's token."""
        if phrase not in self.numbers:
            self.numbers[phrase] = len(self.known)
            self.known.append(phrase)
        return self.numbers[phrase]

    def decode(self, tokens: Sequence[int]) -> str:
        """What was said."""
        return "".join(f" {self.known[token]}" for token in tokens)

    def id_of(self, token: str) -> int:
        """Nothing but text is written."""
        return 0


class Due(NamedTuple):
    """Something that happens in a frame, in the order in which it was found out."""

    frame: int
    order: int
    what: Any  # an Act, a transcript, or the number of a call that may still be running


@dataclass
class Row:
    """One call."""

    listener: Listener
    manager: Manager
    frame: int = 0
    due: list[Due] = field(default_factory=list)
    order: int = 0
    queue: list[Say] = field(default_factory=list)  # to be said
    ready: dict[str, int] = field(default_factory=dict)  # text -> frame from which it may be said
    spoken: Utterance | None = None
    place: int = 0  # samples of it that have been heard
    quiet_frames: int = 0
    asked_frame: int = -_ASKED_AGAIN_FRAMES

    def add(self, frame: int, what: Any) -> None:
        """Something is to happen in a frame."""
        self.order += 1
        heapq.heappush(self.due, Due(frame, self.order, what))

    def forget(self, about: set[int]) -> None:
        """What was to be said about these calls is not said."""
        self.due = [
            due for due in self.due if not (isinstance(due.what, Say) and due.what.number in about)
        ]
        heapq.heapify(self.due)


class Cascade:
    """Stands where a `model.agent.Agent` does. What it hears, understands and says takes the time
    that one core really took for it, by `clock` (seconds); a text that was said before, none."""

    def __init__(
        self,
        domain: str,
        voice: str,
        config: CascadeConfig | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Raises ModuleNotFoundError and FileNotFoundError where a part is not installed."""
        self.domain, self.voice = load_domain(domain), voice
        self.config, self.clock = config or CascadeConfig(), clock or cpu_seconds
        self.parser = load_parser(domain)
        self.recognize = recognizers.load(self.config.recognizer)
        self.recognize(np.zeros(SAMPLE_RATE_HZ // 2, np.float32))  # its first time is its slowest
        self.tokenizer = Phrases()
        self.said: dict[str, Utterance] = {}
        self.compute_s: list[float] = []  # from an end of turn to what follows from it
        self.voice_s: list[float] = []
        self._listener()

    def _listener(self) -> Listener:
        return Listener(self.config.pause_ms, self.config.least_ms)

    def init_state(self, batch: int) -> list[Row | None]:
        """`batch` callers, each of whom is to be begun."""
        return [None] * batch

    def begin(
        self,
        state: list[Row | None],
        row: int,
        system: str,
        tools: Sequence[Mapping[str, Any]],
        seed: int = 0,
    ) -> None:
        """A new caller in a row."""
        names = [tool["name"] for tool in tools]
        manager = Manager(self.domain, self.parser, system, names, seed)
        state[row] = new = Row(self._listener(), manager)
        new.add(_GREETED_FRAME, manager.greeting())

    def give(
        self, state: list[Row | None], row: int, number: int, result: Mapping[str, Any]
    ) -> None:
        """The result of a call."""
        one = state[row]
        assert one is not None
        self._follow(one, one.manager.given(number, result), 0.0)

    def step(
        self, state: list[Row | None], pcm: Tensor, active: Tensor | None = None
    ) -> AgentFrame:
        """One frame of each active row."""
        batch = len(state)
        text, user, floor = torch.zeros(3, batch, dtype=torch.int64)
        frame = AgentFrame(torch.zeros(batch, FRAME_SIZE), text, user, floor, [])
        for number, row in enumerate(state):
            if row is not None and (active is None or active[number]):
                self._step(row, number, pcm[number].numpy(), frame)
        return frame

    def figures(self) -> dict[str, Metric]:
        """What it computed so far: from an end of turn on, and for its voice alone."""
        return {
            f"{name}_ms_p{rank}": intervals.percentile(
                [1000 * one for one in found], range(len(found)), rank, "ms"
            )
            for name, found in (("compute", self.compute_s), ("voice", self.voice_s))
            for rank in (50, 95)
            if found
        }

    # One row.

    def _step(self, row: Row, number: int, pcm: NDArray[np.float32], frame: AgentFrame) -> None:
        heard = row.listener.hear(pcm)
        if heard.speaking_ms >= self.config.yield_ms and row.spoken is not None:
            row.spoken, row.queue = None, []
        if heard.turn is not None:
            self._understand(row, heard.turn)
        self._mind_silence(row, is_quiet=not heard.speaking_ms)
        while row.due and row.due[0].frame <= row.frame:
            self._happens(row, number, heapq.heappop(row.due).what, frame)
        self._speak(row, number, frame, may_begin=not heard.speaking_ms)
        frame.floor[number] = AGENTS if row.spoken else USERS if heard.speaking_ms else NOBODY
        row.frame += 1

    def _understand(self, row: Row, turn: NDArray[np.float32]) -> None:
        began_s = self.clock()
        text = self.recognize(turn)
        acts = row.manager.heard(text)
        took_s = self.clock() - began_s
        row.add(row.frame + math.ceil(took_s / FRAME_S), text)
        self.compute_s.append(took_s + self._follow(row, acts, took_s))

    def _follow(self, row: Row, acts: Sequence[Act], took_s: float) -> float:
        """Plans what is to be done; how long the voice takes for what is said first."""
        about = {0, *(act.number for act in acts)}
        about |= {act.revises for act in acts if isinstance(act, Do)}
        if acts:  # what has not been said yet is out of date, but for other calls' results
            row.queue = [say for say in row.queue if say.number not in about]
            row.forget(about)
        first_s = 0.0
        for act in acts:
            if isinstance(act, Say) and not first_s:
                first_s = self._voiced(act.text)
            row.add(row.frame + math.ceil((took_s + first_s) / FRAME_S), act)
        return first_s

    def _voiced(self, text: str) -> float:
        """Says a text, if it is new; how long that took."""
        if text in self.said:
            return 0.0
        engine, _, name = self.voice.partition(":")
        began_s = self.clock()
        ENGINES[engine](text, name)  # what `say` has in its cache must be said to be timed
        took_s = self.clock() - began_s
        self.said[text] = say(text, self.voice)
        self.voice_s.append(took_s)
        return took_s

    def _happens(self, row: Row, number: int, what: Any, frame: AgentFrame) -> None:
        """Does what is due; an action waits for a frame that has none."""
        if isinstance(what, str):
            frame.user_text[number] = self.tokenizer.number(what)
        elif isinstance(what, Say):
            self._voiced(what.text)
            row.queue.append(what)
        elif isinstance(what, int):
            self._follow(row, row.manager.waited(what), 0.0)
        elif any(event.row == number for event in frame.events):
            row.add(row.frame + 1, what)
        else:
            made = (what.number, what.action, what.tool, what.arguments, 1.0, what.revises)
            frame.events.append(ActionEvent(number, "made", *made))
            if what.action != "cancel":
                row.add(row.frame + _WAITED_FRAMES, what.number)

    def _mind_silence(self, row: Row, is_quiet: bool) -> None:
        """Asks whether somebody is there, once a minute at most."""
        is_idle = is_quiet and row.spoken is None and not row.queue and not row.due
        row.quiet_frames = row.quiet_frames + 1 if is_idle else 0
        may_ask = row.frame - row.asked_frame >= _ASKED_AGAIN_FRAMES
        if row.quiet_frames >= _SILENT_FRAMES and may_ask:
            row.asked_frame = row.frame
            self._follow(row, [row.manager.talk("are_you_there")], 0.0)

    def _speak(self, row: Row, number: int, frame: AgentFrame, may_begin: bool) -> None:
        """The next frame of its voice, and the words that begin in it."""
        if row.spoken is None and row.queue and may_begin:
            row.spoken, row.place = self.said[row.queue.pop(0).text], 0
        if row.spoken is None:
            return
        pcm = row.spoken.audio[row.place : row.place + FRAME_SIZE]
        frame.pcm[number, : len(pcm)] = torch.from_numpy(pcm)
        from_s, to_s = (place / SAMPLE_RATE_HZ for place in (row.place, row.place + FRAME_SIZE))
        words = [word.text for word in row.spoken.words if from_s <= word.start_s < to_s]
        if words:
            frame.agent_text[number] = self.tokenizer.number(" ".join(words))
        row.place += FRAME_SIZE
        if row.place >= len(row.spoken.audio):
            row.spoken = None
