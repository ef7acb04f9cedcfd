"""Causal self-attention over a sliding window, its past in a ring that the caller passes in.

Rotary positions as in Moshi (arXiv 2410.00037): neighbouring channels are the pairs, angles are
not rounded to the model's precision. Grouped queries as in arXiv 2305.13245.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.ops import held_dtype
from model.streaming import State


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """Sizes of one attention.

    A step sees the first `pinned` steps of its row and, of those after them, itself and the
    `window - 1` before it.
    """

    dim: int
    heads: int
    kv_heads: int
    window: int
    rope_period: float = 10_000.0
    pinned: int = 0

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
        assert self.pinned >= 0, f"pinned {self.pinned} must be at least 0"

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.heads

    @property
    def reach(self) -> int:
        """How many steps one can see; in a sequence no longer than this, all before it."""
        return self.pinned + self.window


@dataclasses.dataclass
class AttentionState(State):
    """The steps that each row can still see: `pinned` ones, then a ring of `window` slots.

    `keys` (rotated) and `values` [R, pinned + window, kv_heads, head_dim], of the weights' type or,
    to save memory, bfloat16; `position` int64 [B], the number of steps that a row has had. R is B,
    unless the state was gathered: then they are still everybody's, and `rows` int64 [B] says which
    of them are whose.
    """

    keys: Tensor
    values: Tensor
    position: Tensor
    pinned: int
    rows: Tensor | None = None

    def tensors(self) -> Iterator[Tensor]:
        """Those that are remembered."""
        yield from (self.keys, self.values, self.position)

    def row(self, index: int) -> Self:
        """One row as a state of its own, whose tensors are views."""
        one = slice(index, index + 1)
        if self.rows is None:
            keys, values, position = (tensor[one] for tensor in self.tensors())
            return type(self)(keys, values, position, self.pinned)
        return type(self)(self.keys, self.values, self.position[one], self.pinned, self.rows[one])

    def copied(self) -> list[Tensor]:
        """Keys and values lie where they are."""
        return [self.position]

    def _around(self, copies: Iterator[Tensor], rows: Tensor) -> Self:
        held = rows if self.rows is None else self.rows[rows]
        return type(self)(self.keys, self.values, next(copies), self.pinned, held)

    def slots_since(self, steps: int) -> Tensor:
        """Where those steps of a single row lie that came after its first `steps`, as far as they
        can still be seen: int64 [n]."""
        newest, window = int(self.position), self.keys.shape[1] - self.pinned
        pinned = torch.arange(min(steps, self.pinned), min(newest, self.pinned))
        recent = torch.arange(max(steps, self.pinned, newest - window), max(newest, self.pinned))
        return torch.cat([pinned, slot_of(recent, self.pinned, window)])


class Packing(NamedTuple):
    """Where the steps of packed sequences stand: `position` int64 [B, T] in each one's own count,
    `visible` bool [B, T, T] (row sees column), `spans` the row and steps of each."""

    position: Tensor
    visible: Tensor
    spans: tuple[tuple[int, slice], ...]


def packing_of(segment: Tensor, config: AttentionConfig) -> Packing:
    """Of sequences one behind the other, numbered by `segment` int64 [B, T] (0: padding).

    A step sees those of its own sequence as if that stood alone.
    """
    index = torch.arange(segment.shape[1], device=segment.device)  # [T]
    is_first = F.pad(segment[:, 1:] != segment[:, :-1], (1, 0), value=True)
    position = index - torch.where(is_first, index, 0).cummax(dim=1).values  # [B, T]
    same = segment[:, :, None] == segment[:, None]
    rows, starts = (values.tolist() for values in is_first.nonzero(as_tuple=True))
    ends = [start or segment.shape[1] for start in (*starts[1:], 0)]  # the next row begins at 0
    spans = ((row, slice(*span)) for row, *span in zip(rows, starts, ends, strict=True))
    return Packing(position, same & visible_from(position, position, config), tuple(spans))


class Turn(NamedTuple):
    """By what angles channel pairs are turned: float32 [B or 1, T, 1, D / 2]."""

    cosine: Tensor
    sine: Tensor


def turn_of(position: Tensor, head_dim: int, period: float) -> Turn:
    """That of positions [B or 1, T].

    Angles are float64 until their sine is taken: hours of frames keep their exact distances.
    """
    half = head_dim // 2
    exponent = torch.arange(half, dtype=torch.float64, device=position.device) / half
    angle = position[..., None, None] / period**exponent
    return Turn(angle.cos().float(), angle.sin().float())


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """Turns the channel pairs (2i, 2i + 1) of x [B, T, heads, D]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    turned = pairs * torch.complex(turn.cosine, turn.sine)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def visible_from(position: Tensor, seen: Tensor, config: AttentionConfig) -> Tensor:
    """Whether the step at position [B, T] sees that at `seen` [B, S] (negative: none) [B, T, S]."""
    age = position[:, :, None] - seen[:, None]
    is_near = (age < config.window) | (seen < config.pinned)[:, None]
    return (seen >= 0)[:, None] & (age >= 0) & is_near


