"""One row's state as bytes: whole, or what has come since it was last saved.

What attention remembers is most of it, and each step of it is written once: to save it again and
again costs what came in between.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.attention import AttentionState
from model.streaming import State


class Part(NamedTuple):
    """A tensor: the name of its type, as torch has it, and its bytes."""

    dtype: str
    data: bytes


class Saved(NamedTuple):
    """`parts` are the state's tensors, in their order; of attention those steps alone that came
    after the first `since` (each one's own; 0: all). `positions` are how many it has had."""

    parts: list[Part]
    since: list[int]
    positions: list[int]


def save(row: State, known: Sequence[int] = ()) -> Saved:
    """A state of one row (`State.row`); `known` are the `positions` of what was saved before."""
    attentions = [leaf for leaf in _leaves(row) if isinstance(leaf, AttentionState)]
    since = list(known) or [0] * len(attentions)
    parts = [_part(tensor) for tensor in _saved(row, since)]
    return Saved(parts, since, [int(attention.position) for attention in attentions])


def load(row: State, saved: Saved) -> None:
    """Into a fresh row, or into one that holds what was saved before. Numbers that were held more
    exactly than here, or less so (`model.ops.held_dtype`), are rounded.

    Raises ValueError where it is of another model.
    """
    attentions = [leaf for leaf in _leaves(row) if isinstance(leaf, AttentionState)]
    if not len(attentions) == len(saved.positions) == len(saved.since):
        raise ValueError(
            f"what was saved is of another model: it has {len(saved.positions)} attentions, "
            f"must be {len(attentions)}"
        )
    for attention, position in zip(attentions, saved.positions, strict=True):
        attention.position.fill_(position)
    found, expected = [_tensor(part) for part in saved.parts], [*_saved(row, saved.since)]
    if [*map(_about, found)] != [*map(_about, expected)]:
        has, must = (
            f"{sum(tensor.numel() for tensor in tensors)} numbers in {len(tensors)} parts"
            for tensors in (found, expected)
        )
        raise ValueError(f"what was saved is of another model: it has {has}, must have {must}")
    parts = iter(found)
    since = iter(saved.since)
    for leaf in _leaves(row):
        if isinstance(leaf, AttentionState):
            slots = leaf.slots_since(next(since))
            for held in (leaf.keys, leaf.values):
                held[0, slots] = next(parts).view(held[0, slots].shape).to(held)
        else:
            leaf.copy_(next(parts).view(leaf.shape))


def _saved(row: State, since: Sequence[int]) -> Iterator[Tensor]:
    steps = iter(since)
    for leaf in _leaves(row):
        if isinstance(leaf, AttentionState):
            slots = leaf.slots_since(next(steps, 0))
            yield from (leaf.keys[0, slots], leaf.values[0, slots])
        else:
            yield leaf


def _leaves(value: object) -> Iterator[Tensor | AttentionState]:
    if isinstance(value, Tensor | AttentionState):
        yield value
    elif isinstance(value, State):
        assert dataclasses.is_dataclass(value)
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _leaves(item)


def _about(tensor: Tensor) -> tuple[int, torch.dtype | None]:
    """What is the same, however exactly it is held."""
    return tensor.numel(), None if tensor.is_floating_point() else tensor.dtype


def _part(tensor: Tensor) -> Part:
    flat = tensor.cpu().contiguous().view(-1)
    return Part(str(tensor.dtype), flat.view(torch.uint8).numpy().tobytes())


def _tensor(part: Part) -> Tensor:
    dtype = getattr(torch, part.dtype.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"what was saved is of type {part.dtype!r}, which torch does not have")
    if not part.data:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(part.data), dtype=dtype)
