"""The decoder that hears and decides, and the one that speaks: attention and gated feed-forward.

Pre-normalised layers as in LLaMA (arXiv 2302.13971): RMS norms, rotary positions, SwiGLU.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.attention import (
    AttentionConfig,
    AttentionState,
    Places,
    SlidingWindowAttention,
    packing_of,
)
from model.cuda_ops import half_turns
from model.ops import cuda_kernels_for, kept, kernels_for, pack_large
from model.streaming import State


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a stack of layers; `hidden` is the feed-forward's width behind its gate.

    `window` and `pinned` are those of `AttentionConfig`. `dropout` is that of training, after each
    attention and feed-forward.
    """

    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    window: int
    pinned: int = 0
    rope_period: float = 10_000.0
    norm_eps: float = 1e-5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        assert self.layers > 0, f"layers {self.layers} must be positive"
        assert self.hidden > 0, f"hidden {self.hidden} must be positive"
        assert self.norm_eps > 0, f"norm_eps {self.norm_eps} must be positive"
        assert 0 <= self.dropout < 1, f"dropout {self.dropout} must be in 0..1, not 1"
        assert self.attention.reach > 1, "a window of one step needs no transformer"

    @property
    def attention(self) -> AttentionConfig:
        """That of every layer."""
        return AttentionConfig(
            self.dim, self.heads, self.kv_heads, self.window, self.rope_period, self.pinned
        )


@dataclasses.dataclass
class TransformerState(State):
    """What each layer's attention can still see."""

    layers: tuple[AttentionState, ...]


class RMSNorm(nn.Module):
    """Scales each vector to a mean square of 1, in float32 (arXiv 1910.07467): [..., dim]."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202): [..., dim] -> [..., dim]; the gate comes first in `input`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(dim, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.input(x).chunk(2, dim=-1)
        return self.output(F.silu(gate) * value)


class Layer(nn.Module):
    """Attention, then feed-forward, each added to what came in: [B, T, dim] -> [B, T, dim]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = SlidingWindowAttention(config.attention)
        self.feed_forward_norm = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = FeedForward(config.dim, config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        state: AttentionState | None = None,
        active: Tensor | None = None,
        places: Places | None = None,
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), state, active, places))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Transformer(nn.Module):
    """Layers and a last norm: [B, T, dim] -> [B, T, dim], any T.

    `segment` int64 [B, T] numbers sequences that stand packed one behind the other, in training;
    none sees another. `checkpoint_activations`, set by training, computes each layer anew on the
    way back instead of remembering what was in it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.checkpoint_activations = False

    def init_state(self, batch: int) -> TransformerState:
        """A fresh state for `batch` rows."""
        return TransformerState(
            tuple(layer.attention.init_state(batch) for layer in self._layers())
        )

    def _layers(self) -> Iterator[Layer]:
        for layer in self.layers:
            assert isinstance(layer, Layer)
            yield layer

    def forward(
        self,
        x: Tensor,
        state: TransformerState | None = None,
        active: Tensor | None = None,
        segment: Tensor | None = None,
    ) -> Tensor:
        if state is not None and segment is None and x.shape[1] == 1:
            if ops := cuda_kernels_for(x, state.layers[0].keys):
                return self._cuda_step(ops, x, state, active)
            if ops := kernels_for(x):
                return self._step(ops, x, state, active)
        packing = None if segment is None else packing_of(segment, self.config.attention)
        first = next(self._layers()).attention
        places = first.places(x, state and state.layers[0], packing)
        for index, layer in enumerate(self._layers()):
            if self.checkpoint_activations and self.training:
                x = checkpoint(layer, x, None, None, places, use_reentrant=False)
            else:
                x = layer(x, state and state.layers[index], active, places)
        return self.norm(x)

    def _step(self, ops: Any, x: Tensor, state: TransformerState, active: Tensor | None) -> Tensor:
        """The same for a single step, as one operator."""
        config, first = self.config, state.layers[0]
        y = ops.transformer_step(
            x[:, 0].contiguous(),
            kept(self, self._weights),
            [layer.keys for layer in state.layers],
            [layer.values for layer in state.layers],
            [layer.position for layer in state.layers],
            first.rows,
            active,
            config.heads,
            config.kv_heads,
            config.hidden,
            config.window,
            config.pinned,
            config.rope_period,
            config.norm_eps,
        )
        return y[:, None]

    def _cuda_step(
        self, ops: Any, x: Tensor, state: TransformerState, active: Tensor | None
    ) -> Tensor:
        """The same for a single step, with operators between PyTorch's products."""
        config, heads, eps = self.config, self.config.attention, self.config.norm_eps
        turns = kept(self, lambda: half_turns(heads.head_dim, heads.rope_period, x.device))
        total, update = x[:, 0].clone(), None
        for layer, held in zip(self._layers(), state.layers, strict=True):
            y = ops.residual_rms_norm(total, update, layer.attention_norm.weight, eps)
            projected = layer.attention.input(y).unflatten(1, (-1, heads.head_dim))
            ring, whose = (held.keys, held.values, None, None), (held.position, held.rows, active)
            query = ops.rope_append(
                projected, *ring, *whose, turns, heads.heads, config.window, config.pinned
            )
            y = ops.ring_attention(*query, *ring, *whose, config.window, config.pinned, x.dtype)
            update = layer.attention.output(y)
            y = ops.residual_rms_norm(total, update, layer.feed_forward_norm.weight, eps)
            update = layer.feed_forward(y)
            held.position += 1 if active is None else active
        return ops.residual_rms_norm(total, update, self.norm.weight, eps)[:, None]

    def _weights(self) -> list[Tensor]:
        """As the operator wants them: six of each layer, then the last norm's."""
        return [
            *(
                weight
                for layer in self._layers()
                for weight in (
                    layer.attention_norm.weight,
                    pack_large(layer.attention.input.weight),
                    pack_large(layer.attention.output.weight),
                    layer.feed_forward_norm.weight,
                    pack_large(layer.feed_forward.input.weight),
                    pack_large(layer.feed_forward.output.weight),
                )
            ),
            self.norm.weight,
        ]
