"""Spoken turns at their times on two channels: a dialogue, with the calls that are right in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.dialogue import AGENT, USER, Action, Manner, Spell
from data.scripts.spoken_turn import SpokenTurn
from data.scripts.turn import Call
from data.voices.utterance import SAMPLE_RATE_HZ, Word

_FADE = SAMPLE_RATE_HZ // 50  # 20 ms, where a turn is cut off
Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Placed:
    """A turn of one side whose audio begins at `start_s`; at `stop_s` it falls silent."""

    side: int
    spoken: SpokenTurn
    start_s: float
    stop_s: float = math.inf
    style: str = "neutral"
    manner: Manner = "turn"

    def __post_init__(self) -> None:
        if self.side not in (AGENT, USER):
            raise ValueError(f"side {self.side}: must be {AGENT} (agent) or {USER} (user)")
        if not 0 <= self.start_s < self.stop_s:
            raise ValueError(f"from {self.start_s} to {self.stop_s} s: must be 0 or later, and end")

    @property
    def spell(self) -> Spell:
        """From its first word to the end of its last one, or to where it is cut off."""
        words = self.spoken.utterance.words
        first_s, last_s = self.start_s + words[0].start_s, self.start_s + words[-1].end_s
        return Spell(self.side, first_s, min(last_s, self.stop_s), self.style, self.manner)

    def audio(self) -> Audio:
        """What is heard of it [T], faded out where it is cut off."""
        whole = self.spoken.utterance.audio
        if math.isinf(self.stop_s):
            return whole
        heard = whole[: round((self.stop_s - self.start_s) * SAMPLE_RATE_HZ)].copy()
        if len(heard) < len(whole):
            fade = np.linspace(1, 0, min(_FADE, len(heard)), dtype=np.float32)
            heard[len(heard) - len(fade) :] *= fade
        return heard

    def words(self) -> list[Word]:
        """The words that begin before it is cut off, in the dialogue's time."""
        said = [word for word in self._planned() if word.start_s < self.stop_s]
        return [word._replace(end_s=min(word.end_s, self.stop_s)) for word in said]

    def unsaid(self) -> list[Word]:
        """The words that it was to have after it was cut off, and when."""
        return [word for word in self._planned() if word.start_s >= self.stop_s]

    def _planned(self) -> list[Word]:
        return [
            Word(word.text, word.start_s + self.start_s, word.end_s + self.start_s)
            for word in self.spoken.utterance.words
        ]

    def actions(self) -> list[Action]:
        """What becomes right within it, of what was said before it is cut off."""
        found = [self._action(call) for call in self.spoken.turn.calls]
        return [action for action in found if action.time_s <= self.stop_s]

    def _action(self, call: Call) -> Action:
        known_s = {
            name: self.start_s + self.spoken.said_s(word) for name, word in call.needs.items()
        }
        time_s = self.start_s + self.spoken.needed_s(call)
        return Action(
            time_s, call.kind, call.number, call.tool, call.arguments, call.revises, known_s
        )


@dataclass(frozen=True)
class Background:
    """A sound in the user's room, float32 [T]."""

    start_s: float
    audio: Audio

    @property
    def spell(self) -> Spell:
        """When it is heard."""
        end_s = self.start_s + len(self.audio) / SAMPLE_RATE_HZ
        return Spell(USER, self.start_s, end_s, manner="background")


def render(turns: Sequence[Placed], backgrounds: Sequence[Background], seconds: float) -> Audio:
    """Puts everything on its channel, float32 [2, T]; `seconds` is how long it lasts at least.

    A side that speaks twice at once is heard twice: turns are to be placed so that it doesn't.
    """
    sounds = [(turn.side, turn.start_s, turn.audio()) for turn in turns]
    sounds += [(USER, background.start_s, background.audio) for background in backgrounds]
    placed = [(side, round(start_s * SAMPLE_RATE_HZ), heard) for side, start_s, heard in sounds]
    samples = max([round(seconds * SAMPLE_RATE_HZ), *(at + len(a) for _, at, a in placed)])
    audio = np.zeros((2, samples), np.float32)
    for side, at, heard in placed:
        audio[side, at : at + len(heard)] += heard
    return audio.clip(-1, 1)
