"""What operators with CUDA kernels are called with in tests: awkward shapes, idle rows, full rings.

Slots of a ring that must not be read hold NaN (as float8 and int8: their scales do).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from model.cuda_ops import half_turns

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_CPU = torch.device("cpu")
_TOLERANCE = {
    torch.float32: 2e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
    torch.float8_e4m3fn: 0.13,
    torch.int8: 1.0,
}

Case = tuple[Any, ...]


def cases(name: str) -> list[Case]:
    """Arguments of the operator: at float32, float16 and bfloat16 alike."""
    torch.manual_seed(0)
    make = {
        "residual_rms_norm": _norms,
        "rope_append": _ropes,
        "ring_attention": _attentions,
        "sample": _samples,
        "sample_seeded": _seeded_samples,
        "conv_input": _conv_inputs,
        "conv_transpose_output": _conv_transpose_outputs,
        "rvq_encode": _encodes,
        "embedding_sum": _embedding_sums,
    }[name]
    return list(make())


def copied(value: Any, device: str = "cpu") -> Any:
    """An argument of its own, on that device."""
    if isinstance(value, Tensor):
        return value.to(device, copy=True)
    return [tensor.to(device) for tensor in value] if isinstance(value, list) else value


def assert_same(ours: Any, reference: Any) -> None:
    """What a kernel gives or has written, and the reference. NaN is where nothing was written;
    numbers of 8 bits may be one apart."""
    if isinstance(ours, tuple | list):
        for pair in zip(ours, reference, strict=True):
            assert_same(*pair)
    elif isinstance(ours, Tensor):
        tolerance = _TOLERANCE.get(ours.dtype, 0.0)
        if ours.dtype == torch.float8_e4m3fn:
            ours, reference = ours.float(), reference.float()
        torch.testing.assert_close(
            ours.cpu(), reference, atol=tolerance, rtol=tolerance, equal_nan=True
        )


def _some(batch: int) -> Tensor | None:
    """Who is active: nobody in every third place; of a batch of two everybody."""
    return None if batch == 2 else torch.arange(batch) % 3 != 2


def _norms() -> Iterator[Case]:
    for dtype in FLOATS:
        for rows, dim in ((0, 8), (1, 64), (3, 130), (2, 1), (5, 1408)):
            x, update, weight = (
                torch.randn(*shape).to(dtype) for shape in ((rows, dim),) * 2 + ((dim,),)
            )
            yield x, update, weight, 1e-5
            yield x, None, weight, 1e-5


_RINGS = (  # heads, kv_heads, head_dim, window, pinned
    (2, 1, 8, 7, 3),
    (4, 4, 64, 70, 0),
    (8, 2, 64, 150, 20),
    (6, 2, 10, 5, 1),
    (3, 1, 128, 66, 2),
)


def _rings() -> Iterator[tuple[torch.dtype, tuple[int, ...], Case]]:
    """What both halves of attention take: keys to scales, position, held and active."""
    for dtype in FLOATS:
        for number, sizes in enumerate(_RINGS):
            for kv_dtype in (dtype, torch.int8, torch.float8_e4m3fn):
                batch, reach = (5, 1, 2, 0, 5)[number], sizes[3] + sizes[4]
                position = torch.tensor([0, reach - 1, 10 * reach + 3, 2, 3_000_000])[:batch]
                ring = _filled(batch + 1, reach, sizes[1], sizes[2], kv_dtype)
                held = torch.randperm(batch + 1)[:batch] if number % 2 else None
                yield dtype, sizes, (*ring, position, held, _some(batch))


def _filled(rows: int, reach: int, kv_heads: int, dim: int, dtype: torch.dtype) -> Case:
    keys, values = (torch.randn(rows, reach, kv_heads, dim) for _ in range(2))
    if dtype == torch.int8:
        scales = (torch.rand(rows, reach, kv_heads) / 50 for _ in range(2))
        return ((40 * keys).round().to(dtype), (40 * values).round().to(dtype), *scales)
    return keys.to(dtype), values.to(dtype), None, None


def _ropes() -> Iterator[Case]:
    for dtype, (heads, kv_heads, dim, window, pinned), ring in _rings():
        projected = torch.randn(len(ring[4]), heads + 2 * kv_heads, dim).to(dtype)
        turns = half_turns(dim, 10_000.0, _CPU)
        yield projected, *ring, turns, heads, window, pinned


def _attentions() -> Iterator[Case]:
    for dtype, (heads, _, dim, window, pinned), ring in _rings():
        keys, values, key_scales, value_scales, position, held, _ = ring
        for row, steps in enumerate(position.tolist()):
            unread = (row if held is None else int(held[row]), slice(steps + 1, None))
            for tensor in (keys, values) if key_scales is None else (key_scales, value_scales):
                if tensor.element_size() == 1:  # float8, whose NaN is all ones
                    tensor.view(torch.uint8)[unread] = 0x7F
                else:
                    tensor[unread] = torch.nan
        query = torch.randn(len(position), heads, dim)
        far = torch.randn(len(position), heads, dim) if pinned else torch.zeros(0)
        yield query, far, *ring, window, pinned, dtype


_SETTINGS = ((0.0, 0, 1.0), (0.3, 0, 1.0), (1.0, 3, 1.0), (1.5, 0, 0.7), (1.5, 9, 0.5))


def _logits(batch: int, vocabulary: int, dtype: torch.dtype, ties: bool) -> Tensor:
    if not ties:
        return (3 * torch.randn(batch, vocabulary)).to(dtype)
    logits = torch.randint(4, (batch, vocabulary)).to(dtype)
    logits[:, 5::7] = -torch.inf
    return logits


def _samples() -> Iterator[Case]:
    for ties in (False, True):
        for batch, vocabulary in ((0, 5), (1, 1), (40, 37), (5, 2100)):
            logits = _logits(batch, vocabulary, torch.float32, ties)
            uniform = torch.rand(batch, dtype=torch.float64)
            for settings in _SETTINGS:
                yield logits, uniform, *settings


def _seeded_samples() -> Iterator[Case]:
    for dtype in FLOATS:
        for batch, vocabulary in ((0, 5), (2, 1), (40, 37), (5, 2100)):
            logits = _logits(batch, vocabulary, dtype, ties=False)
            seed, draw = (torch.randint(-(2**62), 2**62, (batch,)) for _ in range(2))
            for settings in _SETTINGS:
                yield logits, seed, draw, 2**40 + 3, _some(batch), *settings


def _conv_inputs() -> Iterator[Case]:
    for dtype in FLOATS:
        for batch, steps, channels, past in (
            (0, 1, 4, 2),
            (1, 1, 5, 6),
            (5, 8, 64, 6),
            (2, 3, 16, 0),
        ):
            x, before = (torch.randn(batch, n, channels).to(dtype) for n in (steps, past))
            yield x, before, None, _some(batch), False, "constant"
            for pad_mode in ("constant", "replicate", "reflect"):
                started = torch.arange(batch) % 2 == 1
                yield x, before, started, _some(batch), True, pad_mode


def _conv_transpose_outputs() -> Iterator[Case]:
    for dtype in FLOATS:
        for batch, steps, hop, window, channels in (
            (0, 1, 2, 4, 3), (1, 1, 2, 4, 5), (5, 3, 4, 8, 64), (2, 2, 3, 3, 7), (3, 5, 2, 7, 16),
        ):  # fmt: skip
            windows, overlap, bias = (
                torch.randn(*shape).to(dtype)
                for shape in (
                    (batch, steps, window, channels), (batch, window - hop, channels), (channels,)
                )
            )  # fmt: skip
            yield windows, overlap, bias, _some(batch), hop
            yield windows, overlap, None, _some(batch), hop


def _encodes() -> Iterator[Case]:
    for batch, size, first_dim, dim, stages in (
        (0, 4, 2, 2, 1),
        (1, 37, 8, 6, 3),
        (6, 256, 0, 64, 7),
    ):
        semantic = torch.randn(size, first_dim) if first_dim else None
        shrinking = torch.linspace(1, 0.3, stages)[:, None, None]
        acoustic = torch.randn(stages, size, dim) * shrinking
        acoustic[:, -1] = acoustic[:, 1]  # a tie
        norms = acoustic.square().sum(-1)
        if semantic is not None:
            norms = torch.cat([semantic.square().sum(-1)[None], norms])
        for dtype in FLOATS:
            x = torch.randn(batch, first_dim + dim).to(dtype)
            x[:1, first_dim:] = acoustic[0, 1].to(dtype)
            yield x, semantic, acoustic, norms


def _embedding_sums() -> Iterator[Case]:
    for dtype in FLOATS:
        for batch, sizes, dim in (
            (0, [3], 4),
            (1, [9], 5),
            (5, [40, 7, 1], 130),
            (3, [50] * 17, 64),
        ):
            tables = [torch.randn(size, dim).to(dtype) for size in sizes]
            tokens = torch.stack([torch.randint(-1, size, (batch,)) for size in sizes], dim=1)
            yield tokens, tables
