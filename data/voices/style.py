"""Styles: how a phrase is said, made out of how the engine says it.

One way for every engine: fillers go into the text before it is spoken, pauses in between its words
after, and Rubber Band (a Debian program) changes tempo and pitch and keeps the formants, so that
every time in the utterance scales by a known factor.
"""

import dataclasses
import hashlib
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from data.voices.engines import read_24khz, run_program
from data.voices.utterance import SAMPLE_RATE_HZ, Phone, Utterance, Word

PartT = TypeVar("PartT", Phone, Word)
_FILLERS = ("um,", "uh,", "er,")
_PAUSE_S = (0.25, 0.9)
_FADE = SAMPLE_RATE_HZ // 200  # 5 ms, at the cuts that a pause makes
_LOUDEST = 0.98


@dataclass(frozen=True)
class Style:
    """Changes against the engine's own way; chances are of each place between two words."""

    tempo: float = 1.0
    pitch_semitones: float = 0.0
    gain_db: float = 0.0
    pause_chance: float = 0.0
    filler_chance: float = 0.0

    def __post_init__(self) -> None:
        if not 0.5 <= self.tempo <= 2.0:
            raise ValueError(f"tempo {self.tempo}: must be in 0.5..2")
        for name in ("pause_chance", "filler_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be in 0..1")


NEUTRAL = "neutral"
STYLES = {
    NEUTRAL: Style(),
    "calm": Style(tempo=0.92, pitch_semitones=-0.5, gain_db=-2.0),
    "brisk": Style(tempo=1.15, pitch_semitones=0.5, gain_db=1.0),
    "urgent": Style(tempo=1.25, pitch_semitones=2.5, gain_db=5.0),
    "hesitant": Style(
        tempo=0.9, pitch_semitones=-0.3, gain_db=-2.0, pause_chance=0.15, filler_chance=0.1
    ),
}


def with_fillers(text: str, style: Style, seed: str) -> str:
    """`text` with fillers between some of its words, always the same for the same seed."""
    rng = random.Random(_number(f"fillers {seed}"))
    first, *rest = text.split()
    words = [first]
    for word in rest:
        if rng.random() < style.filler_chance:
            words.append(rng.choice(_FILLERS))
        words.append(word)
    return " ".join(words)


def restyle(utterance: Utterance, style: Style, seed: str) -> Utterance:
    """The same words in another style: tempo, pitch, pauses and loudness."""
    audio = _stretched(utterance.audio, style)
    longer = len(audio) / len(utterance.audio)
    phones = tuple(scaled(phone, longer) for phone in utterance.phones)
    words = tuple(scaled(word, longer) for word in utterance.words)
    changed = dataclasses.replace(utterance, audio=audio, phones=phones, words=words)
    rng = random.Random(_number(f"pauses {seed}"))
    # From the last place to the first: a pause moves only what comes after it.
    for word in reversed(words[1:]):
        if rng.random() < style.pause_chance:
            changed = with_silence(changed, word.start_s, rng.uniform(*_PAUSE_S))
    gain = 10 ** (style.gain_db / 20)
    loudest = float(np.abs(changed.audio).max(initial=0.0))
    gain = min(gain, _LOUDEST / loudest) if loudest else gain
    return dataclasses.replace(changed, audio=changed.audio * np.float32(gain))


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _stretched(audio: NDArray[np.float32], style: Style) -> NDArray[np.float32]:
    if style.tempo == 1.0 and style.pitch_semitones == 0.0:
        return audio
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.wav", Path(folder) / "after.wav"
        soundfile.write(before, audio, SAMPLE_RATE_HZ, subtype="FLOAT")
        change = ["--tempo", str(style.tempo), "--pitch", str(style.pitch_semitones)]
        run_program(
            ["rubberband", "--fine", "--formant", "--quiet", *change, str(before), str(after)]
        )
        return read_24khz(after)


def scaled(part: PartT, longer: float) -> PartT:
    """The word or phone where everything lasts `longer` times as long."""
    return part._replace(start_s=part.start_s * longer, end_s=part.end_s * longer)


def with_silence(utterance: Utterance, at_s: float, pause_s: float) -> Utterance:
    """Silence put into an utterance at a time; all that starts there or later is as much later."""
    cut = round(at_s * SAMPLE_RATE_HZ)
    before, after = utterance.audio[:cut].copy(), utterance.audio[cut:].copy()
    fade = np.linspace(0, 1, min(_FADE, len(before), len(after)), dtype=np.float32)
    before[len(before) - len(fade) :] *= fade[::-1]
    after[: len(fade)] *= fade
    silence = np.zeros(round(pause_s * SAMPLE_RATE_HZ), np.float32)
    later_s = len(silence) / SAMPLE_RATE_HZ
    return dataclasses.replace(
        utterance,
        audio=np.concatenate([before, silence, after]),
        phones=tuple(_delayed(phone, at_s, later_s) for phone in utterance.phones),
        words=tuple(_delayed(word, at_s, later_s) for word in utterance.words),
    )


def _delayed(part: PartT, at_s: float, later_s: float) -> PartT:
    starts_later = part.start_s >= at_s
    ends_later = starts_later or part.end_s > at_s
    return part._replace(
        start_s=part.start_s + later_s * starts_later, end_s=part.end_s + later_s * ends_later
    )
