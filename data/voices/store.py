"""The phrase cache: one FLAC and one JSON a phrase, named by the hash of text and voice."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import soundfile

from data.voices.utterance import SAMPLE_RATE_HZ, Phone, Utterance


def cache_dir() -> Path:
    """`$DUOLOGUE_CACHE`, or `~/.cache/duologue`."""
    return Path(os.environ.get("DUOLOGUE_CACHE", Path.home() / ".cache" / "duologue"))


def phrase_path(text: str, voice: str) -> Path:
    """Where the phrase's audio is or will be."""
    digest = hashlib.sha256(f"{voice}\n{text}".encode()).hexdigest()[:20]
    return cache_dir() / "phrases" / voice.replace(":", "-") / f"{digest}.flac"


def load(text: str, voice: str) -> Utterance | None:
    """The cached phrase, or None."""
    path = phrase_path(text, voice)
    if not path.with_suffix(".json").exists():
        return None
    phones = json.loads(path.with_suffix(".json").read_text())["phones"]
    audio, _ = soundfile.read(path, dtype="float32")
    audio = np.asarray(audio, np.float32)
    return Utterance(text, voice, audio, tuple(Phone(*phone) for phone in phones))


def save(utterance: Utterance) -> None:
    """Writes the phrase; the JSON goes last, so a phrase cut off by a crash is made again."""
    path = phrase_path(utterance.text, utterance.voice)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, utterance.audio.clip(-1, 1), SAMPLE_RATE_HZ)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(
        json.dumps({"text": utterance.text, "voice": utterance.voice, "phones": utterance.phones})
    )
    partial.rename(path.with_suffix(".json"))
