"""Spoken turns at their times on two channels: a dialogue, with the calls that are right in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.dialogue import AGENT, USER, Action, Dialogue
from data.scripts.spoken_turn import SpokenTurn
from data.scripts.turn import Call
from data.voices.utterance import SAMPLE_RATE_HZ, Word

_FADE = SAMPLE_RATE_HZ // 50  # 20 ms, where a turn is cut off


@dataclass(frozen=True)
class Placed:
    """A turn of one side that begins at `start_s`; at `stop_s` it falls silent, done or not."""

    side: int
    spoken: SpokenTurn
    start_s: float
    stop_s: float = math.inf

    def __post_init__(self) -> None:
        if self.side not in (AGENT, USER):
            raise ValueError(f"side {self.side}: must be {AGENT} (agent) or {USER} (user)")
        if not 0 <= self.start_s < self.stop_s:
            raise ValueError(f"from {self.start_s} to {self.stop_s} s: must be 0 or later, and end")

    @property
    def end_s(self) -> float:
        """When it falls silent."""
        return min(self.stop_s, self.start_s + len(self._whole) / SAMPLE_RATE_HZ)

    @property
    def _whole(self) -> NDArray[np.float32]:
        return self.spoken.utterance.audio

    def audio(self) -> NDArray[np.float32]:
        """What is heard of it [T], faded out where it is cut off."""
        length = round((self.end_s - self.start_s) * SAMPLE_RATE_HZ)
        heard = self._whole[:length].copy()
        if length < len(self._whole):
            fade = np.linspace(1, 0, min(_FADE, length), dtype=np.float32)
            heard[length - len(fade) :] *= fade
        return heard

    def words(self) -> list[Word]:
        """The words that begin before it is cut off, in the dialogue's time."""
        moved = (
            Word(word.text, word.start_s + self.start_s, word.end_s + self.start_s)
            for word in self.spoken.utterance.words
        )
        return [w._replace(end_s=min(w.end_s, self.end_s)) for w in moved if w.start_s < self.end_s]

    def calls(self) -> list[tuple[float, Call]]:
        """When each call is right, of those whose last word was said."""
        times = [(self.start_s + self.spoken.needed_s(c), c) for c in self.spoken.turn.calls]
        return [(time_s, call) for time_s, call in times if time_s <= self.end_s]


def render(
    name: str, turns: Sequence[Placed], seconds: float, source: str, licence: str
) -> Dialogue:
    """Puts the turns on their channels; `seconds` is how long the dialogue lasts at least.

    A side that speaks twice at once is heard twice: turns are to be placed so that it doesn't.
    """
    last_s = max([seconds, *(turn.end_s for turn in turns)])
    audio = np.zeros((2, round(last_s * SAMPLE_RATE_HZ)), np.float32)
    words: tuple[list[Word], list[Word]] = ([], [])
    actions: list[Action] = []
    for turn in sorted(turns, key=lambda turn: turn.start_s):
        first, heard = round(turn.start_s * SAMPLE_RATE_HZ), turn.audio()
        room = audio.shape[1] - first
        audio[turn.side, first : first + len(heard)] += heard[:room]
        words[turn.side].extend(turn.words())
        if turn.side == USER:
            actions += _actions(turn, len(actions))
    sides = (tuple(words[AGENT]), tuple(words[USER]))
    return Dialogue(name, audio.clip(-1, 1), sides, source, licence, tuple(actions))


def _actions(turn: Placed, before: int) -> list[Action]:
    """The turn's calls as actions, numbered on from `before`."""
    return [
        Action(
            time_s, "call" if call.revises is None else "revise", before + number, call.tool,
            call.arguments, None if call.revises is None else before + 1 + call.revises,
        )
        for number, (time_s, call) in enumerate(turn.calls(), 1)
    ]  # fmt: skip
