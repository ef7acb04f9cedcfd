"""How late agents answer and call, as shares of what they answered and called by then."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from train.scoring.front_desk_figures import TIMES, of_suites
from train.scoring.front_desk_tally import Judged

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_SHOWN = {
    "turn_gap_ms": "from a turn's end to the answer",
    "need_to_call_ms": "from the last needed word to the call",
    "bargein_stop_ms": "from an interruption to silence",
}
_RANGE_MS = (-500, 3000)


def draw(judged: Mapping[str, Sequence[Judged]], path: Path) -> None:
    """One panel a time, one line an agent (by the prefix of its figures)."""
    figure, panels = plt.subplots(1, len(_SHOWN), figsize=(15, 4), sharey=True)
    for panel, (name, title) in zip(panels, _SHOWN.items(), strict=True):
        for prefix, conversations in judged.items():
            ones = of_suites(conversations, TIMES[name].suites)
            times_ms = np.sort([1000 * s for one in ones for s in TIMES[name].values_s(one)])
            if times_ms.size:
                shares = np.arange(1, times_ms.size + 1) / times_ms.size
                label = prefix.rstrip("_").replace("_", " ") or "checkpoint"
                panel.step(times_ms, shares, where="post", label=f"{label}, n={times_ms.size}")
        panel.set_title(title)
        panel.set_xlabel("ms of audio, and what a cascade computes")
        panel.set_xlim(*_RANGE_MS)
        panel.grid(alpha=0.3)
        panel.legend(loc="lower right")
    panels[0].set_ylabel("share")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