def slot_of(position: Tensor, pinned: int, window: int) -> Tensor:
    """Where in the state a position [...] lies."""
    in_ring = pinned + (position - pinned) % window
    return torch.where(position < pinned, position, in_ring)


def _held(newest: Tensor, config: AttentionConfig) -> Tensor:
    """Which position each slot holds once `newest` [B, 1] is in: int64 [B, pinned + window].

    Negative where nothing has been written yet.
    """
    slot = torch.arange(config.reach, device=newest.device)
    in_ring = newest - (newest - slot) % config.window
    in_ring = torch.where(in_ring < config.pinned, -1, in_ring)
    return torch.where(slot < config.pinned, torch.where(slot <= newest, slot, -1), in_ring)


def _write(
    held: Tensor, new: Tensor, slot: Tensor, active: Tensor | None, rows: Tensor | None
) -> None:
    """Puts new [B, T, ...] into slots [B, T] of what the active rows hold [R, slots, ...]."""
    row = torch.arange(len(new), device=held.device)[:, None] if rows is None else rows[:, None]
    new = new.detach().to(held.dtype)
    if active is not None:
        new = torch.where(active[:, None, None, None], new, held[row, slot])
    held[row, slot] = new


def seen_at(position: Tensor, config: AttentionConfig) -> Tensor:
    """The positions [B, S] of what `remember` gives for a chunk at position [B, T]."""
    if position.shape[1] == 1:
        return _held(position, config)
    return torch.cat([_held(position[:, :1] - 1, config), position], dim=1)


