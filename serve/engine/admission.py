"""Who may come in: a line through how long frames waited for their answers, against how many
callers there were.

A caller is let in where with one more of them an answer would still take less than a share of a
frame, all but one time in a hundred. Nothing is set by hand: the machine is what it measures.
"""

from collections import deque

import numpy as np

from model.frame import FRAME_S

_REMEMBERED = 8000  # frames: a minute and more of eight callers
_FEWEST = 20  # frames before anything is predicted
_QUANTILE = 0.99


class Admission:
    """Learns from `observe`; `most_s` is what an answer may take."""

    def __init__(self, share: float = 0.7) -> None:
        """`share` of a frame, above 0; a large one lets in whoever there is memory for."""
        assert share > 0, f"share {share} must be above 0"
        self.most_s = share * FRAME_S
        self._answers: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._fit: tuple[float, float, float] | None = None

    def observe(self, callers: int, seconds: float) -> None:
        """One of so many callers was answered after so long."""
        self._answers.append((callers, seconds))
        self._fit = None

    def predicted_s(self, callers: int) -> float:
        """What all but one in a hundred answers to so many take at most; 0 where too little is
        known."""
        if len(self._answers) < _FEWEST:
            return 0.0
        if self._fit is None:
            self._fit = self._fitted()
        fixed_s, each_s, spread = self._fit
        return (fixed_s + each_s * callers) * spread

    def may_come(self, callers: int) -> bool:
        """Whether there is time for so many."""
        return self.predicted_s(callers) <= self.most_s

    def _fitted(self) -> tuple[float, float, float]:
        """Seconds of any answer, and of each caller, neither below 0; and by what the slowest
        answers exceed the line."""
        callers, seconds = np.array(self._answers).T
        each_s = 0.0
        if np.ptp(callers):
            each_s = max(0.0, float(np.polyfit(callers, seconds, 1)[0]))
        fixed_s = float(np.mean(seconds - each_s * callers))
        if fixed_s < 0:
            fixed_s, each_s = 0.0, float(np.sum(seconds * callers) / np.sum(callers**2))
        line_s = np.maximum(fixed_s + each_s * callers, 1e-9)
        return fixed_s, each_s, max(1.0, float(np.quantile(seconds / line_s, _QUANTILE)))
