"""The phrase cache: one FLAC and one JSON a phrase, named by the hash of text, voice and style."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import soundfile
from filelock import FileLock

from data.voices.utterance import SAMPLE_RATE_HZ, Phone, Utterance, Word


def cache_dir() -> Path:
    """`$DUOLOGUE_CACHE`, or `~/.cache/duologue`."""
    return Path(os.environ.get("DUOLOGUE_CACHE", Path.home() / ".cache" / "duologue"))


def phrase_path(text: str, voice: str, style: str = "neutral") -> Path:
    """Where the phrase's audio is or will be."""
    digest = hashlib.sha256(f"{voice}\n{style}\n{text}".encode()).hexdigest()[:20]
    return cache_dir() / "phrases" / voice.replace(":", "-") / f"{digest}.flac"


def is_made(path: Path) -> bool:
    """Whether the phrase of a `phrase_path` is cached."""
    return path.with_suffix(".json").exists()


def load(path: Path) -> Utterance:
    """The phrase that is cached at a `phrase_path`."""
    saved = json.loads(path.with_suffix(".json").read_text())
    audio, _ = soundfile.read(path, dtype="float32")
    return Utterance(
        saved["text"],
        saved["voice"],
        np.asarray(audio, np.float32),
        tuple(Phone(*phone) for phone in saved["phones"]),
        tuple(Word(*word) for word in saved["words"]),
    )


def save(utterance: Utterance, path: Path) -> None:
    """Writes the phrase, unless another process has just done so: what was read once never changes.

    The JSON goes last, so a phrase cut off by a crash is made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / "lock"):  # a voice's; let go of when its process dies
        if is_made(path):
            return
        soundfile.write(path, utterance.audio.clip(-1, 1), SAMPLE_RATE_HZ)
        partial = path.with_suffix(".partial")
        fields = ("text", "voice", "phones", "words")
        partial.write_text(json.dumps({name: getattr(utterance, name) for name in fields}))
        partial.rename(path.with_suffix(".json"))
