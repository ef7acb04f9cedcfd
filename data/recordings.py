"""Real human speech and music from Debian's packages, read as 24 kHz audio.

Asterisk's prompts (asterisk-core-sounds-*-g722, one speaker a language, CC-BY-SA-3.0 and CC-BY-3.0)
are split in two halves by the hash of the file name; pocketsphinx-testdata (about two speakers,
BSD) is for tests only; hold music (asterisk-moh-opsound-g722, CC-BY-SA-3.0) is for training.
`make setup` installs them.
"""

import calendar
import functools
import gzip
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.scripts.spoken import number
from data.sentences import Split
from data.voices.engines import read_24khz
from data.voices.utterance import SAMPLE_RATE_HZ, at_24khz
from data.voices.words import sounding

_SOUNDS = Path("/usr/share/asterisk/sounds")
_ENGLISH = "en_US_f_Allison"
_TRAINING_SPEAKERS = (_ENGLISH, "es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo")
_TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
_SPHINX = Path("/usr/share/pocketsphinx/test/data")
_MUSIC = Path("/usr/share/asterisk/moh")
_MIN_TEST_WORDS = 4
_NUMBERS = {number(n): f"digits/{n}" for n in (*range(20), *range(20, 100, 10))}
_DAYS = {name.lower(): f"digits/day-{(n + 1) % 7}" for n, name in enumerate(calendar.day_name)}
_OTHERS = {"oh": "digits/oh", "o'clock": "digits/oclock", "tomorrow": "digits/tomorrow"}
# Digits of the training half, cut out of prompts of the test half: from, to in seconds, as
# data/ingest/align.py hears them.
_CUTS = {
    "zero": ("dictate/forhelp", 0.50, 0.94),
    "two": ("dictate/play_help", 3.05, 3.45),
    "eight": ("dictate/record_help", 3.23, 3.69),
    "nine": ("dir-multi9", 0.43, 0.84),
}


class Recording(NamedTuple):
    """A sound file, who speaks, and what (empty where it is not known)."""

    path: Path
    speaker: str
    text: str


def half_of(name: str) -> Split:
    """The half of the human recordings that a file belongs to."""
    return "train" if hashlib.sha256(name.encode()).digest()[0] < 128 else "test"


def read(path: Path) -> NDArray[np.float32]:
    """Reads G.722, WAV or FLAC as mono float32 [T] at 24 kHz."""
    if path.suffix != ".g722":
        return read_24khz(path)
    import av  # large, and not needed to train

    with av.open(str(path), format="g722") as container:
        blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    pcm = np.concatenate(blocks).astype(np.float32) / np.float32(32768)
    return at_24khz(pcm, 16_000)


def training_recordings() -> list[Recording]:
    """The training half of every speaker's prompts (no texts)."""
    return [
        Recording(path, speaker, "")
        for speaker in _TRAINING_SPEAKERS
        for path in sorted((_SOUNDS / speaker).rglob("*.g722"))
        if half_of(path.name) == "train" and "silence" not in path.parts
    ]


def training_music() -> list[Recording]:
    """Hold music, every piece: the codec hears them all."""
    return [Recording(path, "music", "") for path in sorted(_MUSIC.glob("*.g722"))]


def music_of(split: Split) -> list[Recording]:
    """The pieces of hold music that a split's callers may hear."""
    return [piece for piece in training_music() if half_of(piece.path.name) == split]


def test_recordings() -> list[Recording]:
    """Transcribed speech never trained on: Allison's other half (prompts of 4 words and more) and
    pocketsphinx's read speech."""
    return [*_test_prompts(), *_sphinx_recordings()]


def _is_for_tests(prompt: str) -> bool:
    return half_of(f"{prompt.rpartition('/')[2]}.g722") == "test"


_PROMPTS = {w: name for w, name in (_NUMBERS | _DAYS | _OTHERS).items() if _is_for_tests(name)}
RECORDED_WORDS = frozenset({*_PROMPTS, *_CUTS})  # that `recorded_words` has


@functools.cache
def recorded_words() -> Mapping[str, NDArray[np.float32]]:
    """Numbers and days as Allison says them in the test half, by the word in small letters: float32
    [T] at 24 kHz, without silence around. Raises FileNotFoundError where they are not installed."""
    whole = {word: sounding(_prompt(name))[1] for word, name in _PROMPTS.items()}
    cuts = {
        word: _prompt(name)[round(from_s * SAMPLE_RATE_HZ) : round(to_s * SAMPLE_RATE_HZ)]
        for word, (name, from_s, to_s) in _CUTS.items()
    }
    return whole | cuts


def _prompt(name: str) -> NDArray[np.float32]:
    return read(_SOUNDS / _ENGLISH / f"{name}.g722")


def _test_prompts() -> list[Recording]:
    with gzip.open(_TEXTS, "rt", encoding="utf-8", errors="replace") as lines:
        rows = [line.strip().split(": ", 1) for line in lines if ": " in line[:60]]
    texts = {name: text for name, text in (row for row in rows if len(row) == 2)}
    paths = {name: _SOUNDS / _ENGLISH / f"{name}.g722" for name in texts}
    return [
        Recording(paths[name], "asterisk:allison", text)
        for name, text in sorted(texts.items())
        if half_of(paths[name].name) == "test"
        and len(text.split()) >= _MIN_TEST_WORDS
        and not re.search(r"[\[(<]", text)  # a note on the sound, not what is said
        and paths[name].exists()
    ]


def _sphinx_recordings() -> list[Recording]:
    found = []
    for folder in ("librivox", "cards"):
        for line in (_SPHINX / folder / _transcription(folder)).read_text().splitlines():
            match = re.match(r"(?:<s>\s*)?(.*?)(?:\s*</s>)?\s*\((\S+)\)\s*$", line)
            if match is None:
                continue
            path = _SPHINX / folder / f"{Path(match[2]).name}.wav"
            if path.exists():
                found.append(Recording(path, f"sphinx:{folder}", match[1]))
    return found


def _transcription(folder: str) -> str:
    return "transcription" if folder == "librivox" else "cards.transcription"
