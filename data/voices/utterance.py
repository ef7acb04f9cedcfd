"""What a voice returns: 24 kHz audio and, where the engine tells, its phones in time."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 24_000


class Phone(NamedTuple):
    """One ARPAbet phone (or `SIL`) and where it stands in the audio, in seconds."""

    symbol: str
    start_s: float
    end_s: float


class Word(NamedTuple):
    """One word as the text writes it, punctuation included, and where it stands, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Utterance:
    """Spoken text.

    `text` is what was said, fillers included. `audio` is float32 [T] at 24 kHz in -1..1; `phones`
    is empty where the engine gives no times.
    """

    text: str
    voice: str
    audio: NDArray[np.float32]
    phones: tuple[Phone, ...]
    words: tuple[Word, ...] = ()


def at_24khz(audio: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Resamples mono float32 [T] audio to 24 kHz."""
    if rate_hz == SAMPLE_RATE_HZ:
        return audio
    return soxr.resample(audio, rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
