"""Gaps between turns: figures, a table beside what is known of people, a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from data.dialogue import AGENT, USER
from data.report import Figure, grid
from data.turn_taking import Stretch, gaps_s

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Whose turn it is that begins.
_TRANSFERS = {"agent_to_user": USER, "user_to_agent": AGENT}
_TITLES = {"agent_to_user": "agent to caller", "user_to_agent": "caller to agent"}
_COLOURS = {"agent_to_user": "tab:orange", "user_to_agent": "tab:blue"}  # as data.inspect has them
_PERCENTILES = {"p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95}
_SHARES_BELOW_MS = (0, 200, 500)
_SHOWN_MS = (-600, 2000)
_BIN_MS = 50

# What people do. [1] T. Stivers et al. 2009; [2] M. Heldner and J. Edlund 2010; [3] S. Levinson and
# F. Torreira 2015.
_PEOPLE = {
    "median": "0 in English, 0 to 300 in ten languages, 100 in all of them [1]",
    "mode": "0 to 200 in each language [1], 100 to 200 on the telephone [3]",
    "mean": "208, from 7 (Japanese) to 469 (Danish) [1]",
    "below_0ms_share": "about 40 % [2], 30.1 % on the telephone [3]",
    "below_200ms_share": "51 to 55 % [3]",
    "below_500ms_share": "70 to 82 % [2]",
    "overlap_speech_share": "4.7 % on the telephone [3]",
}
_SOURCES = """\
[1] Stivers et al., PNAS 106 (26), 2009, 10587-10592: answers to yes-no questions, ten languages.
[2] Heldner and Edlund, Journal of Phonetics 38 (4), 2010, 555-568: Dutch, Swedish, Scottish.
[3] Levinson and Torreira, Frontiers in Psychology 6:731, 2015: overlaps in 348 telephone calls of
Switchboard (38 hours), the rest in several corpora. None of the three was at hand in full: the
figures are as others quote them.
"""


def gap_figures(turns: Sequence[Sequence[Stretch]]) -> dict[str, Figure]:
    """Percentiles, mean and mode of the gaps of all dialogues in ms, and shares below some."""
    found: dict[str, Figure] = {}
    for transfer in _TRANSFERS:
        gaps_ms = _gaps_ms(turns, transfer)
        if not len(gaps_ms):
            continue
        values = {name: np.percentile(gaps_ms, p) for name, p in _PERCENTILES.items()}
        values |= {"mean": gaps_ms.mean(), "mode": _mode_ms(gaps_ms)}
        for name, value in values.items():
            found[f"gap_{transfer}_{name}"] = Figure(float(value), len(gaps_ms), "ms")
        for limit_ms in _SHARES_BELOW_MS:
            share = float((gaps_ms < limit_ms).mean())
            name = f"gap_{transfer}_below_{limit_ms}ms_share"
            found[name] = Figure(share, len(gaps_ms), "share of transfers")
    return found


def _gaps_ms(turns: Sequence[Sequence[Stretch]], transfer: str) -> NDArray[np.float64]:
    side = _TRANSFERS[transfer]
    return np.array([1000 * gap_s for one in turns for gap_s in gaps_s(one, side)])


def _mode_ms(gaps_ms: NDArray[np.float64]) -> float:
    """The middle of the fullest bin of 100 ms."""
    bins, counts = np.unique(np.floor(gaps_ms / 100), return_counts=True)
    return float(100 * bins[counts.argmax()] + 50)


def gap_table(found: Mapping[str, Figure]) -> str:
    """Both transfers beside people's, as Markdown; empty where nobody takes turns."""
    if not any(name.startswith("gap_") for name in found):
        return ""
    rows = [[label, *_cells(found, name), _PEOPLE.get(name, "")] for label, name in _LINES]
    overlap = found["overlap_speech_share"].value
    rows.append(
        ["both speak, of the time in which somebody does", f"{overlap:.1%}", "",
         _PEOPLE["overlap_speech_share"]]
    )  # fmt: skip
    header = ["gaps between turns", *_TITLES.values(), "people"]
    return grid(header, rows) + "\n" + _SOURCES


_LINES = (
    ("transfers", "n"),
    ("median, ms", "median"),
    ("mode, ms (middle of 100)", "mode"),
    ("mean, ms", "mean"),
    ("25th percentile, ms", "p25"),
    ("75th percentile, ms", "p75"),
    ("5th percentile, ms", "p5"),
    ("95th percentile, ms", "p95"),
    ("overlaps, of all transfers", "below_0ms_share"),
    ("within 200 ms, overlaps included", "below_200ms_share"),
    ("within 500 ms, overlaps included", "below_500ms_share"),
)


def _cells(found: Mapping[str, Figure], name: str) -> list[str]:
    cells = []
    for transfer in _TRANSFERS:
        if name == "n":
            figure = found.get(f"gap_{transfer}_median")
            cells.append(f"{figure.n:,}" if figure else "0")
            continue
        figure = found.get(f"gap_{transfer}_{name}")
        form = ".1%" if name.endswith("share") else ".0f"
        cells.append(format(figure.value, form) if figure else "")
    return cells


def draw_gaps(turns: Sequence[Sequence[Stretch]], path: Path) -> None:
    """One picture: a histogram of the gaps a transfer; overlaps are left of zero, paler."""
    figure, axes = plt.subplots(2, 1, figsize=(8, 5.4), sharex=True)
    for axis, transfer in zip(axes, _TRANSFERS, strict=True):
        _draw(axis, _gaps_ms(turns, transfer), transfer)
    axes[0].axvspan(0, 200, color="0.9", zorder=0, label="people's mode, 0 to 200 ms")
    axes[1].axvspan(0, 200, color="0.9", zorder=0)
    axes[0].legend(frameon=False, fontsize=8, loc="upper right")
    axes[1].set(xlabel="gap before the next turn, ms (negative: overlap)", xlim=_SHOWN_MS)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw(axis: Axes, gaps_ms: NDArray[np.float64], transfer: str) -> None:
    low, high = _SHOWN_MS
    counts, edges = np.histogram(gaps_ms, np.arange(low, high + _BIN_MS, _BIN_MS))
    bars = axis.bar(
        edges[:-1], counts, _BIN_MS, align="edge", color=_COLOURS[transfer], edgecolor="white",
        linewidth=0.4,
    )  # fmt: skip
    for bar, edge in zip(bars, edges[:-1], strict=True):
        bar.set_alpha(0.5 if edge < 0 else 1.0)
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_ylabel("transfers")
    axis.spines[["top", "right"]].set_visible(False)
    title = f"{_TITLES[transfer]}: {len(gaps_ms):,} transfers"
    if len(gaps_ms):
        middle = float(np.median(gaps_ms))
        axis.axvline(middle, color="black", linestyle="--", linewidth=1)
        outside = int(((gaps_ms < low) | (gaps_ms > high)).sum())
        title += f", median {middle:.0f} ms (dashed), {outside:,} beyond the axis"
    axis.set_title(title, size=10, loc="left")
