"""What the kernels of a transformer's step must do, against the model's own code."""

import math
from typing import Any, NamedTuple

import torch
from cuda_emulator import DTYPES, KV_DTYPES, Kernels
from torch import Tensor

from model.attention import AttentionConfig, SlidingWindowAttention, rotate, slot_of, turn_of
from model.transformer import RMSNorm

# How far results may be from the reference's, relative: its last place, more or less.
TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LONG = 3 * 10**9 + 7  # frames: neither an int32 nor a float32 holds it


def close(ours: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours.float(), expected.float(), rtol=tolerance, atol=tolerance)


def nan_like(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, math.nan)


def check_residual_rms_norm(kernels: Kernels) -> None:
    torch.manual_seed(0)
    for dtype, tolerance in TOLERANCES.items():
        for rows, dim in ((0, 8), (1, 8), (3, 528), (2, 1000), (2, 7)):
            x, update = torch.randn(2, rows, dim).mul(torch.tensor([3.0, 1e-2, 1])[:rows, None]).to(dtype)
            norm = RMSNorm(dim, 1e-5).to(dtype)
            torch.nn.init.normal_(norm.weight)
            weight = norm.weight.detach()
            for added in (update, None):
                for _ in kernels.orders():
                    total, normed = nan_like(x), nan_like(x)
                    arguments = (added, weight, total, normed, rows, dim, 1e-5, DTYPES[dtype])
                    kernels("residual_rms_norm", x, *arguments)
                    expected = x if added is None else x + added
                    assert added is None or torch.equal(total, expected)
                    close(normed, norm(expected).detach(), tolerance)
            if rows:
                alone, place = nan_like(x[-1]), x[-1].clone()
                one = (update[-1], weight, place, alone, 1, dim, 1e-5, DTYPES[dtype])
                kernels("residual_rms_norm", place, *one)  # the sum goes where x was
                kernels("residual_rms_norm", x, update, weight, total, normed, rows, dim, 1e-5,
                        DTYPES[dtype])  # fmt: skip
                assert torch.equal(alone, normed[-1])
                assert torch.equal(place, total[-1])


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


ROPE = (
    Case(2, 1, 8, 5, 0, (0, 3, 4, 5, 12, LONG)),
    Case(3, 3, 10, 4, 3, (0, 9, 2, 3, 6, 7, 11, LONG)),
    Case(4, 2, 64, 6, 2, (7, 1), torch.float16, torch.float16),
    Case(2, 2, 66, 6, 2, (1,), torch.bfloat16, torch.bfloat16),
    Case(4, 1, 8, 6, 1, (6, 7, 0), torch.float32, torch.int8),
    Case(4, 2, 128, 6, 1, (1, 7, 15), torch.bfloat16, torch.int8),
    Case(4, 2, 16, 6, 1, (1, 7, 15), torch.float16, torch.float8_e4m3fn),
    Case(2, 1, 8, 5, 2, ()),
)


def _append(kernels: Kernels, case: Case, projected: Tensor, ring: Ring, active: Any) -> Any:
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


