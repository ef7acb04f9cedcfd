"""Streaming building blocks: causal convolutions whose whole state is passed in.

The law of every stateful module here and above: chunked equals whole, and a row in a batch equals
the row alone. Tensors are [B, T, C], batch first, time second. A module is called as
`module(x, state, active)`:

- `state` comes from `module.init_state(batch)` and is updated in place; `None` means a fresh state
  that nobody keeps, which is how whole sequences are trained. There is no other code path.
- `active` is a bool [B]: rows that are False keep their state, and their output means nothing.

A state is a dataclass of preallocated tensors, zero when fresh, so `reset` is the same for all.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.ops import cuda_kernels_for, gather_rows, scatter_rows


class State:
    """Base of every state dataclass; fields are tensors [B, ...], states or tuples of states."""

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of this state, nested ones included, in the order of the fields."""
        for name in _fields(type(self)):
            yield from _tensors(getattr(self, name))

    def reset(self, mask: Tensor) -> None:
        """Makes the rows where `mask` (bool [B]) is True fresh again."""
        for tensor in self.tensors():
            tensor[mask] = 0

    def row(self, index: int) -> Self:
        """One row as a state of its own, whose tensors are views: what is done there is done
        here."""
        return self._mapped(lambda value: value.row(index), lambda value: value[index : index + 1])

    def gather(self, rows: Tensor) -> Self:
        """The rows int64 [n] as a state to be run and then scattered back: copies, but of what is
        large, which is shared. A row that is there more than once must stay inactive."""
        return self._around(iter(gather_rows(self.copied(), rows)), rows)

    def scatter(self, rows: Tensor, part: Self) -> None:
        """Takes back what `gather` gave."""
        scatter_rows(self.copied(), rows, part.copied())

    def copied(self) -> list[Tensor]:
        """The tensors that `gather` copies, in the order of the fields."""
        found: list[Tensor] = []
        for name in _fields(type(self)):
            _add_copied(getattr(self, name), found)
        return found

    def _around(self, copies: Iterator[Tensor], rows: Tensor) -> Self:
        """A state out of the copies of what `copied` gives."""
        return self._mapped(lambda value: value._around(copies, rows), lambda _: next(copies))

    def _mapped(self, state: Callable[[Any], Any], tensor: Callable[[Tensor], Tensor]) -> Self:
        def mapped(value: Any) -> Any:
            if isinstance(value, State):
                return state(value)
            return tuple(map(mapped, value)) if isinstance(value, tuple) else tensor(value)

        return type(self)(*[mapped(getattr(self, name)) for name in _fields(type(self))])


@cache
def _fields(kind: type[State]) -> tuple[str, ...]:
    """A round asks often."""
    assert dataclasses.is_dataclass(kind)
    return tuple(field.name for field in dataclasses.fields(kind))


def _add_copied(value: Any, found: list[Tensor]) -> None:
    if isinstance(value, State):
        found += value.copied()
    elif isinstance(value, tuple):
        for item in value:
            _add_copied(item, found)
    else:
        found.append(value)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, State):
        yield from value.tensors()
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)
    else:
        raise TypeError(f"a state holds tensors, states and tuples of them, not {type(value)}")


def keep(old: Tensor, new: Tensor, active: Tensor | None) -> None:
    """Overwrites `old` by `new` (both [B, ...]) in the active rows; the state carries no graph."""
    new = new.detach()
    if active is not None:
        new = torch.where(active.view(-1, *[1] * (new.dim() - 1)), new, old)
    old.copy_(new)


@dataclasses.dataclass
class PastState(State):
    """What a causal module remembers of its input: `past` [B, steps, C]."""

    past: Tensor


