"""What was not taken in, and why."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Dropped(NamedTuple):
    """A recording that was not taken in: `name` is its file or its line, `reason` what is wrong."""

    name: str
    reason: str


def summary(dropped: Sequence[Dropped]) -> str:
    """How many were dropped for what (the reason up to its colon), then each one."""
    kinds = Counter(one.reason.partition(":")[0] for one in dropped)
    counts = [f"{count:6} {kind}" for kind, count in kinds.most_common()]
    return "\n".join([f"{len(dropped)} dropped", *counts, *(f"{n}: {r}" for n, r in dropped)])