def check_rope_append(kernels: Kernels) -> None:
    torch.manual_seed(0)
    for case in ROPE:
        batch, before, active = len(case.positions), ring_of(case), active_of(case)
        shape = (batch, case.heads + 2 * case.kv_heads, case.head_dim)
        projected = torch.randn(shape).to(case.dtype)
        for _ in kernels.orders():
            ring = Ring(*(each if each is None else each.clone() for each in before))
            queries = _append(kernels, case, projected, ring, active)
            _check_append(case, projected.float(), before, ring, active, queries)
        for row in range(batch):
            if active is not None and not active[row]:
                continue
            again = Ring(*(each if each is None else each.clone() for each in before))
            again = again._replace(held=before.held[row : row + 1])
            alone = _append(kernels, case.alone(row), projected[row : row + 1], again, None)
            for one, all_rows in zip(alone, queries, strict=True):
                assert torch.equal(one[0], all_rows[row])
            held = before.held[row]
            assert torch.equal(_bits(again.keys[held]), _bits(ring.keys[held]))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def _check_append(
    case: Case, projected: Tensor, before: Ring, ring: Ring, active: Any, queries: list[Tensor]
) -> None:
    config, position = case.config, torch.tensor(case.positions, dtype=torch.int64)[:, None]
    written = torch.zeros(ring.keys.shape[:2], dtype=torch.bool)
    turn = turn_of(position, case.head_dim, config.rope_period)
    far = turn_of(position.clamp(max=config.reach - 1), case.head_dim, config.rope_period)
    for row, held in enumerate(ring.held):
        if active is not None and not active[row]:
            assert all((query[row] == 0).all() for query in queries)
            continue
        heads = projected[row, None, None]  # [1, 1, heads + 2 * kv_heads, head_dim]
        one, one_far = (type(turn)(*(part[row, None] for part in each)) for each in (turn, far))
        near = rotate(heads[:, :, : -case.kv_heads], one)[0, 0]
        close(queries[0][row], near[: case.heads], 5e-6)  # float64 has no more at LONG
        if case.pinned:
            expected = rotate(heads[:, :, : case.heads], one_far)[0, 0]
            close(queries[1][row], expected, 5e-6)
        slot = int(slot_of(position[row], case.pinned, case.window))
        written[held, slot] = True
        keys, values = (each[held, slot] for each in ring.read())
        _check_stored(case, keys, near[case.heads :])
        _check_stored(case, values, heads[0, 0, -case.kv_heads :])
        if case.kv_dtype == case.dtype:  # what is not turned comes through as it was
            assert torch.equal(values, heads[0, 0, -case.kv_heads :])
    for old, new in zip(before, ring, strict=True):
        if old is not None and new is not None and old is not before.held:
            assert torch.equal(_bits(old[~written]), _bits(new[~written]))


def _check_stored(case: Case, stored: Tensor, expected: Tensor) -> None:
    if case.kv_dtype == torch.int8:
        most = expected.abs().amax(-1, keepdim=True)
        assert ((stored - expected).abs() <= most / 127 * 0.5001 + 1e-6).all()
        close(stored.abs().amax(-1, keepdim=True), most, 1e-5)
    elif case.kv_dtype == torch.float8_e4m3fn:
        close(stored, expected.to(torch.float8_e4m3fn), 0.07)
    else:
        close(stored, expected.to(case.kv_dtype), max(TOLERANCES[case.kv_dtype], 5e-6))


PLACES = (0, 9, 1, 62, 63, 64, 65, 149, 150, LONG)
ATTENTION = (
    Case(4, 4, 8, 140, 10, PLACES),
    Case(8, 2, 16, 130, 0, (5, 3, 129, 130, LONG)),
    Case(6, 3, 6, 5, 3, (0, 1, 2, 3, 6, 7, 8, 9)),
    Case(4, 2, 64, 60, 70, (69, 2, 70, 129, LONG), torch.float16, torch.float16),
    Case(3, 1, 10, 70, 2, (3, 2, LONG), torch.bfloat16, torch.bfloat16),
    Case(4, 1, 128, 30, 2, (40, 2, 7), torch.float16, torch.int8),
    Case(2, 2, 12, 80, 66, (90, 2, 7), torch.bfloat16, torch.int8),
    Case(2, 1, 24, 80, 3, (200, 2, 7), torch.bfloat16, torch.float8_e4m3fn),
    Case(4, 1, 128, 9, 1, (12,)),
    Case(2, 2, 256, 9, 1, (4,), torch.float32, torch.float16),
    Case(2, 1, 8, 5, 2, ()),
)


