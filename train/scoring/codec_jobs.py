"""The codec suite's work as jobs: test sets through every system, scored and transcribed."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.augment import telephone
from data.voices.utterance import Phone
from train.parallel import run_all
from train.scoring import recognizers, speech_metrics
from train.scoring.baseline_codecs import Baseline, Coded
from train.scoring.codec_measures import Codes
from train.scoring.phone_probe import Labelled, phone_labels, probe
from train.scoring.test_sets import Item, clips, join

Audio = NDArray[np.float32]
ORIGINAL, OURS = "original", "ours"
SECOND_RECOGNIZER_HEARS = (ORIGINAL, OURS, "codec2_2400")


@dataclass(frozen=True)
class Heard:
    """A test set and what every system made of it.

    `audio` is, by system, float32 [T] at 24 kHz of each item; `original` is one of the systems.
    `subset` numbers the items that the slow measures take; empty: no slow measures.
    """

    name: str
    items: tuple[Item, ...]
    audio: dict[str, tuple[Audio, ...]]
    subset: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.items or ORIGINAL not in self.audio:
            raise ValueError(f"set {self.name}: needs items and the original among its systems")
        for system, audios in self.audio.items():
            if [len(a) for a in audios] != [len(item.audio) for item in self.items]:
                raise ValueError(f"set {self.name}: {system} does not lie on the original")

    @property
    def systems(self) -> list[str]:
        """Everything but the original."""
        return [system for system in self.audio if system != ORIGINAL]

    def recognized_by(self, names: Sequence[str]) -> Sequence[str]:
        """The recognisers that hear this set."""
        return names if self.subset else names[:1]

    def clips(self, second: bool, max_seconds: float) -> list[list[int]]:
        """Item numbers of each clip of all items or, for the second recogniser and DNSMOS, of the
        subset."""
        numbers = self.subset if second else range(len(self.items))
        groups = clips([self.items[number] for number in numbers], max_seconds)
        return [[numbers[place] for place in group] for group in groups]

    def hearing(self, second: bool) -> list[str]:
        """The systems, original first, that the first or the second recogniser hears."""
        return [
            system
            for system in (ORIGINAL, *self.systems)
            if not second or system in SECOND_RECOGNIZER_HEARS
        ]

    def clip_audio(self, system: str, clip: Sequence[int]) -> Audio:
        """A clip as one system gives it, float32 [T] at 16 kHz."""
        return speech_metrics.at_16khz(join([self.audio[system][number] for number in clip]))

    def text(self, clip: Sequence[int]) -> str:
        """What is said in a clip."""
        return " ".join(self.items[number].text for number in clip)


def subset(items: Sequence[Item], per_voice: int) -> tuple[int, ...]:
    """Numbers of the first `per_voice` items of each voice."""
    seen: dict[str, int] = {}
    chosen = []
    for number, item in enumerate(items):
        seen[item.voice] = seen.get(item.voice, 0) + 1
        if seen[item.voice] <= per_voice:
            chosen.append(number)
    return tuple(chosen)


def over_telephone(items: Sequence[Item]) -> tuple[Item, ...]:
    """The same items through an 8 kHz mu-law line."""
    return tuple(dataclasses.replace(item, audio=telephone(item.audio)) for item in items)


def through_baselines(
    sets: Mapping[str, Sequence[Item]], baselines: Mapping[str, Baseline], processes: int
) -> dict[tuple[str, str], tuple[Coded, ...]]:
    """What each baseline makes of each set, by (set, system)."""
    jobs = {
        (name, system, number): functools.partial(baseline, item.audio)
        for name, items in sets.items()
        for system, baseline in baselines.items()
        for number, item in enumerate(items)
    }
    done = run_all(jobs, processes, "baselines") if jobs else {}
    return {
        (name, system): tuple(done[name, system, number] for number in range(len(items)))
        for name, items in sets.items()
        for system in baselines
    }


def scoring(heard: Heard) -> dict[Hashable, Callable]:
    """Jobs keyed ("score", set, system, item); they return measures by name."""
    return {
        ("score", heard.name, system, number): functools.partial(
            speech_metrics.score, item.audio, heard.audio[system][number]
        )
        for system in heard.systems
        for number, item in enumerate(heard.items)
    }


def listening(heard: Heard, names: Sequence[str], clip_seconds: float) -> dict[Hashable, Callable]:
    """Jobs on clips, keyed ("text", set, system, recogniser, clip) and ("dnsmos", set, system,
    clip); they return what was heard and the score."""
    jobs: dict[Hashable, Callable] = {}
    for place, name in enumerate(heard.recognized_by(names)):
        for system in heard.hearing(place > 0):
            for number, clip in enumerate(heard.clips(place > 0, clip_seconds)):
                jobs["text", heard.name, system, name, number] = functools.partial(
                    recognizers.transcribe, name, heard.clip_audio(system, clip)
                )
    for system in heard.audio:
        for number, clip in enumerate(heard.clips(True, clip_seconds)):
            jobs["dnsmos", heard.name, system, number] = functools.partial(
                speech_metrics.dnsmos, heard.clip_audio(system, clip)
            )
    return jobs


def probing(
    train: Sequence[tuple[Codes, Sequence[Phone]]],
    test: Sequence[tuple[Codes, Sequence[Phone]]],
    codebook_size: int,
) -> dict[Hashable, Callable]:
    """Jobs keyed ("probe", codebook), from utterances as (codes [frames, K], phones)."""

    def side(utterances: Sequence[tuple[Codes, Sequence[Phone]]], book: int) -> Labelled:
        return Labelled(
            tuple(codes[:, book] for codes, _ in utterances),
            tuple(phone_labels(phones, len(codes)) for codes, phones in utterances),
        )

    if not train or not test:
        return {}
    return {
        ("probe", book): functools.partial(
            probe, side(train, book), side(test, book), codebook_size
        )
        for book in range(train[0][0].shape[1])
    }
