"""Which word is spoken when: timed phones, shared out among the words of the text.

Every engine tells its phones in time, none its words in the same way. So each word's own
pronunciation is laid along the phones that were spoken, with as little disagreement as possible
(Needleman and Wunsch's alignment); engines disagree on vowels and linking, hardly ever on words.
"""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.voices.engines import run_program
from data.voices.phones import SILENCE, from_radio
from data.voices.utterance import SAMPLE_RATE_HZ, Phone, Utterance, Word

_VOWELS = frozenset("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
# Voiced and voiceless, and what English makes of a consonant between two vowels.
_ALIKE = frozenset(
    frozenset(pair.split())
    for pair in ("B P", "D T", "G K", "V F", "DH TH", "Z S", "ZH SH", "JH CH", "NG N", "DH D")
)
_SKIP = 0.7
_STEP_S = 0.01
_BLOCK = SAMPLE_RATE_HZ // 100  # samples
_SILENT_DB = -40.0  # against the loudest 10 ms
_CLOSURE_S = 0.12
Audio = NDArray[np.float32]


def words_of(text: str, phones: Sequence[Phone]) -> tuple[Word, ...]:
    """The words of `text`, as it writes them, and when `phones` says them.

    A word of which no phone was spoken (linked into its neighbour) gets no time of its own: it
    starts and ends where the word before it ends. Empty where there are no phones.
    """
    spoken = [phone for phone in phones if phone.symbol != SILENCE]
    written = text.split()
    if not spoken:
        return ()
    owners = [i for i, word in enumerate(written) for _ in pronunciation(word)]
    wanted = list(itertools.chain.from_iterable(pronunciation(word) for word in written))
    places = _align(wanted, [phone.symbol for phone in spoken])
    times: dict[int, list[Phone]] = {}
    for phone, place in zip(spoken, places, strict=True):
        times.setdefault(owners[place], []).append(phone)
    words: list[Word] = []
    for index, word in enumerate(written):
        end_s = words[-1].end_s if words else spoken[0].start_s
        said = times.get(index)
        words.append(
            Word(word, said[0].start_s, said[-1].end_s) if said else Word(word, end_s, end_s)
        )
    return tuple(words)


@functools.cache
def pronunciation(word: str) -> tuple[str, ...]:
    """A written word (or number) -> its phones, by flite's lexicon and letter-to-sound rules.

    Empty for what is not spoken, such as a dash.
    """
    spelled = word.strip(".,;:!?\"'()")
    if not spelled:
        return ()
    printed = run_program(["flite", "-voice", "kal", "-t", spelled, "-o", "none", "-ps"])
    symbols = (from_radio(symbol) for symbol in printed.split())
    return tuple(symbol for symbol in symbols if symbol != SILENCE)


def words_by_comparison(audio: Audio, reference: Utterance) -> tuple[Word, ...]:
    """The reference's words, laid on other audio float32 [T] at 24 kHz of the same text.

    Both are compared by their mel cepstra and bent onto each other (dynamic time warping), from
    where their sound begins to where it ends: one's silence would be laid on the other's speech.
    """
    import librosa  # heavy, and only needed to speak

    begins_s, sound = sounding(audio)
    known_begins_s, known_sound = sounding(reference.audio)
    heard, known = _cepstra(sound), _cepstra(known_sound)  # [cepstra, steps]
    _, path = librosa.sequence.dtw(X=known, Y=heard)
    # The first step of the audio at which each step of the reference is heard.
    steps = np.full(known.shape[1] + 1, heard.shape[1])
    np.minimum.at(steps, path[:, 0], path[:, 1])

    def heard_s(time_s: float) -> float:
        step = round((time_s - known_begins_s) / _STEP_S)
        return begins_s + float(steps[min(max(step, 0), len(steps) - 1)] * _STEP_S)

    return tuple(
        Word(word.text, heard_s(word.start_s), heard_s(word.end_s)) for word in reference.words
    )


def without_silence(words: Sequence[Word], audio: Audio) -> tuple[Word, ...]:
    """Words whose edges lie in silence, moved to where it is heard that they begin and end.

    Shorter silences are left: a plosive's closure is a part of its word.
    """
    is_heard = _is_heard(audio)
    moved = []
    for word in words:
        first, end = (round(time * SAMPLE_RATE_HZ / _BLOCK) for time in (word.start_s, word.end_s))
        heard = np.flatnonzero(is_heard[first:end])
        if len(heard):
            start_s, end_s = (
                (first + i) * _BLOCK / SAMPLE_RATE_HZ for i in (heard[0], heard[-1] + 1)
            )
            if start_s - word.start_s > _CLOSURE_S:
                word = word._replace(start_s=start_s)
            if word.end_s - end_s > _CLOSURE_S:
                word = word._replace(end_s=end_s)
        moved.append(word)
    return tuple(moved)


def sounding(audio: Audio) -> tuple[float, Audio]:
    """When sound begins, in seconds, and the audio from there to where it ends."""
    heard = np.flatnonzero(_is_heard(audio))
    if not len(heard):
        return 0.0, audio
    first, end = heard[0], heard[-1] + 1
    return float(first * _STEP_S), audio[first * _BLOCK : end * _BLOCK]


def _is_heard(audio: Audio) -> NDArray[np.bool_]:
    """Whether each 10 ms are more than silence [blocks]."""
    blocks = audio[: len(audio) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    power = np.square(blocks).mean(1)  # [blocks]
    return power > power.max(initial=0.0) * 10 ** (_SILENT_DB / 10)


def _cepstra(audio: Audio) -> NDArray[np.float64]:
    """Mel cepstra every 10 ms, without the first, in units of their spread [12, steps]."""
    import librosa

    mels = librosa.feature.mfcc(
        y=audio, sr=SAMPLE_RATE_HZ, n_mfcc=13, hop_length=round(_STEP_S * SAMPLE_RATE_HZ)
    )[1:]
    return (mels - mels.mean(1, keepdims=True)) / (mels.std(1, keepdims=True) + 1e-6)


def _align(wanted: Sequence[str], spoken: Sequence[str]) -> list[int]:
    """For each spoken phone the index of the wanted phone that it is, or belongs to."""
    costs = [[_SKIP * column for column in range(len(wanted) + 1)]]
    for row, symbol in enumerate(spoken):
        above, line = costs[-1], [_SKIP * (row + 1)]
        for column, other in enumerate(wanted):
            line.append(
                min(
                    above[column] + _difference(symbol, other),
                    above[column + 1] + _SKIP,
                    line[-1] + _SKIP,
                )
            )
        costs.append(line)
    places = [0] * len(spoken)
    row, column = len(spoken), len(wanted)
    while row:
        here = costs[row][column]
        if column and here == costs[row - 1][column - 1] + _difference(
            spoken[row - 1], wanted[column - 1]
        ):
            row, column = row - 1, column - 1
            places[row] = column
        elif here == costs[row - 1][column] + _SKIP:
            row -= 1
            places[row] = max(0, column - 1)  # one too many: with the phone before it
        else:
            column -= 1
    return places


def _difference(one: str, other: str) -> float:
    if one == other:
        return 0.0
    if frozenset((one, other)) in _ALIKE:
        return 0.3
    vowels = (one in _VOWELS) + (other in _VOWELS)
    return {2: 0.5, 0: 0.9, 1: 1.3}[vowels]
