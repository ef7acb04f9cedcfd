"""Drawing tokens: temperature, top-k, top-p; the same bit for bit alone and in any batch.

There is no generator: a row's number is a hash of its own seed, its own counter and the stream that
is drawn for, so neither other rows nor what they draw can change it, and a session that is restored
needs no random state. Probabilities are summed as integers, since a sum of floats depends on the
order in which a device adds them up.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.ops import cuda_kernels_for, kernels_for

# Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014), as int64.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_SCALE = 2**40  # of probabilities as integers; one below half of 1 / _SCALE is never drawn


@dataclass(frozen=True)
class SamplingConfig:
    """How one stream is drawn: the likeliest where `temperature` is 0.

    Otherwise out of the `top_k` likeliest (0: of all), of those out of the fewest that together
    reach `top_p` of the probability. Those as likely as the last one that stays, stay with it.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        assert 0 <= self.temperature < float("inf"), (
            f"temperature {self.temperature} must be 0 or more, and finite"
        )
        assert self.top_k >= 0, f"top_k {self.top_k} must be 0 (off) or more"
        assert 0 < self.top_p <= 1, f"top_p {self.top_p} must be above 0 and at most 1"


def uniforms(seed: Tensor, counter: Tensor, stream: int | Tensor) -> Tensor:
    """One number of each row -> float64 [B] in [0, 1).

    `seed` and `counter` are int64 [B]: the session's and the position's. `stream` tells apart what
    is drawn at one position (text, action, each step of the depth transformer); several streams
    int64 [n] give [B, n] for a seed and a counter [B, 1].
    """
    is_many = isinstance(stream, Tensor) and stream.device.type == "cpu"
    if is_many and (ops := kernels_for()):
        return ops.uniforms(seed.flatten(), counter.flatten(), stream)
    key = _mixed(_mixed(seed + _STEP) + stream)
    bits = _mixed(key + (counter + 1) * _STEP)
    return _shifted(bits, 11).to(torch.float64) * 2.0**-53


def sample(logits: Tensor, config: SamplingConfig, uniform: Tensor) -> Tensor:
    """The token of each row: logits float [B, V], uniform float64 [B] in [0, 1) -> int64 [B].

    A logit of -inf is never drawn. Each row needs one that is finite, and none that is NaN.
    """
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    if ops := kernels_for(logits) or cuda_kernels_for(logits):
        settings = (config.temperature, config.top_k, config.top_p)
        return ops.sample(logits.contiguous(), uniform.contiguous(), *settings)
    logits = logits.float()
    # Taken off before the division, which would overflow at a low temperature.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / config.temperature
    weights = (logits.softmax(dim=-1) * _SCALE).round().to(torch.int64)  # [B, V]
    if 0 < config.top_k < weights.shape[-1]:
        smallest = weights.topk(config.top_k, dim=-1).values[:, -1:]
        weights = weights.masked_fill(weights < smallest, 0)
    if config.top_p < 1:
        weights = _nucleus(weights, config.top_p)
    reached = weights.cumsum(dim=-1)  # [B, V]
    target = (uniform * reached[:, -1]).floor().to(torch.int64)
    return torch.searchsorted(reached, target[:, None], right=True)[:, 0]


class Sampler(NamedTuple):
    """Draws the codes of frames, one step after the other, each with a number of its own: `uniform`
    float64 [N, steps]."""

    config: SamplingConfig
    uniform: Tensor

    def __call__(self, logits: Tensor, step: int) -> Tensor:
        """The codes of one step: float32 [N, codebook] -> int64 [N]."""
        return sample(logits, self.config, self.uniform[:, step])

    def only(self, rows: Tensor) -> "Sampler":
        """Those of some frames (bool [N])."""
        return Sampler(self.config, self.uniform[rows])


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """Only the largest weights (int64 [B, V]) that it takes to reach `top_p` of their sum."""
    ordered = weights.sort(dim=-1, descending=True).values
    reached = ordered.cumsum(dim=-1)
    is_needed = (reached - ordered).double() < top_p * reached[:, -1:].double()
    smallest = ordered.gather(-1, is_needed.sum(dim=-1, keepdim=True) - 1)
    return weights.masked_fill(weights < smallest, 0)


def _mixed(bits: Tensor) -> Tensor:
    """Every bit of the result depends on every bit of `bits`; int64, wrapping around."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """To the right, filled up with zeros: int64 is signed and would fill up with its sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
