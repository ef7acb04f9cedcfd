"""`say`: text, a voice name and a style to audio with the times of its words."""

import dataclasses
from collections.abc import Callable

from data.voices import engines, store
from data.voices.kokoro import kokoro
from data.voices.spliced import with_recordings
from data.voices.style import NEUTRAL, STYLES, restyle, with_fillers
from data.voices.utterance import Utterance
from data.voices.words import without_silence, words_by_comparison, words_of

_REFERENCE = "flite:slt"  # its words are laid on engines that tell no times


def _spliced(text: str, voice: str) -> Utterance:
    """A voice of flite's, and a person's recordings of single words."""
    return with_recordings(say(text, f"flite:{voice}"))


ENGINES: dict[str, Callable[[str, str], Utterance]] = {
    "espeak": engines.espeak,
    "festival": engines.festival,
    "flite": engines.flite,
    "kokoro": kokoro,
    "piper": engines.piper,
    "spliced": _spliced,
}


# Of what an engine's voices make; docs/data-card.md has where each was read.
_LICENCES = {
    "espeak": "espeak-ng: GPL-3.0-or-later, the program only",
    "festival": "festival: X11-like (CMU, CSTR Edinburgh)",
    "flite": "flite: X11-like (CMU)",
    "kokoro": "Kokoro-82M: Apache-2.0",
    "piper": "piper: see the voice's own card",
    "spliced": "flite: X11-like (CMU); Asterisk's prompts: CC-BY-SA-3.0 and CC-BY-3.0",
}


def licence_of(voice: str) -> str:
    """Under which terms a voice's sound comes; silence has none."""
    return _LICENCES.get(voice.partition(":")[0], "none")


def say(text: str, voice: str, style: str = NEUTRAL) -> Utterance:
    """Speaks `text` as `ENGINE:NAME` (`flite:rms`, `kokoro:af_heart`, `festival:slt_hts` ...).

    Phrases are cached on disk, so nothing is synthesised twice; a style is made out of the neutral
    phrase.
    Raises ValueError on an unknown voice or style or an empty text, and FileNotFoundError where an
    engine is not installed.
    """
    engine, _, name = voice.partition(":")
    if engine not in ENGINES or not name:
        raise ValueError(f"voice {voice!r}: must be ENGINE:NAME, ENGINE in {sorted(ENGINES)}")
    if style not in STYLES:
        raise ValueError(f"style {style!r}: must be one of {sorted(STYLES)}")
    if not text.split():
        raise ValueError(f"text {text!r}: must hold a word")
    path = store.phrase_path(text, voice, style)
    if not store.is_made(path):
        store.save(_speak(text, voice, style), path)
    return store.load(path)  # also right after it was made: the file rounds


def _speak(text: str, voice: str, style: str) -> Utterance:
    if style != NEUTRAL:
        seed = f"{voice} {style} {text}"
        return restyle(say(with_fillers(text, STYLES[style], seed), voice), STYLES[style], seed)
    engine, _, name = voice.partition(":")
    utterance = dataclasses.replace(ENGINES[engine](text, name), voice=voice)
    words = utterance.words or words_of(text, utterance.phones)
    if not words:
        words = words_by_comparison(utterance.audio, say(text, _REFERENCE))
    return dataclasses.replace(utterance, words=without_silence(words, utterance.audio))
