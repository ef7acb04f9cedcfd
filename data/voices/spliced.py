"""A synthesiser's phrase in which a person says the numbers and days: recordings, put in its place.

The recordings are single words of another voice, so one hears where it changes; what they test is
whether values are understood that no synthesiser has said.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from data import recordings
from data.voices.utterance import SAMPLE_RATE_HZ, Utterance, Word

_GAP = SAMPLE_RATE_HZ * 6 // 100  # 60 ms between two recorded words, at least
_FADE = SAMPLE_RATE_HZ // 200  # 5 ms, where speech is cut
_LOUDEST = 0.98
Audio = NDArray[np.float32]


def is_recorded(word: str) -> bool:
    """Whether there is a recording of a written word."""
    return _bare(word) in recordings.RECORDED_WORDS


def _bare(word: str) -> str:
    return word.strip(".,;:!?").lower()


def with_recordings(utterance: Utterance) -> Utterance:
    """The phrase with each word that is recorded said by the recording, as loud on the whole as
    what it replaces. Raises FileNotFoundError where the recordings are not installed."""
    recorded = recordings.recorded_words()
    hers = {n: recorded.get(_bare(word.text)) for n, word in enumerate(utterance.words)}
    hers = {n: audio for n, audio in hers.items() if audio is not None}
    if not hers:
        return utterance
    spans = [_span(word) for word in utterance.words]
    replaced = np.concatenate([utterance.audio[slice(*spans[n])] for n in hers])
    whole = np.concatenate([*hers.values()])
    gain = min(_rms(replaced) / _rms(whole), _LOUDEST / float(np.abs(whole).max()))
    parts: list[Audio] = []
    words: list[Word] = []
    at = length = 0  # samples of the phrase and of what becomes of it, so far
    for number, word in enumerate(utterance.words):
        first, end = spans[number]
        if number not in hers:
            later_s = (length - at) / SAMPLE_RATE_HZ
            words.append(Word(word.text, word.start_s + later_s, word.end_s + later_s))
            continue
        before = _faded(utterance.audio[at:first])
        if number - 1 in hers:
            before = np.pad(before, (0, max(_GAP - len(before), 0)))
        said = _faded(hers[number]) * np.float32(gain)
        start, at = length + len(before), end
        length = start + len(said)
        words.append(Word(word.text, start / SAMPLE_RATE_HZ, length / SAMPLE_RATE_HZ))
        parts += [before, said]
    audio = np.concatenate([*parts, _faded(utterance.audio[at:])])
    return dataclasses.replace(utterance, audio=audio, phones=(), words=tuple(words))


def _span(word: Word) -> tuple[int, int]:
    return round(word.start_s * SAMPLE_RATE_HZ), round(word.end_s * SAMPLE_RATE_HZ)


def _rms(audio: Audio) -> float:
    return float(np.sqrt(np.square(audio).mean()))


def _faded(audio: Audio) -> Audio:
    """Without a click at either end."""
    fade = np.linspace(0, 1, min(_FADE, len(audio) // 2), dtype=np.float32)
    faded = audio.copy()
    faded[: len(fade)] *= fade
    faded[len(audio) - len(fade) :] *= fade[::-1]
    return faded
