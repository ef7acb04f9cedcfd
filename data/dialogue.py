"""Two people on two channels: what recordings are read as and what scripts are rendered to."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.voices.utterance import SAMPLE_RATE_HZ, Word
from model.frame import (
    AGENTS,
    AGENTS_BACKCHANNEL,
    FRAME_S,
    FRAME_SIZE,
    NOBODY,
    USERS,
    USERS_BACKCHANNEL,
)

AGENT, USER = 0, 1  # channels
_SLACK_S = 0.1  # by which a word may overhang the audio: aligners round
_TURN_GAP_S = 0.7  # a longer silence ends a turn, in recordings
_BACKCHANNEL_WORDS = 2  # at most, over the other one's turn, in recordings

ActionKind = Literal["call", "revise", "cancel", "confirm", "handoff", "result"]
Manner = Literal["turn", "backchannel", "side_talk", "background"]


class Action(NamedTuple):
    """What stands on the action channel at `time_s`: what the agent does when it is right to
    (`t_need`: the end of the last word that it needs), or the result that comes back.

    Calls and revisions are numbered together, from 1; a revision `revises` an earlier number (0:
    none); a result, a cancellation and a confirmation have the number of the call they mean, a
    hand-off 0. `arguments` of a result are what it holds. `known_s` says since when each argument
    is known; those that are missing in it were known before.
    """

    time_s: float
    kind: ActionKind
    number: int
    tool: str
    arguments: Mapping[str, str]
    revises: int = 0
    known_s: Mapping[str, float] = {}


class Spell(NamedTuple):
    """One side speaking from `start_s` to `end_s`, and how. What is heard of others in the user's
    room (`background`) is on his channel, but none of his words."""

    side: int
    start_s: float
    end_s: float
    style: str = "neutral"
    manner: Manner = "turn"


@dataclass(frozen=True)
class Dialogue:
    """`audio` is float32 [2, T] at 24 kHz in -1..1, agent first; `words` are each side's, in order.

    `source` says where it comes from, `licence` under which terms. Recordings have no `actions`, no
    `system` (the role prompt), `tools` (JSON, as declared) or `script` (JSON); their `spells` are
    found in their words where they are not given. `unsaid` are the agent's words that an
    interruption kept it from saying, when they would have come.
    Raises ValueError where a part does not fit the others, naming it.
    """

    name: str
    audio: NDArray[np.float32]
    words: tuple[tuple[Word, ...], tuple[Word, ...]]
    source: str
    licence: str
    actions: tuple[Action, ...] = ()
    spells: tuple[Spell, ...] = ()
    unsaid: tuple[Word, ...] = ()
    system: str = ""
    tools: str = "[]"
    script: str = ""

    def __post_init__(self) -> None:
        if self.audio.ndim != 2 or len(self.audio) != 2 or not self.audio.shape[1]:
            raise ValueError(f"audio has shape {list(self.audio.shape)}: must be [2, samples]")
        if not np.isfinite(self.audio).all():
            raise ValueError("audio holds NaN or infinity: must be finite")
        for side, words in zip(("agent", "user"), self.words, strict=True):
            last_s = 0.0
            for number, word in enumerate(words):
                if not last_s <= word.start_s <= word.end_s <= self.seconds + _SLACK_S:
                    raise ValueError(
                        f"{side} word {number} ({word.text!r}) is at {word.start_s} to "
                        f"{word.end_s} s: must begin at {last_s} s or later and end within "
                        f"{self.seconds:.2f} s"
                    )
                last_s = word.start_s
        if not self.spells:
            object.__setattr__(self, "spells", _spells_of(self.words))

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.audio.shape[1] / SAMPLE_RATE_HZ

    @property
    def frames(self) -> int:
        """How many frames of 80 ms it takes, the last one filled up."""
        return math.ceil(self.audio.shape[1] / FRAME_SIZE)

    def is_speaking(self) -> NDArray[np.bool_]:
        """Whether each side says a word within each frame [2, frames]."""
        speaking = np.zeros((2, self.frames), bool)
        for side, words in enumerate(self.words):
            for word in words:
                speaking[side, self._frames(word.start_s, word.end_s)] = True
        return speaking

    def floor(self) -> NDArray[np.uint8]:
        """Who holds the floor in each frame [frames]: an index into `FLOORS`.

        Where turns overlap, the one that began later holds it. What is said aside to others or
        heard of them changes nothing.
        """
        floor = np.full(self.frames, NOBODY, np.uint8)
        for spell in sorted(self.spells, key=lambda spell: spell.start_s):
            if spell.manner == "turn":
                floor[self._frames(spell.start_s, spell.end_s)] = (AGENTS, USERS)[spell.side]
        for spell in self.spells:
            if spell.manner == "backchannel":
                kind = (AGENTS_BACKCHANNEL, USERS_BACKCHANNEL)[spell.side]
                floor[self._frames(spell.start_s, spell.end_s)] = kind
        return floor

    def _frames(self, start_s: float, end_s: float) -> slice:
        """The frames in which something is going on."""
        first = int(start_s / FRAME_S)
        return slice(first, max(math.ceil(end_s / FRAME_S), first + 1))


def _spells_of(words: tuple[tuple[Word, ...], ...]) -> tuple[Spell, ...]:
    """Turns as a recording's words tell them: words without a long silence between them."""
    spells: list[Spell] = []
    counts: list[int] = []
    for side, said in enumerate(words):
        for number, word in enumerate(said):
            if number and word.start_s - spells[-1].end_s < _TURN_GAP_S:
                spells[-1] = spells[-1]._replace(end_s=max(spells[-1].end_s, word.end_s))
                counts[-1] += 1
            else:
                spells.append(Spell(side, word.start_s, word.end_s))
                counts.append(1)
    return tuple(
        spell._replace(manner="backchannel")
        if count <= _BACKCHANNEL_WORDS and _is_within_another(spell, spells)
        else spell
        for spell, count in zip(spells, counts, strict=True)
    )


def _is_within_another(spell: Spell, spells: list[Spell]) -> bool:
    return any(
        other.side != spell.side and other.start_s < spell.start_s and spell.end_s < other.end_s
        for other in spells
    )
