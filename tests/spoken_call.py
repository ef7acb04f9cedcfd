"""A call between two synthesisers, whose words' times are known: what the readers are tested on."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.dialogue import AGENT, USER
from data.voices import SAMPLE_RATE_HZ, Word, say

_VOICES = {AGENT: "festival:slt_hts", USER: "flite:rms"}
_LINES = (
    (AGENT, "Hello, how can I help you?"),
    (USER, "I'd like 2 tickets for Ouagadougou, please."),
    (AGENT, "Sure - that is order 48192."),
    (USER, "Thank you!"),
)
_GAP_S = 0.3


class Turn(NamedTuple):
    """What one side says, from when to when, and its words in seconds of the call."""

    side: int
    text: str
    start_s: float
    end_s: float
    words: tuple[Word, ...]


class Call(NamedTuple):
    """`audio` is float32 [2, T] at 24 kHz, agent first."""

    audio: NDArray[np.float32]
    turns: tuple[Turn, ...]

    def text(self, side: int) -> str:
        return " ".join(turn.text for turn in self.turns if turn.side == side)

    def words(self, side: int) -> tuple[Word, ...]:
        return tuple(word for turn in self.turns if turn.side == side for word in turn.words)


def make_call() -> Call:
    """The same call each time; the caller sets DUOLOGUE_CACHE."""
    turns: list[Turn] = []
    pieces: list[NDArray[np.float32]] = []
    start_s = _GAP_S
    for side, text in _LINES:
        spoken = say(text, _VOICES[side])
        words = tuple(
            Word(word.text, start_s + word.start_s, start_s + word.end_s) for word in spoken.words
        )
        end_s = start_s + len(spoken.audio) / SAMPLE_RATE_HZ
        turns.append(Turn(side, text, start_s, end_s, words))
        pieces.append(spoken.audio)
        start_s = end_s + _GAP_S
    audio = np.zeros((2, round(start_s * SAMPLE_RATE_HZ)), np.float32)
    for turn, piece in zip(turns, pieces, strict=True):
        first = round(turn.start_s * SAMPLE_RATE_HZ)
        audio[turn.side, first : first + len(piece)] = piece
    return Call(audio, tuple(turns))


def start_errors_s(found: tuple[Word, ...], known: tuple[Word, ...]) -> NDArray[np.float64]:
    """By how much each word's beginning is off; the same words are expected."""
    assert [word.text for word in found] == [word.text for word in known]
    return np.array([abs(a.start_s - b.start_s) for a, b in zip(found, known, strict=True)])
