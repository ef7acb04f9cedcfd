"""The codec suite's results as named figures and tables. docs/evaluation.md defines each name."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from data.voices.utterance import SAMPLE_RATE_HZ
from train import intervals
from train.intervals import Metric
from train.report import Table
from train.scoring.baseline_codecs import Coded
from train.scoring.codec_jobs import ORIGINAL, OURS, Heard
from train.scoring.codec_measures import CodeUse
from train.scoring.recognizers import WordErrors, word_errors

_UNITS = {
    "pesq_wb": "MOS",
    "estoi": "1",
    "log_mel_distance": "ln",
    "speaker_similarity": "cosine",
}
_COLUMNS = {
    "bit/s": "bitrate_bps{system}",
    "WER %": "wer_{set}_{who}",
    "WER delta, points": "wer_delta_{set}{system}",
    "same, 2nd recogniser": "wer_delta_{set}_{second}{system}",
    "PESQ-wb": "pesq_wb_{set}{system}",
    "ESTOI": "estoi_{set}{system}",
    "DNSMOS": "dnsmos_{set}_{who}",
    "DNSMOS drop": "dnsmos_drop_{set}{system}",
    "speaker similarity": "speaker_similarity_{set}{system}",
    "log-mel distance": "log_mel_distance_{set}{system}",
}


def suffix(system: str) -> str:
    """Ours carries no name: `estoi_agent`, but `estoi_agent_opus_6`."""
    return "" if system == OURS else f"_{system}"


def score_figures(heard: Heard, results: Mapping[Hashable, Any]) -> dict[str, Metric]:
    """Means over the items of one set."""
    figures: dict[str, Metric] = {}
    for system in heard.systems:
        rows = [results["score", heard.name, system, i] for i in range(len(heard.items))]
        for measure, unit in _UNITS.items():
            name = f"{measure}_{heard.name}{suffix(system)}"
            figures[name] = intervals.mean([row[measure] for row in rows], unit)
    return figures


def dnsmos_figures(
    heard: Heard, clip_seconds: float, results: Mapping[Hashable, Any]
) -> dict[str, Metric]:
    """Means over the subset's clips, and drops against the original; maybe none."""
    figures: dict[str, Metric] = {}
    numbers = range(len(heard.clips(True, clip_seconds)))
    if not numbers:
        return figures
    scores = {
        system: np.array([results["dnsmos", heard.name, system, number] for number in numbers])
        for system in heard.audio
    }
    for system, values in scores.items():
        figures[f"dnsmos_{heard.name}_{system}"] = intervals.mean(values, "MOS")
        if system != ORIGINAL:
            drop = intervals.mean(scores[ORIGINAL] - values, "MOS")
            figures[f"dnsmos_drop_{heard.name}{suffix(system)}"] = drop
    return figures


def word_error_figures(
    heard: Heard, names: Sequence[str], clip_seconds: float, results: Mapping[Hashable, Any]
) -> dict[str, Metric]:
    """Word error rates in % and their differences to the original in points, pooled over words.

    The first recogniser's figures carry no name; `n` counts clips.
    """
    figures: dict[str, Metric] = {}
    for place, name in enumerate(heard.recognized_by(names)):
        groups = heard.clips(place > 0, clip_seconds)
        counts = {
            system: [
                word_errors(heard.text(group), results["text", heard.name, system, name, number])
                for number, group in enumerate(groups)
            ]
            for system in heard.hearing(place > 0)
        }
        label = heard.name + (f"_{name}" if place else "")
        for system, rows in counts.items():
            figures[f"wer_{label}_{system}"] = _pooled(rows)
            if system != ORIGINAL:
                delta = _paired(rows, counts[ORIGINAL])
                figures[f"wer_delta_{label}{suffix(system)}"] = delta
    return figures


def _pooled(rows: Sequence[WordErrors]) -> Metric:
    errors, words = zip(*rows, strict=True)
    return intervals.ratio(errors, words, "%", 100.0)


def _paired(rows: Sequence[WordErrors], originals: Sequence[WordErrors]) -> Metric:
    more = [row.errors - original.errors for row, original in zip(rows, originals, strict=True)]
    return intervals.ratio(more, [row.words for row in rows], "points", 100.0)


def rate_figures(coded: Mapping[tuple[str, str], Sequence[Coded]]) -> dict[str, Metric]:
    """Bit rates of the baselines over all sets."""
    figures = {}
    for system in dict.fromkeys(system for _, system in coded):
        outputs = [one for (_, name), row in coded.items() if name == system for one in row]
        seconds = [len(one.audio) / SAMPLE_RATE_HZ for one in outputs]
        bits = [one.bits for one in outputs]
        figures[f"bitrate_bps_{system}"] = intervals.ratio(bits, seconds, "bit/s")
    return figures


def code_figures(use: CodeUse) -> dict[str, Metric]:
    """Use and entropy of each codebook."""
    figures = {
        "code_use_min": intervals.exact(min(use.share), use.frames, "share"),
        "code_entropy_min": intervals.exact(min(use.entropy_bits), use.frames, "bits"),
    }
    for book, (share, entropy) in enumerate(zip(use.share, use.entropy_bits, strict=True)):
        figures[f"code_use_code{book}"] = intervals.exact(share, use.frames, "share")
        figures[f"code_entropy_code{book}"] = intervals.exact(entropy, use.frames, "bits")
    return figures


def probe_figures(results: Mapping[Hashable, Any]) -> dict[str, Metric]:
    """Phone accuracy of each codebook's probe, codebook 0 being the semantic one; maybe none."""
    accuracies = []
    while ("probe", len(accuracies)) in results:
        right, counted = results["probe", len(accuracies)].T
        heard = counted > 0
        accuracies.append(intervals.ratio(right[heard], counted[heard], "share"))
    figures = {f"phone_accuracy_code{book}": metric for book, metric in enumerate(accuracies)}
    if len(accuracies) > 1:
        best = max(accuracies[1:], key=lambda metric: metric.value)
        times = accuracies[0].value / max(best.value, 1e-9)
        figures["phone_accuracy_acoustic_max"] = best
        figures["phone_accuracy_code0_ratio"] = intervals.exact(times, best.n, "times")
    return figures


def tables(sets: Sequence[Heard], names: Sequence[str], codebooks: int) -> tuple[Table, ...]:
    """One table a set, systems as rows, and one of the codebooks."""
    second = names[1] if len(names) > 1 else ""
    found = []
    for heard in sets:
        rows = []
        for system in heard.audio:
            values = {
                "set": heard.name, "who": system, "system": suffix(system), "second": second
            }  # fmt: skip
            rows.append((system, tuple(form.format(**values) for form in _COLUMNS.values())))
        voices = ", ".join(dict.fromkeys(item.voice for item in heard.items))
        title = f"{heard.name}: {len(heard.items)} items of {voices}"
        found.append(Table(title, tuple(_COLUMNS), tuple(rows)))
    books = Table(
        "Codebooks",
        ("use, share", "entropy, bits", "phone accuracy of a linear probe"),
        tuple(
            (
                f"code {book}",
                tuple(
                    f"{kind}_code{book}" for kind in ("code_use", "code_entropy", "phone_accuracy")
                ),
            )
            for book in range(codebooks)
        ),
    )
    speed = Table(
        "Real-time factor, encode and decode of 80 ms steps on one thread",
        ("per stream",),
        (
            ("1 stream", ("rtf_b1",)),
            ("16 streams", ("rtf_b16_per_stream",)),
            ("64 streams", ("rtf_b64_per_stream",)),
            ("load average before", ("rtf_load",)),
        ),
    )
    return (*found, books, speed)
