"""A figure with its 95 % interval: Wilson's for shares, else bootstrap over items, seeded."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_RESAMPLES = 1_000
_CLUSTER_RESAMPLES = 10_000
_SEED = 20_261_122
_PERCENTILES = (2.5, 97.5)
_Z = 1.959964  # of the normal distribution, 95 % two-sided


@dataclass(frozen=True)
class Metric:
    """One figure of a report; `low` and `high` are None where no interval is defined.

    `n` counts what was resampled: sentences, clips, frames, steps.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    unit: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"value {self.value} ({self.unit}): must be finite")
        if self.n < 1:
            raise ValueError(f"n {self.n}: a figure needs at least one item")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"low {self.low}, high {self.high}: give both or neither")


def exact(value: float, n: int, unit: str) -> Metric:
    """A figure without an interval."""
    return Metric(float(value), None, None, n, unit)


def ratio(numerators: ArrayLike, denominators: ArrayLike, unit: str, scale: float = 1.0) -> Metric:
    """scale * sum(numerators) / sum(denominators), pairs resampled together.

    Word errors over words, paired differences of errors over words, correct labels over labels.
    """
    top = np.asarray(numerators, np.float64)  # [items]
    bottom = np.asarray(denominators, np.float64)
    if top.shape != bottom.shape or top.ndim != 1 or top.size == 0:
        raise ValueError(f"shapes {top.shape} and {bottom.shape}: must be the same [items > 0]")
    if (bottom <= 0).any():
        raise ValueError("denominators must be positive")
    rows = np.random.default_rng(_SEED).integers(0, len(top), (_RESAMPLES, len(top)))
    resampled = scale * top[rows].sum(1) / bottom[rows].sum(1)
    low, high = np.percentile(resampled, _PERCENTILES)
    value = scale * top.sum() / bottom.sum()
    return Metric(float(value), float(low), float(high), len(top), unit)


def mean(values: ArrayLike, unit: str) -> Metric:
    """The mean of items."""
    return ratio(values, np.ones(np.shape(values)), unit)


def median(values: ArrayLike, unit: str) -> Metric:
    """The median of items."""
    items = np.asarray(values, np.float64)
    if items.ndim != 1 or items.size == 0:
        raise ValueError(f"shape {items.shape}: must be [items > 0]")
    rows = np.random.default_rng(_SEED).integers(0, len(items), (_RESAMPLES, len(items)))
    low, high = np.percentile(np.median(items[rows], 1), _PERCENTILES)
    return Metric(float(np.median(items)), float(low), float(high), len(items), unit)


def wilson(successes: int, n: int, unit: str = "share", effect: float = 1.0) -> Metric:
    """A share of `n` things that are right or wrong (Wilson 1927), which tell as much as n / effect
    that have nothing in common."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n}: must be 0 to n of at least 1")
    share, worth = successes / n, n / effect
    per = _Z**2 / worth
    middle = (share + per / 2) / (1 + per)
    half = _Z / (1 + per) * math.sqrt(share * (1 - share) / worth + per / (4 * worth))
    return Metric(share, max(middle - half, 0.0), min(middle + half, 1.0), n, unit)


def clustered_share(successes: ArrayLike, counts: ArrayLike, unit: str = "share") -> Metric:
    """A share of things that are right or wrong, given by cluster: those with a cause in common.

    Wilson's interval with the design effect (Kish 1965) that their spread over clusters tells: at
    least 1, and at most that of clusters which are all right or all wrong, which it is taken for
    where everything is and the spread tells nothing.
    """
    right, of = np.asarray(successes, np.float64), np.asarray(counts, np.float64)  # [clusters]
    if right.shape != of.shape or right.ndim != 1 or not of.sum():
        raise ValueError(f"shapes {right.shape} and {of.shape}: must be the same [clusters > 0]")
    n, share = of.sum(), right.sum() / of.sum()
    effect = most = np.square(of).sum() / n
    if 0 < share < 1 and len(of) > 1:
        spread = np.square(right - share * of).sum() * len(of) / (len(of) - 1)
        effect = min(max(spread / (n * share * (1 - share)), 1.0), most)
    return wilson(int(right.sum()), int(n), unit, float(effect))


def percentile(values: ArrayLike, clusters: Sequence[Hashable], rank: float, unit: str) -> Metric:
    """The smallest of the values that at least `rank` percent of them do not exceed; whole clusters
    (values that have a cause in common) are resampled."""
    items = np.asarray(values, np.float64)
    if items.ndim != 1 or items.size == 0 or len(clusters) != items.size:
        raise ValueError(
            f"shape {items.shape}, {len(clusters)} clusters: must be [items > 0], each"
        )
    order = np.argsort(items)
    ordered = items[order]
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    of_item = np.array([numbers[clusters[place]] for place in order])
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(len(numbers), [1 / len(numbers)] * len(numbers), _CLUSTER_RESAMPLES)
    counts = drawn[:, of_item].cumsum(1)  # [resamples, items]
    places = (counts < rank / 100 * counts[:, -1:]).sum(1)
    low, high = np.percentile(ordered[places], _PERCENTILES)
    value = np.percentile(items, rank, method="inverted_cdf")
    return Metric(float(value), float(low), float(high), items.size, unit)
