"""How an agent's lines sound: words that recognisers hear in them, and DNSMOS."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.voices.say import say
from model.codec import Codec
from train import intervals
from train.intervals import Metric
from train.parallel import run_all
from train.scoring import recognizers
from train.scoring.codec_measures import reconstruct_all
from train.scoring.dialogue_tally import Spoken
from train.scoring.recognizers import WordErrors, word_errors
from train.scoring.speech_metrics import at_16khz, dnsmos


def voice_figures(
    lines: Sequence[Spoken],
    teacher: str,
    codec: Codec[Any] | None,
    usable: Sequence[str],
    processes: int,
) -> dict[str, Metric]:
    """`agent_wer` is that of the recogniser that hears best. With a codec, also what DNSMOS the
    same lines have when the teacher voice says them through it, and what the agent's have less."""
    jobs: dict[tuple[str, int], Callable[[], Any]] = {}
    for number, line in enumerate(lines):
        jobs |= {(name, number): functools.partial(_heard, name, line) for name in usable}
        if len(line.audio):
            jobs["agent", number] = functools.partial(_mos, line.audio)
    sounding = [number for number, line in enumerate(lines) if len(line.audio)]
    if codec:
        taught = [say(lines[number].text, teacher).audio for number in sounding]
        for number, audio in zip(sounding, reconstruct_all(codec, taught), strict=True):
            jobs["teacher", number] = functools.partial(_mos, audio)
    found = run_all(jobs, processes, "the agent's voice")
    metrics: dict[str, Metric] = {}
    for name in usable:
        errors: list[WordErrors] = [found[name, number] for number in range(len(lines))]
        tops, words = zip(*errors, strict=True)
        metrics[f"agent_wer_{name}"] = intervals.ratio(tops, words, "%", 100)
    if usable:
        metrics["agent_wer"] = min(metrics.values(), key=lambda metric: metric.value)
    if sounding:
        own = [found["agent", number] for number in sounding]
        metrics["dnsmos_agent"] = intervals.mean(own, "MOS")
        if codec:
            best = [found["teacher", number] for number in sounding]
            less = [ceiling - mos for ceiling, mos in zip(best, own, strict=True)]
            metrics["dnsmos_ceiling"] = intervals.mean(best, "MOS")
            metrics["dnsmos_drop"] = intervals.mean(less, "MOS")
    return metrics


def _heard(name: str, line: Spoken) -> WordErrors:
    audio = line.audio
    heard = recognizers.transcribe(name, at_16khz(audio)) if len(audio) else ""
    return word_errors(line.text, heard)


def _mos(audio: NDArray[np.float32]) -> float:
    return dnsmos(at_16khz(audio))
