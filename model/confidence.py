"""How sure the model was of a call: out of the probabilities before the grammar's mask.

What counts is each token of the arguments that the grammar left open, and how likely the model held
it without the mask: a token that the mask alone made likely is a guess. Punctuation, names of
arguments and what else could not have been otherwise says nothing about a call and is left out.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Confidence(NamedTuple):
    """Of a call's arguments, each 0..1; 1 where nothing was open.

    `weakest` is the probability of the least likely token, and what a call's confidence is: one
    digit that was misheard makes an order's number wrong, however sure the model was of the others,
    and a long argument is not less sure for being long. `mean` is the geometric mean.
    """

    weakest: float
    mean: float


def confidence_of(probabilities: Sequence[float]) -> Confidence:
    """From the unmasked probability of each token that was open."""
    if not probabilities:
        return Confidence(1.0, 1.0)
    weakest = min(probabilities)
    if weakest <= 0:
        return Confidence(0.0, 0.0)
    mean = math.exp(math.fsum(map(math.log, probabilities)) / len(probabilities))
    return Confidence(weakest, mean)


def token_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """How likely each token was: unmasked logits [B, V], tokens int64 [B] -> float32 [B]."""
    return logits.float().softmax(dim=-1).gather(-1, tokens[:, None])[:, 0]
