"""Causal ConvNeXt blocks (arXiv 2201.03545; over time as in Vocos, arXiv 2306.00814)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.ops import kept, kernels_for, pack_large
from model.streaming import CausalConv1d, PastState, State


class ConvNextBlock(nn.Module):
    """Depthwise causal convolution, norm, and a two-layer network, beside the input: [B, T, C]."""

    def __init__(self, channels: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = CausalConv1d(channels, channels, kernel_size, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def init_state(self, batch: int) -> PastState:
        """A fresh state for `batch` rows."""
        return self.depthwise.init_state(batch)

    def forward(
        self, x: Tensor, state: PastState | None = None, active: Tensor | None = None
    ) -> Tensor:
        h = self.norm(self.depthwise(x, state, active))
        return x + self.scale * self.project(F.gelu(self.expand(h), approximate="tanh"))


@dataclass
class ConvNextState(State):
    """One `PastState` a block."""

    blocks: tuple[PastState, ...]


class ConvNext(nn.Module):
    """A stack of ConvNeXt blocks: [B, T, C] -> [B, T, C]."""

    def __init__(self, channels: int, hidden: int, kernel_size: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvNextBlock(channels, hidden, kernel_size) for _ in range(blocks)
        )

    def init_state(self, batch: int) -> ConvNextState:
        """A fresh state for `batch` rows."""
        states = [block.depthwise.init_state(batch) for block in self._blocks()]
        return ConvNextState(tuple(states))

    def _blocks(self) -> list[ConvNextBlock]:
        return [block for block in self.blocks if isinstance(block, ConvNextBlock)]

    def forward(
        self, x: Tensor, state: ConvNextState | None = None, active: Tensor | None = None
    ) -> Tensor:
        if state is not None and (ops := kernels_for(x)):
            return self._step(ops, x, state, active)
        states = state.blocks if state is not None else (None,) * len(self.blocks)
        for block, block_state in zip(self.blocks, states, strict=True):
            x = block(x, block_state, active)
        return x

    def _step(self, ops: Any, x: Tensor, state: ConvNextState, active: Tensor | None) -> Tensor:
        """The same, as one operator."""
        first = self._blocks()[0]
        return ops.conv_next(
            x.contiguous(),
            kept(self, self._weights),
            [block.past for block in state.blocks],
            active,
            first.expand.out_features,
            first.depthwise.past_steps + 1,
            first.norm.eps,
        )

    def _weights(self) -> list[Tensor]:
        """As the operator wants them: nine of each block."""
        return [
            weight
            for block in self._blocks()
            for weight in (
                block.depthwise.conv.weight[:, 0].T.contiguous(),  # [kernel, channels]
                _bias(block.depthwise.conv),
                block.norm.weight,
                block.norm.bias,
                pack_large(block.expand.weight),
                block.expand.bias,
                pack_large(block.project.weight),
                block.project.bias,
                block.scale,
            )
        ]


def _bias(convolution: nn.Conv1d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias
