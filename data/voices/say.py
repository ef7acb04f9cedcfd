"""`say`: text and a voice name to audio."""

import dataclasses
from collections.abc import Callable

from data.voices import engines, store
from data.voices.kokoro import kokoro
from data.voices.utterance import Utterance

ENGINES: dict[str, Callable[[str, str], Utterance]] = {
    "espeak": engines.espeak,
    "festival": engines.festival,
    "flite": engines.flite,
    "kokoro": kokoro,
}


def say(text: str, voice: str) -> Utterance:
    """Speaks `text` as `ENGINE:NAME` (`flite:rms`, `kokoro:af_heart`, `festival:slt_hts` ...).

    Phrases are cached on disk, so nothing is synthesised twice.
    Raises ValueError on an unknown voice and FileNotFoundError where an engine is not installed.
    """
    engine, _, name = voice.partition(":")
    if engine not in ENGINES or not name:
        raise ValueError(f"voice {voice!r}: must be ENGINE:NAME, ENGINE in {sorted(ENGINES)}")
    cached = store.load(text, voice)
    if cached is not None:
        return cached
    utterance = dataclasses.replace(ENGINES[engine](text, name), voice=voice)
    store.save(utterance)
    return utterance
