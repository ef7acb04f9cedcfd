"""What was not taken in, and why."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import soundfile


class AlignmentError(ValueError):
    """A transcript that could not be laid on its audio."""


# What a damaged recording may raise; anything else is a fault of ours and stops the reading.
DAMAGE = (OSError, EOFError, soundfile.LibsndfileError, ValueError)


class Dropped(NamedTuple):
    """A recording that was not taken in: `name` is its file or its line, `reason` what is wrong."""

    name: str
    reason: str


def reason_of(error: Exception) -> str:
    """What is wrong, after its kind and a colon, on one line of at most 300 characters."""
    if isinstance(error, AlignmentError):
        kind = "cannot be aligned"
    elif isinstance(error, ValueError):  # json's too
        kind = "does not fit"
    else:
        kind = "cannot be read"
    return f"{kind}: {' '.join(str(error).split())}"[:300]


def summary(dropped: Sequence[Dropped]) -> str:
    """How many were dropped for what (the reason up to its colon), then each one."""
    kinds = Counter(one.reason.partition(":")[0] for one in dropped)
    counts = [f"{count:6} {kind}" for kind, count in kinds.most_common()]
    return "\n".join([f"{len(dropped)} dropped", *counts, *(f"{n}: {r}" for n, r in dropped)])
