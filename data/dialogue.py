"""Two people on two channels: what recordings are read as and what scripts are rendered to."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.voices.utterance import SAMPLE_RATE_HZ, Word
from model.codec import FRAME_SIZE

AGENT, USER = 0, 1  # channels
_SLACK_S = 0.1  # by which a word may overhang the audio: aligners round


class Action(NamedTuple):
    """What stands on the action channel at `time_s`: a call or a revision at its `t_need`, and the
    result that comes back.

    Calls and revisions are numbered together, from 1; a revision `revises` an earlier number, a
    result has the number of what it answers. `arguments` of a result are what it holds.
    """

    time_s: float
    kind: Literal["call", "revise", "result"]
    number: int
    tool: str
    arguments: Mapping[str, str]
    revises: int | None = None


@dataclass(frozen=True)
class Dialogue:
    """`audio` is float32 [2, T] at 24 kHz in -1..1, agent first; `words` are each side's, in order.

    `source` says where it comes from, `licence` under which terms; recordings have no `actions`.
    Raises ValueError where a part does not fit the others, naming it.
    """

    name: str
    audio: NDArray[np.float32]
    words: tuple[tuple[Word, ...], tuple[Word, ...]]
    source: str
    licence: str
    actions: tuple[Action, ...] = ()

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
                first = int(word.start_s * SAMPLE_RATE_HZ) // FRAME_SIZE
                end = math.ceil(word.end_s * SAMPLE_RATE_HZ / FRAME_SIZE)
                speaking[side, first : max(end, first + 1)] = True
        return speaking
