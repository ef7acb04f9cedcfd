"""When the words of a known transcript are said: pocketsphinx, made to hear just them.

English only. Its dictionary knows 130,000 words; flite tells it how the others are spoken.
"""

import functools
import itertools
import math
import re
import shutil
import string
import sys
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pocketsphinx
import soxr
from numpy.typing import NDArray

from data.ingest.dropped import AlignmentError
from data.voices.utterance import SAMPLE_RATE_HZ, Word
from data.voices.words import pronunciation, without_silence

_RATE_HZ = 16_000
_STEP_S = 0.01
_SHORTEST_S = 0.05
# Natural log likelihood of the words' sounds per 10 ms, against the best sound there: of all words,
# and of any that take a second together. Of people's recordings with their right transcripts (131)
# the worst have -2.1 and -3.8 (-2.6 and -3.9 over 8 kHz). The decoder alone takes half of all wrong
# transcripts (-4.8 and -5.3 in the median); these limits leave one in 50. Where it lost its place
# amid a long recording, only the limit for a second tells.
_WORST_MATCH = -3.0
_WORST_MATCH_OF_A_SECOND = -4.5
_NOTE = re.compile(r"\[[^\]]*\]|<[^>]*>")


class _Heard(NamedTuple):
    start_step: int
    end_step: int
    log_likelihood: float


def without_notes(text: str) -> str:
    """A transcript without what stands in [] or <>: notes on sounds, time stamps."""
    return " ".join(_NOTE.sub(" ", text).split())


def align(
    text: str, audio: NDArray[np.float32], start_s: float = 0.0, end_s: float | None = None
) -> tuple[Word, ...]:
    """The words of `text`, as it writes them, and when audio float32 [T] at 24 kHz says them.

    All of it must be said between `start_s` and `end_s` (the audio's end). Times count from the
    audio's beginning. Notes in [] and <> are left out; a lone dash gets no time of its own.
    Raises AlignmentError, a ValueError, where the words cannot be heard there: no times are made
    up. A transcript that lacks some of what is said is not noticed. Raises ValueError where the
    text is empty, and RuntimeError where flite is not installed.
    """
    if shutil.which("flite") is None:
        raise RuntimeError("flite is not installed: run `make setup`")
    end_s = len(audio) / SAMPLE_RATE_HZ if end_s is None else end_s
    written = without_notes(text).split()
    symbols = [_symbol(word) for word in written]  # empty: not spoken
    if not any(symbols):
        raise ValueError(f"the transcript is {text!r}: must hold a word")
    piece = audio[max(0, round(start_s * SAMPLE_RATE_HZ)) : round(end_s * SAMPLE_RATE_HZ)]
    if len(piece) < _SHORTEST_S * SAMPLE_RATE_HZ or not np.isfinite(piece).all():
        raise AlignmentError(f"no sound between {start_s:.2f} and {end_s:.2f} s")
    heard = _hear([symbol for symbol in symbols if symbol], piece)
    if not _is_said(heard):
        raise AlignmentError(f"{text[:60]!r} is not heard between {start_s:.2f} and {end_s:.2f} s")
    words: list[Word] = []
    spoken = iter(heard)
    for word, symbol in zip(written, symbols, strict=True):
        if symbol:
            first, end, _ = next(spoken)
            words.append(Word(word, start_s + first * _STEP_S, start_s + end * _STEP_S))
        else:
            at_s = words[-1].end_s if words else start_s + heard[0].start_step * _STEP_S
            words.append(Word(word, at_s, at_s))
    return without_silence(words, audio)


@functools.cache
def _decoder() -> pocketsphinx.Decoder:
    return pocketsphinx.Decoder(samprate=_RATE_HZ, lm=None, loglevel="FATAL")


def _hear(symbols: Sequence[str], audio: NDArray[np.float32]) -> list[_Heard]:
    """When each symbol is said in audio [T] at 24 kHz; empty where the decoder gives up."""
    decoder = _decoder()
    pcm = (soxr.resample(audio, SAMPLE_RATE_HZ, _RATE_HZ).clip(-1, 1) * 32767).astype(np.int16)
    decoder.reinit_feat()  # or the utterance before would move this one's words
    decoder.set_align_text(" ".join(symbols))
    decoder.start_utt()
    try:
        decoder.process_raw(pcm.tobytes(), full_utt=True)
    finally:
        decoder.end_utt()  # or it would take no other
    if decoder.hyp() is None:
        return []
    heard = [
        _Heard(
            segment.start_frame,
            segment.end_frame + 1,
            math.log(max(segment.ascore, sys.float_info.min)),
        )
        for segment in decoder.seg()
        if segment.word[0] not in "<["  # silence and noise
    ]
    return heard if len(heard) == len(symbols) else []


def _is_said(heard: Sequence[_Heard]) -> bool:
    """Whether the sounds fit the words, altogether and in each second of words."""
    if not heard:
        return False
    ends = np.cumsum([one.end_step - one.start_step for one in heard])  # steps of words so far
    fits = np.cumsum([one.log_likelihood for one in heard])
    if fits[-1] / ends[-1] < _WORST_MATCH:
        return False
    starts, before = np.append(0, ends[:-1]), np.append(0.0, fits[:-1])
    last = np.searchsorted(ends, starts + round(1 / _STEP_S))  # the word that fills the second
    first = np.flatnonzero(last < len(ends))
    last = last[first]
    worst = (fits[last] - before[first]) / (ends[last] - starts[first])
    return bool((worst >= _WORST_MATCH_OF_A_SECOND).all())


def _symbol(word: str) -> str:
    """What the decoder's dictionary calls a written word, put there if need be.

    Empty for what is not spoken, such as a dash.
    """
    plain = unicodedata.normalize("NFKD", word.replace("’", "'"))
    bare = plain.encode("ascii", "ignore").decode().lower().strip(string.punctuation)
    decoder = _decoder()
    if bare and decoder.lookup_word(bare):
        return bare
    phones = pronunciation(plain.encode("ascii", "ignore").decode())
    if not phones:
        if any(character.isalnum() for character in word):
            raise AlignmentError(f"no English pronunciation for {word!r}")
        return ""
    digits = re.sub(r"\D", "", bare)
    symbol = "-".join((*phones, *digits))  # capitals and digits: no other word of the dictionary
    if decoder.lookup_word(symbol) is None:
        decoder.add_word(symbol, " ".join(phones))
        for number, reading in enumerate(_digit_by_digit(digits), 2):
            decoder.add_word(f"{symbol}({number})", " ".join(reading))
    return symbol


def _digit_by_digit(digits: str) -> list[list[str]]:
    """How a number is spelled out, 0 as "zero" and as "oh"; nothing for one digit or none."""
    if len(digits) < 2:
        return []
    spelled = dict.fromkeys([digits, digits.replace("0", "o")])
    return [list(itertools.chain.from_iterable(map(pronunciation, one))) for one in spelled]
