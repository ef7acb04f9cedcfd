"""What was said and done in a call with an agent, on the audio's clock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data.dialogue import AGENT, Action
from data.scripts.domain import HANDOFF
from data.voices.utterance import SAMPLE_RATE_HZ, Word
from model.frame import FRAME_S
from model.tokens import SPECIAL_TOKENS

_WINDOW = SAMPLE_RATE_HZ // 50  # 20 ms, over which loudness is measured
_LOUD = 10 ** (-45 / 20)  # root mean square of the quietest window that is speech
_PAUSE_S = 0.4  # a longer silence ends a stretch of speech
_CLICK_S = 0.06  # a shorter sound is no speech

EventKind = Literal["opened", "made", "result"]
Interval = tuple[float, float]


class Tokens(Protocol):
    """What the tokens of a text stream are read with."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Their text, a space before each word."""
        ...

    def id_of(self, token: str) -> int:
        """The number of a special token."""
        ...


class Wait(NamedTuple):
    """A pause in what a caller says, from a time of the script on; both in seconds."""

    at_s: float
    seconds: float


class Event(NamedTuple):
    """Something on the action channel: `action` is call, revise, cancel, confirm, handoff or
    result. `number` is that of the call it is about, `arguments` of a result are what it holds."""

    time_s: float
    kind: EventKind
    number: int
    action: str
    tool: str
    arguments: Mapping[str, Any]
    confidence: float | None = None


@dataclass(frozen=True)
class Conversation:
    """`audio` is float32 [2, T] at 24 kHz, agent first, as it was heard. `words` of the agent are
    its text, which runs ahead of its sound, those of the caller what the model understood, each at
    the time it was written. `floor` numbers `data.dialogue.FLOORS`, uint8 [frames]. `waits` are the
    caller's, who let the agent finish."""

    name: str
    audio: NDArray[np.float32]
    words: tuple[tuple[Word, ...], tuple[Word, ...]]
    floor: NDArray[np.uint8]
    events: tuple[Event, ...]
    waits: tuple[Wait, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.audio.shape[1] / SAMPLE_RATE_HZ

    def actions(self) -> tuple[Action, ...]:
        """What the agent did, in the form of a dialogue's labels."""
        calls = Calls()
        return tuple(calls.made(event) for event in self.events if event.kind == "made")

    def speech(self) -> tuple[Interval, ...]:
        """When the agent is heard: (from, to) in seconds, in order."""
        return speech_in(self.audio[AGENT])


class Calls:
    """The calls of a conversation that stand: neither replaced nor taken back."""

    def __init__(self) -> None:
        self.standing: dict[int, str] = {}  # number -> tool

    def made(self, event: Event) -> Action:
        """Takes note of an action. A revision replaces the last call of the same tool that stands,
        or else the last one."""
        number, revises = event.number, 0
        if event.action in ("call", "revise"):
            if event.action == "revise" and self.standing:
                same = [n for n, tool in self.standing.items() if tool == event.tool]
                revises = max(same or self.standing)
                del self.standing[revises]
            self.standing[number] = event.tool
        elif event.action == "cancel":
            self.standing.pop(number, None)
        elif event.action == "handoff":
            number = 0
        tool = HANDOFF if event.action == "handoff" else event.tool
        kind: Any = event.action
        return Action(event.time_s, kind, number, tool, event.arguments, revises)


def words_of(tokens: Sequence[int], tokenizer: Tokens) -> tuple[Word, ...]:
    """A text stream, one token a frame, as words: from the frame of a word's first token to the end
    of that of its last one. What comes out of a frame is there when the frame has been heard."""
    silent = {tokenizer.id_of(token) for token in SPECIAL_TOKENS}
    pieces: list[tuple[int, list[int]]] = []  # (first frame, tokens)
    ends: list[int] = []
    for frame, token in enumerate(tokens):
        if token in silent:
            continue
        if not pieces or tokenizer.decode([token]).startswith(" "):
            pieces.append((frame, []))
            ends.append(frame)
        pieces[-1][1].append(token)
        ends[-1] = frame
    words = [
        Word(tokenizer.decode(piece).strip(), (first + 1) * FRAME_S, (last + 2) * FRAME_S)
        for (first, piece), last in zip(pieces, ends, strict=True)
    ]
    return tuple(word for word in words if word.text)


def text_of(words: Iterable[Word]) -> str:
    """Words as one line."""
    return " ".join(word.text for word in words)


def speech_in(pcm: NDArray[np.float32]) -> tuple[Interval, ...]:
    """When speech is heard in clean float32 [T] at 24 kHz: stretches without long pauses."""
    windows = np.pad(pcm, (0, -len(pcm) % _WINDOW)).reshape(-1, _WINDOW)
    loud = np.flatnonzero(np.sqrt(np.square(windows).mean(1)) > _LOUD)
    if not loud.size:
        return ()
    window_s = _WINDOW / SAMPLE_RATE_HZ
    breaks = np.flatnonzero(np.diff(loud) * window_s > _PAUSE_S)
    starts = loud[np.concatenate([[0], breaks + 1])] * window_s
    ends = (loud[np.concatenate([breaks, [len(loud) - 1]])] + 1) * window_s
    return tuple(
        (float(start_s), float(end_s))
        for start_s, end_s in zip(starts, ends, strict=True)
        if end_s - start_s > _CLICK_S
    )
