"""What attention over a ring must do, in float64 and against the model's own code."""

import math
from typing import Any

import torch
from cuda_emulator import Kernels
from cuda_rings import LONG, TOLERANCES, Case, Ring, active_of, append, close, ring_of
from torch import Tensor

from model.attention import SlidingWindowAttention

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
    empty = torch.full_like(state.keys, math.nan)
    ring = Ring(empty, empty.clone(), None, None, torch.arange(3))
    for step in range(20):
        x, active = torch.randn(3, 1, 32), torch.tensor([True, step % 3 > 0, step > 8])
        case = replace_positions(case, state.position)
        expected = attention(x, state, active)
        projected = attention.input(x).view(3, -1, case.head_dim)
        queries = append(kernels, case, projected, ring, active)
        y = _attend(kernels, case, queries, ring, active, 1)
        ours = attention.output(y.view(3, 1, -1))
        close(ours[active], expected[active], 5e-6)
        for row, position in enumerate(state.position.tolist()):
            close(ring.keys[row, :position], state.keys[row, :position], 2e-6)


def replace_positions(case: Case, position: Tensor) -> Case:
    return case._replace(positions=tuple(position.tolist()))