def remember(
    key: Tensor,
    value: Tensor,
    position: Tensor,
    config: AttentionConfig,
    state: AttentionState,
    active: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Keys and values [B, S, kv_heads, head_dim] of the past and of this chunk.

    A single step takes the slot of the one step that it can no longer see, so what is held is what
    it attends to, as [R, S, ...]; a longer chunk is put behind a copy of it, as it will be held.
    """
    if key.shape[1] == 1:
        keys, values = state.keys, state.values
    else:
        held = slice(None) if state.rows is None else state.rows
        keys = torch.cat([state.keys[held], key.to(state.keys.dtype)], dim=1)  # [B, reach + T, ...]
        values = torch.cat([state.values[held], value.to(state.values.dtype)], dim=1)
    for part in _unique_slots(position, config):
        slot = slot_of(position[:, part], config.pinned, config.window)
        _write(state.keys, key[:, part], slot, active, state.rows)
        _write(state.values, value[:, part], slot, active, state.rows)
    state.position += key.shape[1] if active is None else key.shape[1] * active
    return keys.to(key.dtype), values.to(value.dtype)


def _unique_slots(position: Tensor, config: AttentionConfig) -> Iterator[slice]:
    """The chunk's steps in parts that write no slot twice; all but the last may be pinned ones."""
    for start in range(0, position.shape[1], config.window):
        yield slice(start, start + config.window)


class Far(NamedTuple):
    """Where pinned keys may be far away: `turn` is by as far as they ever seem to be, `bias`
    float32 [B, 1, T, S] the mask as what to add to scores; `is_pinned` float32 [B, 1, 1, first], 1
    or 0, tells the first keys that are."""

    turn: Turn
    bias: Tensor
    is_pinned: Tensor


class Places(NamedTuple):
    """Where the steps of a chunk stand and what they see, in every layer of a stack alike.

    `position` int64 [B or 1, T], `turn` is by it; `mask` bool [B, 1, T, S] of the keys that are
    seen; `spans` are those of packed sequences.
    """

    position: Tensor
    turn: Turn
    mask: Tensor
    far: Far | None
    spans: tuple[tuple[int, slice], ...]


class SlidingWindowAttention(nn.Module):
    """Causal self-attention over the last `window` steps: [B, T, dim] -> [B, T, dim], any T.

    Pinned steps are never further away than they are for the last step that sees all before it:
    hours into a call the distances are those of training.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        width = (config.heads + 2 * config.kv_heads) * config.head_dim  # queries, keys, values
        self.input = nn.Linear(config.dim, width, bias=False)
        self.output = nn.Linear(config.dim, config.dim, bias=False)

    def init_state(self, batch: int) -> AttentionState:
        """A fresh state for `batch` rows."""
        config, weight = self.config, self.input.weight
        shape = (batch, config.reach, config.kv_heads, config.head_dim)
        position = weight.new_zeros(batch, dtype=torch.int64)
        keys, values = (weight.new_zeros(shape, dtype=held_dtype(weight)) for _ in range(2))
        return AttentionState(keys, values, position, config.pinned)

    def places(self, x: Tensor, state: AttentionState | None, packing: Packing | None) -> Places:
        """Those of the steps of x [B, T, dim]; the same for layers of the same configuration."""
        config, steps = self.config, x.shape[1]
        position = torch.arange(steps, device=x.device)[None]  # [1, T]
        if packing is not None:
            position = packing.position
        if state is not None:
            position = position + state.position[:, None]  # [B, T]
        seen = position if state is None else seen_at(position, config)
        visible = packing.visible if packing else visible_from(position, seen, config)
        mask = visible[:, None]  # [B, 1, T, S]
        far = None
        if config.pinned and (state is not None or steps > config.reach):
            far = self._far(position, seen, mask)
        turn = turn_of(position, config.head_dim, config.rope_period)
        return Places(position, turn, mask, far, packing.spans if packing else ())

    def _far(self, position: Tensor, seen: Tensor, mask: Tensor) -> Far:
        config = self.config
        turn = turn_of(position.clamp(max=config.reach - 1), config.head_dim, config.rope_period)
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
        # A single step's keys are those held, of which the pinned ones come first.
        first = config.pinned if mask.shape[-1] == config.reach else mask.shape[-1]
        return Far(turn, bias, (seen[:, None, None, :first] < config.pinned).float())

    def forward(
        self,
        x: Tensor,
        state: AttentionState | None = None,
        active: Tensor | None = None,
        places: Places | None = None,
    ) -> Tensor:
        """`places` may be given where they are known: those of another layer of the stack."""
        config = self.config
        places = self.places(x, state, None) if places is None else places
        heads = self.input(x).unflatten(2, (-1, config.head_dim))  # [B, T, heads + 2 kv, head_dim]
        query, value = heads[:, :, : config.heads], heads[:, :, -config.kv_heads :]
        turned = rotate(heads[:, :, : -config.kv_heads], places.turn)  # queries and keys
        near, key = turned.split([config.heads, config.kv_heads], dim=2)
        if state is not None:
            key, value = remember(key, value, places.position, config, state, active)
        rows = state.rows if state is not None and x.shape[1] == 1 else None
        mask = places.mask
        if places.far is not None:
            mask = self._with_far(query, near, key, places.far, rows)
        if rows is not None:  # where they lie: a copy would take longer than to attend to them
            held = (places.position[:, 0] + 1).clamp(max=config.reach).tolist()
            parts = [
                self._attend(
                    near[n, None], key[row, None, :count], value[row, None, :count],
                    mask[n, None, ..., :count],
                )
                for n, (row, count) in enumerate(zip(rows.tolist(), held, strict=True))
            ]  # fmt: skip
            y = torch.cat(parts)
        elif not places.spans or x.device.type != "cpu":
            y = self._attend(near, key, value, mask)
        else:  # each sequence by itself: most of a packed square is empty, which a GPU minds less
            parts = [
                self._attend(
                    near[row, None, span], key[row, None, span], value[row, None, span],
                    mask[row, None, :, span, span],
                )
                for row, span in places.spans
            ]  # fmt: skip
            y = torch.cat(parts, dim=1).view(x.shape)
        return self.output(y)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """[B, T, heads, D] on [B, S, kv_heads, D] -> [B, T, heads * D]."""
        heads, kv_heads = self.config.heads, self.config.kv_heads
        key, value = key.transpose(1, 2), value.transpose(1, 2)
        if query.shape[1] > 1:
            query = query.transpose(1, 2)
            is_grouped = heads != kv_heads
            y = F.scaled_dot_product_attention(query, key, value, mask, enable_gqa=is_grouped)
            return y.transpose(1, 2).flatten(2)
        # A group's queries of one step as so many steps of one head: no key need be repeated.
        query = query.view(len(query), kv_heads, -1, self.config.head_dim)
        mask = mask.expand(-1, heads, -1, -1).reshape(len(mask), kv_heads, -1, mask.shape[-1])
        return F.scaled_dot_product_attention(query, key, value, mask).flatten(1)[:, None]

    def _with_far(
        self, query: Tensor, near: Tensor, key: Tensor, far: Far, rows: Tensor | None
    ) -> Tensor:
        """What to add to the scores [B, heads, T, S]: pinned keys as if they were near.

        The difference between a query turned by its position and by the furthest one allowed.
        """
        config, first = self.config, far.is_pinned.shape[-1]
        pinned = key[:, :first] if rows is None else key[rows, :first]
        moved = (rotate(query, far.turn) - near).unflatten(2, (config.kv_heads, -1))
        change = torch.einsum("btkgd,bskd->bkgts", moved, pinned).flatten(1, 2)
        shape = (len(pinned), config.heads, *far.bias.shape[2:])
        added = far.bias.to(key.dtype).expand(shape).clone(memory_format=torch.contiguous_format)
        added[..., :first] += change * config.head_dim**-0.5 * far.is_pinned
        return added
