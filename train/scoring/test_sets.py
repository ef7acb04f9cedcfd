"""What a codec is tested on: the agent's voices, voices it never heard, and people."""

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data import recordings
from data.corpus import CorpusConfig, plan
from data.voices import say
from data.voices.store import is_made, phrase_path
from data.voices.utterance import SAMPLE_RATE_HZ, Phone
from train.parallel import run_all

Audio = NDArray[np.float32]
_GAP_S = 0.3
_SEED = 12


@dataclass(frozen=True)
class Item:
    """One sentence: float32 [T] audio at 24 kHz; `phones` is empty where nobody knows them."""

    name: str
    voice: str
    text: str
    audio: Audio
    phones: tuple[Phone, ...] = ()

    def __post_init__(self) -> None:
        if self.audio.ndim != 1 or len(self.audio) == 0 or self.audio.dtype != np.float32:
            raise ValueError(
                f"item {self.name}: audio is {self.audio.dtype} {list(self.audio.shape)}, "
                "must be float32 [samples > 0]"
            )

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / SAMPLE_RATE_HZ


def _spoken(text: str, voice: str) -> Item | str:
    try:
        utterance = say(text, voice)
    except FileNotFoundError as error:
        return str(error)
    return Item(f"{voice} {text[:40]}", voice, text, utterance.audio, utterance.phones)


def spoken_items(
    config: CorpusConfig, voices: Sequence[str], per_voice: int, processes: int
) -> tuple[list[Item], list[str]]:
    """Test lines of `voices`, spoken or from the cache; and a line for each voice not there."""
    tested = [line for line in plan(config) if line.split == "test"]
    jobs = {}
    for voice in voices:
        for line in itertools.islice((line for line in tested if line.voice == voice), per_voice):
            jobs[voice, line.text] = functools.partial(_spoken, line.text, voice)
    cached = all(is_made(phrase_path(text, voice)) for voice, text in jobs)
    done = run_all(jobs, 1 if cached else processes, "speaking")
    items = [done[key] for key in jobs if isinstance(done[key], Item)]
    problems = {key[0]: done[key] for key in jobs if isinstance(done[key], str)}
    silent = [f"voice {voice} is missing: {why}" for voice, why in problems.items()]
    return [item for item in items if item.voice not in problems], silent


def human_items(seconds: float) -> tuple[list[Item], list[str]]:
    """About `seconds` of the test recordings, always the same, the rarer speakers first."""
    try:
        found = recordings.test_recordings()
    except FileNotFoundError as error:
        return [], [f"set human is missing: {error}"]
    counts = {r.speaker: sum(r.speaker == other.speaker for other in found) for r in found}
    random.Random(_SEED).shuffle(found)
    found.sort(key=lambda recording: counts[recording.speaker])  # stable: shuffled within a speaker
    items: list[Item] = []
    for recording in found:
        if sum(item.seconds for item in items) < seconds:
            items.append(human_item(recording))
    return items, []


def human_item(recording: recordings.Recording) -> Item:
    """A recording as an item."""
    audio = recordings.read(recording.path)
    return Item(recording.path.name, recording.speaker, recording.text, audio)


def clips(items: Sequence[Item], max_seconds: float) -> list[list[int]]:
    """Groups neighbouring items of one voice into clips of at most `max_seconds`: their numbers.

    An item that is longer is a clip of its own.
    """
    groups: list[list[int]] = []
    length_s = 0.0
    for number, item in enumerate(items):
        joined_s = length_s + _GAP_S + item.seconds
        if groups and items[groups[-1][0]].voice == item.voice and joined_s <= max_seconds:
            groups[-1].append(number)
            length_s = joined_s
        else:
            groups.append([number])
            length_s = item.seconds
    return groups


def join(audios: Sequence[Audio]) -> Audio:
    """One clip of several sentences, 0.3 s of silence between them; 24 kHz."""
    gap = np.zeros(int(_GAP_S * SAMPLE_RATE_HZ), np.float32)
    return np.concatenate([part for audio in audios for part in (gap, audio)][1:])
