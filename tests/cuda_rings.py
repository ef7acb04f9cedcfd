"""Rings of keys and values for the checks of kernels, and what writes into them."""

import math
from typing import Any, NamedTuple

import torch
from cuda_emulator import DTYPES, KV_DTYPES, Kernels
from torch import Tensor

from model.attention import AttentionConfig

# How far results may be from the reference's, relative: its last place, more or less.
TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LONG = 3 * 10**9 + 7  # frames: neither an int32 nor a float32 holds it


def close(ours: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours.float(), expected.float(), rtol=tolerance, atol=tolerance)


class Case(NamedTuple):
    """An attention's sizes and types, and positions of rows, the second of which is idle."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int
    pinned: int
    positions: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    kv_dtype: torch.dtype = torch.float32

    @property
    def config(self) -> AttentionConfig:
        dim = self.heads * self.head_dim
        return AttentionConfig(dim, self.heads, self.kv_heads, self.window, pinned=self.pinned)

    @property
    def sizes(self) -> tuple[int, ...]:
        sizes = (len(self.positions), self.heads, self.kv_heads, self.head_dim)
        return (*sizes, self.window, self.pinned)

    @property
    def kinds(self) -> tuple[int, int]:
        return DTYPES[self.dtype], KV_DTYPES[self.kv_dtype]

    def alone(self, row: int) -> "Case":
        return self._replace(positions=self.positions[row : row + 1])


class Ring(NamedTuple):
    """Keys and values of more rows than there are, and whose they are."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None
    value_scales: Tensor | None
    held: Tensor

    def copy(self) -> "Ring":
        key_scales, value_scales = (each if each is None else each.clone() for each in self[2:4])
        return Ring(self.keys.clone(), self.values.clone(), key_scales, value_scales, self.held)

    def read(self) -> tuple[Tensor, Tensor]:
        """As float32 [R, reach, kv_heads, head_dim]."""
        if self.key_scales is None or self.value_scales is None:
            return self.keys.float(), self.values.float()
        scales = (self.key_scales[..., None], self.value_scales[..., None])
        return self.keys * scales[0], self.values * scales[1]


def ring_of(case: Case) -> Ring:
    """Random; NaN in what no row has written yet."""
    batch, rows = len(case.positions), len(case.positions) + 2
    shape = (rows, case.config.reach, case.kv_heads, case.head_dim)
    held = torch.randperm(rows)[:batch]
    keys, values = torch.randn(2, *shape).mul(2)
    key_scales = value_scales = None
    unwritten = torch.ones(shape[:2], dtype=torch.bool)
    for row, position in zip(held, case.positions, strict=True):
        unwritten[row, : position + 1] = False
    if case.kv_dtype == torch.int8:
        keys, values = torch.randint(-127, 128, (2, *shape), dtype=torch.int8)
        key_scales, value_scales = torch.rand(2, *shape[:3]) / 60
        key_scales[unwritten], value_scales[unwritten] = math.nan, math.nan
    else:
        keys[unwritten], values[unwritten] = math.nan, math.nan
        keys, values = keys.to(case.kv_dtype), values.to(case.kv_dtype)
    return Ring(keys.contiguous(), values.contiguous(), key_scales, value_scales, held)


def active_of(case: Case) -> Tensor | None:
    if len(case.positions) < 2:
        return None
    active = torch.ones(len(case.positions), dtype=torch.bool)
    active[1] = False
    return active


def half_turns(case: Case) -> Tensor:
    half = case.head_dim // 2
    exponent = torch.arange(half, dtype=torch.float64) / half
    return 1 / case.config.rope_period**exponent / math.pi


def append(kernels: Kernels, case: Case, projected: Tensor, ring: Ring, active: Any) -> Any:
    """-> queries by their positions and by the furthest one allowed; writes the ring."""
    batch = len(case.positions)
    shape = (batch, case.heads, case.head_dim)
    queries = [torch.full(shape, math.nan) for _ in range(2 if case.pinned else 1)]
    position = torch.tensor(case.positions, dtype=torch.int64)
    kernels(
        "rope_append", projected, position, ring.held, active, half_turns(case), queries[0],
        queries[1] if case.pinned else None, ring.keys, ring.values, ring.key_scales,
        ring.value_scales, *case.sizes, *case.kinds,
    )  # fmt: skip
    return queries
