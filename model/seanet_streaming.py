"""Runs the layers of published codecs step by step, with their state passed in.

EnCodec (arXiv 2210.13438) and Mimi (arXiv 2410.00037) are both SEANet: causal convolutions, their
transposes, residual blocks. Their packages run whole files. The classes here wrap the packages' own
PyTorch layers (their weights are shared, not copied) and follow the law of `model.streaming`:
`module(x, state, active)`, x [B, T, C], `state=None` for a fresh one that nobody keeps.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.ops import cuda_kernels_for
from model.streaming import OverlapState, PastState, State, keep, overlap_add, with_past


class Streamed(nn.Module, ABC):
    """A layer with an explicit state."""

    @abstractmethod
    def init_state(self, batch: int) -> State:
        """A fresh state for `batch` rows."""

    @abstractmethod
    def forward(self, x: Tensor, state: Any = None, active: Tensor | None = None) -> Tensor:
        """[B, T, in] -> [B, T', out]; updates `state` of the active rows in place."""


@dataclasses.dataclass
class EmptyState(State):
    """The state of what remembers nothing."""


class Stateless(Streamed):
    """A module that treats every step by itself: an activation, an identity."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def init_state(self, batch: int) -> EmptyState:
        """Nothing, for any number of rows."""
        return EmptyState()

    def forward(self, x: Tensor, state: Any = None, active: Tensor | None = None) -> Tensor:
        return self.module(x)


def first_past(x: Tensor, steps: int, pad_mode: str) -> Tensor:
    """What a stream that begins with x [B, T, C] is taken to have had before it: [B, steps, C].

    `constant` is silence, `replicate` the first step again, `reflect` the beginning mirrored about
    the first step. A chunk too short to be mirrored is first filled up with zeros, as EnCodec does
    with a file as short.
    """
    if pad_mode == "constant":
        return x.new_zeros(x.shape[0], steps, x.shape[2])
    if pad_mode == "replicate":
        return x[:, :1].expand(-1, steps, -1)
    if pad_mode == "reflect":
        return F.pad(x, (0, 0, 0, max(0, steps + 1 - x.shape[1])))[:, 1 : steps + 1].flip(1)
    raise ValueError(f"pad_mode {pad_mode!r}: must be constant, replicate or reflect")


@dataclasses.dataclass
class PaddedState(PastState):
    """`past` [B, steps, C]; `started` bool [B], whether a row has had its first chunk."""

    started: Tensor


def padded(
    x: Tensor, steps: int, state: PaddedState, active: Tensor | None, pad_mode: str
) -> Tensor:
    """`with_past`, of a stream that may begin with x."""
    if ops := cuda_kernels_for(x, state.past):
        return ops.conv_input(x.contiguous(), state.past, state.started, active, False, pad_mode)
    starting = ~state.started if active is None else ~state.started & active
    keep(state.past, first_past(x, steps, pad_mode), starting)
    keep(state.started, torch.ones_like(starting), active)
    return with_past(x, steps, state, active)


class StreamedConv(Streamed):
    """A causal convolution: [B, T, in] -> [B, T / stride, out], T a multiple of `stride`."""

    def __init__(self, conv: nn.Conv1d, pad_mode: str = "constant") -> None:
        super().__init__()
        self.conv, self.pad_mode = conv, pad_mode
        self.past_steps = (conv.kernel_size[0] - 1) * conv.dilation[0] + 1 - conv.stride[0]

    def init_state(self, batch: int) -> PaddedState:
        """A fresh state for `batch` rows."""
        weight = self.conv.weight
        past = weight.new_zeros(batch, self.past_steps, self.conv.in_channels)
        return PaddedState(past, weight.new_zeros(batch, dtype=torch.bool))

    def forward(
        self, x: Tensor, state: PaddedState | None = None, active: Tensor | None = None
    ) -> Tensor:
        if x.shape[1] % self.conv.stride[0]:
            raise ValueError(f"{x.shape[1]} steps: must be a multiple of {self.conv.stride[0]}")
        if state is None:
            state = self.init_state(x.shape[0])
        x = padded(x, self.past_steps, state, active, self.pad_mode)
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class StreamedConvTranspose(Streamed):
    """A transposed convolution, its tail trimmed: [B, T, in] -> [B, T * stride, out]."""

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        super().__init__()
        self.conv = conv

    def init_state(self, batch: int) -> OverlapState:
        """A fresh state for `batch` rows."""
        conv = self.conv
        steps = conv.kernel_size[0] - conv.stride[0]
        return OverlapState(conv.weight.new_zeros(batch, steps, conv.out_channels))

    def forward(
        self, x: Tensor, state: OverlapState | None = None, active: Tensor | None = None
    ) -> Tensor:
        conv = self.conv
        alone = x.flatten(0, 1)[..., None]  # [B * T, in, 1]: each step by itself
        windows = F.conv_transpose1d(alone, conv.weight, stride=conv.stride, groups=conv.groups)
        windows = windows.unflatten(0, x.shape[:2]).transpose(2, 3)  # [B, T, window, out]
        y = overlap_add(windows, conv.stride[0], state, active)
        return y if conv.bias is None else y + conv.bias


@dataclasses.dataclass
class LstmState(State):
    """Hidden and cell state of every layer: [B, layers, C] each."""

    hidden: Tensor
    cell: Tensor


class StreamedLstm(Streamed):
    """A stack of LSTM layers, with its input added where `skip`: [B, T, C] -> [B, T, C]."""

    def __init__(self, lstm: nn.LSTM, skip: bool) -> None:
        super().__init__()
        self.lstm, self.skip = lstm, skip

    def init_state(self, batch: int) -> LstmState:
        """A fresh state for `batch` rows."""
        weight = self.lstm.weight_ih_l0
        assert isinstance(weight, Tensor)
        shape = (batch, self.lstm.num_layers, self.lstm.hidden_size)
        return LstmState(weight.new_zeros(shape), weight.new_zeros(shape))

    def forward(
        self, x: Tensor, state: LstmState | None = None, active: Tensor | None = None
    ) -> Tensor:
        if state is None:
            state = self.init_state(x.shape[0])
        past = (state.hidden.transpose(0, 1).contiguous(), state.cell.transpose(0, 1).contiguous())
        y, (hidden, cell) = self.lstm(x.transpose(0, 1), past)  # time first
        keep(state.hidden, hidden.transpose(0, 1), active)
        keep(state.cell, cell.transpose(0, 1), active)
        y = y.transpose(0, 1)
        return y + x if self.skip else y


@dataclasses.dataclass
class ChainState(State):
    """The state of every layer of a chain, in order."""

    states: tuple[State, ...]


class Chain(Streamed):
    """Layers one after the other."""

    def __init__(self, layers: Iterable[Streamed]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def _layers(self) -> Iterable[Streamed]:
        return cast(Iterable[Streamed], self.layers)

    def init_state(self, batch: int) -> ChainState:
        """A fresh state for `batch` rows."""
        return ChainState(tuple(layer.init_state(batch) for layer in self._layers()))

    def forward(
        self, x: Tensor, state: ChainState | None = None, active: Tensor | None = None
    ) -> Tensor:
        states = (None,) * len(self.layers) if state is None else state.states
        for layer, layer_state in zip(self._layers(), states, strict=True):
            x = layer(x, layer_state, active)
        return x


class StreamedResidual(Streamed):
    """The sum of a branch and a shortcut that keep time: [B, T, C] -> [B, T, C]."""

    def __init__(self, branch: Streamed, shortcut: Streamed) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def init_state(self, batch: int) -> ChainState:
        """A fresh state for `batch` rows: of the branch, then of the shortcut."""
        return ChainState((self.branch.init_state(batch), self.shortcut.init_state(batch)))

    def forward(
        self, x: Tensor, state: ChainState | None = None, active: Tensor | None = None
    ) -> Tensor:
        branch, shortcut = (None, None) if state is None else state.states
        return self.shortcut(x, shortcut, active) + self.branch(x, branch, active)


def check_streams(streams: bool, layer: nn.Module) -> None:
    """Raises ValueError unless `streams`: the layer can be wrapped."""
    if not streams:
        raise ValueError(f"cannot stream this layer, it is not causal or not known: {layer}")
