"""Pointing at a token that came before, instead of naming one of the vocabulary.

Names and numbers are copied from one stream to another; a small model learns that from a few
thousand dialogues only if it can point (pointer-generator networks, arXiv 1704.04368).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import (
    AttentionConfig,
    AttentionState,
    Packing,
    remember,
    seen_at,
    visible_from,
)
from model.ops import kernels_for, packed

_SHUT = -1e4  # a gate's logit where there is nothing to point at


class Pointed(NamedTuple):
    """Where each position points: `weights` [B, T, S] over `sources` int64 [B, S] (token + 1, 0:
    none), and `gate` [B, T], the logit of copying at all."""

    weights: Tensor
    sources: Tensor
    gate: Tensor


class Pointer(nn.Module):
    """One head over the last `window` positions that hold a source: [B, T, dim] -> Pointed."""

    def __init__(self, dim: int, pointer_dim: int, window: int) -> None:
        super().__init__()
        self.config = AttentionConfig(pointer_dim, 1, 1, window)
        self.query = nn.Linear(dim, pointer_dim, bias=False)
        self.key = nn.Linear(dim, pointer_dim, bias=False)
        self.gate = nn.Linear(dim, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, -2.0)  # names a word before it has learned to copy

    def init_state(self, batch: int) -> AttentionState:
        """A fresh state for `batch` rows; its values are the sources."""
        weight, config = self.key.weight, self.config
        keys = weight.new_zeros(batch, config.window, 1, config.dim)
        sources = weight.new_zeros(batch, config.window, 1, 1, dtype=torch.int64)
        position = weight.new_zeros(batch, dtype=torch.int64)
        return AttentionState(keys, sources, position, config.pinned)

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        state: AttentionState | None = None,
        active: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Pointed:
        if state is not None and x.shape[1] == 1 and (ops := kernels_for(x)):
            return self._step(ops, x, source, state, active)
        key, sources = self.key(x), source  # [B, S, pointer_dim], [B, S]
        position = torch.arange(x.shape[1], device=x.device)[None]  # [1, T]
        if state is None:
            visible = packing.visible if packing else visible_from(position, position, self.config)
            key, sources, visible = _only_sources(key, sources, visible)
        else:
            position = position + state.position[:, None]  # [B, T]
            seen = seen_at(position, self.config)
            keys, values = remember(
                key[:, :, None], source[:, :, None, None], position, self.config, state, active
            )
            if state.rows is not None and x.shape[1] == 1:
                keys, values = keys[state.rows], values[state.rows]
            key, sources = keys[:, :, 0], values[:, :, 0, 0]
            visible = visible_from(position, seen, self.config)
        visible = visible & (sources > 0)[:, None]  # [B, T, S]
        scores = (self.query(x) @ key.transpose(1, 2)).float() * self.config.dim**-0.5
        weights = scores.masked_fill(~visible, _SHUT).softmax(dim=-1) * visible
        gate = self.gate(x)[..., 0].float()
        return Pointed(weights, sources, gate.masked_fill(~visible.any(dim=-1), _SHUT))

    def _step(
        self, ops: Any, x: Tensor, source: Tensor, state: AttentionState, active: Tensor | None
    ) -> Pointed:
        """The same for a single step, as one operator."""
        weights, sources, gate = ops.pointer_step(
            x[:, 0].contiguous(),
            source[:, 0].contiguous(),
            packed(self.query),
            packed(self.key),
            self.gate.weight,
            self.gate.bias,
            state.keys,
            state.values,
            state.position,
            state.rows,
            active,
        )
        return Pointed(weights[:, None], sources, gate[:, None])


def _only_sources(key: Tensor, sources: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, sources and what is visible without those places that hold no source: in training most
    of them. Rows that have fewer than another are filled up with empty ones."""
    is_source = sources > 0
    count = int(is_source.sum(dim=1).max())
    places = is_source.byte().argsort(dim=1, descending=True, stable=True)[:, :count]  # [B, S]
    key = key.gather(1, places[..., None].expand(-1, -1, key.shape[2]))
    visible = visible.expand(len(places), -1, -1)
    visible = visible.gather(2, places[:, None].expand(-1, visible.shape[1], -1))
    return key, sources.gather(1, places), visible


def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """Of the tokens target int64 [B, T] by logits [B, T, V]: [B, T]."""
    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    return -losses.view_as(target)


def mix(logits: Tensor, pointed: Pointed, copy_targets: Tensor) -> Tensor:
    """Log-probabilities [B, T, V] of naming (logits [B, T, V]) and copying together.

    `copy_targets` int64 [V]: what a source is copied as.
    """
    targets = copy_targets[(pointed.sources - 1).clamp(min=0)]  # [B, S]
    targets = targets[:, None].expand(pointed.weights.shape)
    copied = torch.zeros_like(logits).scatter_add(2, targets, pointed.weights)
    named = F.logsigmoid(-pointed.gate)[..., None] + logits.log_softmax(dim=-1)
    return torch.logaddexp(named, F.logsigmoid(pointed.gate)[..., None] + copied.log())


def mixed_target(logits: Tensor, pointed: Pointed, copy_targets: Tensor, target: Tensor) -> Tensor:
    """The entry of `mix` at target int64 [B, T] -> [B, T], without the others."""
    targets = copy_targets[(pointed.sources - 1).clamp(min=0)]  # [B, S]
    is_right = targets[:, None] == target[..., None]  # [B, T, S]
    copied = (pointed.weights * is_right).sum(dim=-1)
    named = log_probability(logits, target)
    # A copy that can't be right has no gradient that is finite: kept off the logarithm.
    copied = copied.clamp(min=1e-30).log()
    return torch.logaddexp(F.logsigmoid(-pointed.gate) + named, F.logsigmoid(pointed.gate) + copied)