def _attend(
    kernels: Kernels, case: Case, queries: list[Tensor], ring: Ring, active: Any, splits: int
) -> Tensor:
    position = torch.tensor(case.positions, dtype=torch.int64)
    batch, heads, _, head_dim, window, pinned = case.sizes
    size = kernels("ring_attention_workspace", batch, heads, head_dim, window, pinned)
    workspace = torch.full((size,), math.nan) if splits > 1 else None
    y = torch.full((batch, heads, head_dim), math.nan, dtype=case.dtype)
    kernels(
        "ring_attention", queries[0], queries[1] if pinned else None, ring.keys, ring.values,
        ring.key_scales, ring.value_scales, position, ring.held, active, y, workspace,
        *case.sizes, splits, *case.kinds,
    )  # fmt: skip
    return y


def check_ring_attention(kernels: Kernels) -> None:
    torch.manual_seed(0)
    for case in ATTENTION:
        batch, ring, active = len(case.positions), ring_of(case), active_of(case)
        queries = list(torch.randn(2, batch, case.heads, case.head_dim))
        expected = _attended(case, queries, ring)
        parts = -(-case.config.reach // 64)
        for seed in kernels.orders():
            y = _attend(kernels, case, queries, ring, active, 1)
            tolerance = max(TOLERANCES[case.dtype], 5e-6)
            for row in range(batch):
                is_active = active is None or bool(active[row])
                close(y[row], expected[row] if is_active else expected[row] * 0, tolerance)
            for splits in range(2, parts + 1) if seed < 2 else ():
                assert torch.equal(_attend(kernels, case, queries, ring, active, splits), y)
        for row in (0, batch - 1) if batch else ():
            one, alone = [query[row, None].contiguous() for query in queries], case.alone(row)
            held = ring._replace(held=ring.held[row : row + 1])
            assert torch.equal(_attend(kernels, alone, one, held, None, 1)[0], y[row])


def _attended(case: Case, queries: list[Tensor], ring: Ring) -> Tensor:
    """In float64: [B, heads, head_dim]; of an idle row as if it were active."""
    near, far = (query.double().unflatten(1, (case.kv_heads, -1)) for query in queries)
    outputs = []
    for row, position in enumerate(case.positions):
        count = min(position + 1, case.config.reach)
        keys, values = (each[ring.held[row], :count].double() for each in ring.read())
        pinned = torch.einsum("kgd,skd->kgs", far[row], keys[: case.pinned])
        others = torch.einsum("kgd,skd->kgs", near[row], keys[case.pinned :])
        weights = torch.cat([pinned, others], -1).mul(case.head_dim**-0.5).softmax(-1)
        outputs.append(torch.einsum("kgs,skd->kgd", weights, values).flatten(0, 1))
    return torch.stack(outputs) if outputs else torch.zeros(0, case.heads, case.head_dim)


def check_model_attention(kernels: Kernels) -> None:
    """A row's call as SlidingWindowAttention has it, steps on end, around the ring."""
    torch.manual_seed(0)
    case = Case(4, 2, 8, 5, 2, (0, 0, 0))
    attention = SlidingWindowAttention(case.config).requires_grad_(False)
    state = attention.init_state(3)
    ring = Ring(
        *(torch.full_like(state.keys, math.nan) for _ in range(2)), None, None, torch.arange(3)
    )
    for step in range(20):
        x, active = torch.randn(3, 1, 32), torch.tensor([True, step % 3 > 0, step > 8])
        case = replace_positions(case, state.position)
        expected = attention(x, state, active)
        projected = attention.input(x).view(3, -1, case.head_dim)
        queries = _append(kernels, case, projected, ring, active)
        y = _attend(kernels, case, queries, ring, active, 1)
        ours = attention.output(y.view(3, 1, -1))
        close(ours[active], expected[active], 5e-6)
        for row, position in enumerate(state.position.tolist()):
            close(ring.keys[row, :position], state.keys[row, :position], 2e-6)


def replace_positions(case: Case, position: Tensor) -> Case:
    return case._replace(positions=tuple(position.tolist()))
