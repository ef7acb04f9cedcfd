"""Real human speech and music from Debian's packages, read as 24 kHz audio.

Asterisk's prompts (asterisk-core-sounds-*-g722, one speaker a language, CC-BY-SA-3.0 and CC-BY-3.0)
are split in two halves by the hash of the file name; pocketsphinx-testdata (about two speakers,
BSD) is for tests only; hold music (asterisk-moh-opsound-g722, CC-BY-SA-3.0) is for training.
`make setup` installs them.
"""

import gzip
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.sentences import Split
from data.voices.engines import read_24khz
from data.voices.utterance import at_24khz

_SOUNDS = Path("/usr/share/asterisk/sounds")
_ENGLISH = "en_US_f_Allison"
_TRAINING_SPEAKERS = (_ENGLISH, "es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo")
_TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
_SPHINX = Path("/usr/share/pocketsphinx/test/data")
_MUSIC = Path("/usr/share/asterisk/moh")
_MIN_TEST_WORDS = 4


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
