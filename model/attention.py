"""Causal self-attention over a sliding window, its past in a ring that the caller passes in.

Rotary positions as in Moshi (arXiv 2410.00037): neighbouring channels are the pairs, angles are
not rounded to the model's precision. Grouped queries as in arXiv 2305.13245.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.streaming import State


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """Sizes of one attention; a step sees itself and the `window - 1` steps before it."""

    dim: int
    heads: int
    kv_heads: int
    window: int
    rope_period: float = 10_000.0

    def __post_init__(self) -> None:
        assert self.heads > 0, f"heads {self.heads} must be positive"
        assert self.dim % self.heads == 0, (
            f"dim {self.dim} must be a multiple of heads {self.heads}"
        )
        assert self.head_dim % 2 == 0, f"dim / heads is {self.head_dim}: must be even to rotate"
        assert self.kv_heads > 0, f"kv_heads {self.kv_heads} must be positive"
        assert self.heads % self.kv_heads == 0, (
            f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}"
        )
        assert self.window > 0, f"window {self.window} must be positive"
        assert self.rope_period > 1, f"rope_period {self.rope_period} must be above 1"

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.heads


@dataclasses.dataclass
class AttentionState(State):
    """The last `window` steps of each row: position p lies in slot p % window.

    `keys` (rotated) and `values` [B, window, kv_heads, head_dim]; `position` int64 [B], the number
    of steps that a row has had.
    """

    keys: Tensor
    values: Tensor
    position: Tensor


def rotate(x: Tensor, position: Tensor, period: float) -> Tensor:
    """Turns the channel pairs (2i, 2i + 1) of x [B, T, heads, D] by their position [B or 1, T].

    Angles are float64 until their sine is taken: hours of frames keep their exact distances.
    """
    half = x.shape[-1] // 2
    exponent = torch.arange(half, dtype=torch.float64, device=x.device) / half
    angle = position[..., None, None] / period**exponent  # [B, T, 1, D / 2]
    cosine, sine = angle.cos().float(), angle.sin().float()
    even, odd = x.float().unflatten(-1, (half, 2)).unbind(-1)
    turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _ring_position(newest: Tensor, window: int) -> Tensor:
    """Which position each slot holds once `newest` [B, 1] is in the ring: int64 [B, window].

    Negative where nothing has been written yet.
    """
    return newest - (newest - torch.arange(window, device=newest.device)) % window


def _write(ring: Tensor, new: Tensor, position: Tensor, active: Tensor | None) -> None:
    """Puts new [B, T, ...] at position [B, T] into the ring [B, window, ...] of the active rows."""
    window = ring.shape[1]
    new, slot = new[:, -window:].detach().to(ring.dtype), position[:, -window:] % window
    row = torch.arange(ring.shape[0], device=ring.device)[:, None]
    if active is not None:
        new = torch.where(active[:, None, None, None], new, ring[row, slot])
    ring[row, slot] = new


def _remember(
    key: Tensor, value: Tensor, position: Tensor, state: AttentionState, active: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values [B, S, kv_heads, head_dim] and positions [B, S] of the past and of this chunk.

    A single step takes the slot of the one step that it can no longer see, so the ring itself is
    what it attends to; a longer chunk is put behind a copy of the ring.
    """
    window = state.keys.shape[1]
    if key.shape[1] == 1:
        keys, values, seen = state.keys, state.values, _ring_position(position, window)
    else:
        keys = torch.cat([state.keys.to(key.dtype), key], dim=1)  # [B, window + T, kv_heads, D]
        values = torch.cat([state.values.to(value.dtype), value], dim=1)
        seen = torch.cat([_ring_position(position[:, :1] - 1, window), position], dim=1)
    _write(state.keys, key, position, active)
    _write(state.values, value, position, active)
    state.position += key.shape[1] if active is None else key.shape[1] * active
    return keys.to(key.dtype), values.to(value.dtype), seen


class SlidingWindowAttention(nn.Module):
    """Causal self-attention over the last `window` steps: [B, T, dim] -> [B, T, dim], any T."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.splits = [config.heads, config.kv_heads, config.kv_heads]  # queries, keys, values
        self.input = nn.Linear(config.dim, sum(self.splits) * config.head_dim, bias=False)
        self.output = nn.Linear(config.dim, config.dim, bias=False)

    def init_state(self, batch: int) -> AttentionState:
        """A fresh state for `batch` rows."""
        config, weight = self.config, self.input.weight
        shape = (batch, config.window, config.kv_heads, config.head_dim)
        position = weight.new_zeros(batch, dtype=torch.int64)
        return AttentionState(weight.new_zeros(shape), weight.new_zeros(shape), position)

    def forward(
        self, x: Tensor, state: AttentionState | None = None, active: Tensor | None = None
    ) -> Tensor:
        config = self.config
        position = torch.arange(x.shape[1], device=x.device)[None]  # [1, T]
        if state is not None:
            position = position + state.position[:, None]  # [B, T]
        heads = self.input(x).unflatten(2, (-1, config.head_dim))  # [B, T, heads + 2 kv, head_dim]
        query, key, value = heads.split(self.splits, dim=2)
        query = rotate(query, position, config.rope_period)
        key = rotate(key, position, config.rope_period)
        seen = position
        if state is not None:
            key, value, seen = _remember(key, value, position, state, active)
        age = position[:, :, None] - seen[:, None]  # [B, T, S]
        visible = (seen[:, None] >= 0) & (age >= 0) & (age < config.window)
        y = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=visible[:, None],  # [B, 1, T, S]
            enable_gqa=config.heads != config.kv_heads,
        )
        return self.output(y.transpose(1, 2).flatten(2))