def with_past(x: Tensor, steps: int, state: PastState | None, active: Tensor | None) -> Tensor:
    """Puts the last `steps` inputs before x [B, T, C] -> [B, steps + T, C]; remembers the next."""
    if state is None:
        return F.pad(x, (0, 0, steps, 0))
    if ops := cuda_kernels_for(x, state.past):
        return ops.conv_input(x.contiguous(), state.past, None, active, False, "constant")
    x = torch.cat([state.past.to(x.dtype), x], dim=1)  # [B, steps + T, C]
    keep(state.past, x[:, x.shape[1] - steps :], active)
    return x


class CausalConv1d(nn.Module):
    """Convolution over time that sees no future: [B, T, in] -> [B, T / stride, out].

    T must be a multiple of `stride`; the kernel reaches `kernel_size - stride` steps back.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        if kernel_size < stride:
            raise ValueError(f"kernel_size {kernel_size} must be at least stride {stride}")
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, groups=groups)
        self.past_steps = kernel_size - stride

    def init_state(self, batch: int) -> PastState:
        """A fresh state for `batch` rows."""
        weight = self.conv.weight
        return PastState(weight.new_zeros(batch, self.past_steps, self.conv.in_channels))

    def forward(
        self, x: Tensor, state: PastState | None = None, active: Tensor | None = None
    ) -> Tensor:
        if x.shape[1] % self.conv.stride[0]:
            raise ValueError(f"{x.shape[1]} steps: must be a multiple of {self.conv.stride[0]}")
        x = with_past(x, self.past_steps, state, active)
        # As an image one pixel high, whose channels lie last in memory: a 1-d convolution copies
        # [B, T, C] to [B, C, T] and back, which takes longer than a depthwise convolution itself.
        image = x.transpose(1, 2)[:, :, None]  # [B, in, 1, steps + T]
        weight, bias = self.conv.weight[:, :, None], self.conv.bias
        y = F.conv2d(image, weight, bias, (1, self.conv.stride[0]), groups=self.conv.groups)
        return y[:, :, 0].transpose(1, 2)  # [B, T / stride, out]


@dataclasses.dataclass
class OverlapState(State):
    """Output that still waits for the next step's part: `overlap` [B, steps, C]."""

    overlap: Tensor


def overlap_add(x: Tensor, hop: int, state: OverlapState | None, active: Tensor | None) -> Tensor:
    """Adds overlapping windows [B, T, window, C] up -> [B, T * hop, C].

    The first `hop` steps of a window are complete once it has come; the rest waits in the state.
    """
    if state is not None and (ops := cuda_kernels_for(x, state.overlap)):
        return ops.conv_transpose_output(x.contiguous(), state.overlap, None, active, hop)
    batch, steps, window, channels = x.shape
    columns = x.permute(0, 3, 2, 1).reshape(batch, channels * window, steps)
    length = (steps - 1) * hop + window
    y = F.fold(columns, (1, length), (1, window), stride=(1, hop))  # [B, C, 1, length]
    y = y[:, :, 0].transpose(1, 2)  # [B, length, C]
    if state is not None:
        y = torch.cat([y[:, : window - hop] + state.overlap, y[:, window - hop :]], dim=1)
        keep(state.overlap, y[:, steps * hop :], active)
    return y[:, : steps * hop]


class CausalConvTranspose1d(nn.Module):
    """Upsampling by `stride` that sees no future: [B, T, in] -> [B, T * stride, out]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        if kernel_size < stride:
            raise ValueError(f"kernel_size {kernel_size} must be at least stride {stride}")
        self.linear = nn.Linear(in_channels, kernel_size * out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.kernel_size, self.stride, self.out_channels = kernel_size, stride, out_channels

    def init_state(self, batch: int) -> OverlapState:
        """A fresh state for `batch` rows."""
        steps = self.kernel_size - self.stride
        return OverlapState(self.bias.new_zeros(batch, steps, self.out_channels))

    def forward(
        self, x: Tensor, state: OverlapState | None = None, active: Tensor | None = None
    ) -> Tensor:
        windows = self.linear(x).unflatten(2, (self.kernel_size, self.out_channels))
        return overlap_add(windows, self.stride, state, active) + self.bias
