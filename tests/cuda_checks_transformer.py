"""What norms and rotary positions must do, against the model's own code."""

import math
from typing import Any

import torch
from cuda_emulator import DTYPES, Kernels
from cuda_rings import LONG, TOLERANCES, Case, Ring, active_of, append, close, ring_of
from torch import Tensor

from model.attention import rotate, slot_of, turn_of
from model.transformer import RMSNorm


def nan_like(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, math.nan)


def check_residual_rms_norm(kernels: Kernels) -> None:
    torch.manual_seed(0)
    for dtype, tolerance in TOLERANCES.items():
        for rows, dim in ((0, 8), (1, 8), (3, 1032), (2, 7), (2, 131)):
            sizes = torch.tensor([3.0, 1e-2, 1e-6])[:rows, None]  # the last: subnormal halves
            x, update = (torch.randn(2, rows, dim) * sizes).to(dtype)
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


def check_rope_append(kernels: Kernels) -> None:
    torch.manual_seed(0)
    for case in ROPE:
        batch, before, active = len(case.positions), ring_of(case), active_of(case)
        shape = (batch, case.heads + 2 * case.kv_heads, case.head_dim)
        projected = torch.randn(shape).to(case.dtype)
        projected[-1:, -1] = 0  # a value with nothing in it
        if case.kv_dtype == torch.float8_e4m3fn:
            projected[0] *= 200  # more than it can hold
        for _ in kernels.orders():
            ring = before.copy()
            queries = append(kernels, case, projected, ring, active)
            _check_append(case, projected.float(), before, ring, active, queries)
        for row in range(batch):
            if active is not None and not active[row]:
                continue
            again = before.copy()._replace(held=before.held[row : row + 1])
            alone = append(kernels, case.alone(row), projected[row : row + 1], again, None)
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
        if case.kv_dtype != torch.int8:  # what is not turned is only rounded
            rounded = heads[0, 0, -case.kv_heads :].clamp(-448, 448).to(case.kv_dtype)
            assert torch.equal(values, rounded.float())
    for old, new in zip(before, ring, strict=True):
        if old is not None and new is not None and old is not before.held:
            assert torch.equal(_bits(old[~written]), _bits(new[~written]))


def _check_stored(case: Case, stored: Tensor, expected: Tensor) -> None:
    if case.kv_dtype == torch.int8:
        most = expected.abs().amax(-1, keepdim=True)
        assert ((stored - expected).abs() <= most / 127 * 0.5001 + 1e-6).all()
        close(stored.abs().amax(-1, keepdim=True), most, 1e-5)
    elif case.kv_dtype == torch.float8_e4m3fn:
        close(stored, expected.clamp(-448, 448).to(torch.float8_e4m3fn), 0.07)
    else:
        close(stored, expected.to(case.kv_dtype), max(TOLERANCES[case.kv_dtype], 5e-6))
