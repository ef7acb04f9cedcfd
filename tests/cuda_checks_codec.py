"""What the kernels of a codec's step and of embeddings must do, against the model's own code."""

import math
from typing import Any

import torch
from cuda_emulator import DTYPES, Kernels
from torch import Tensor, nn
from torch.nn import functional as F

from model.duplex import _embed_or_nothing
from model.quantizer import SplitQuantizer, nearest
from model.seanet_streaming import StreamedConv, StreamedConvTranspose, first_past
from model.streaming import PastState, keep, with_past

TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
PAD_MODES = ("constant", "replicate", "reflect")


def conv_input(
    kernels: Kernels, x: Tensor, past: Tensor, started: Tensor | None, active: Tensor | None,
    activation: int, pad_mode: int,
) -> Tensor:  # fmt: skip
    (batch, steps, channels), past_steps = x.shape, past.shape[1]
    joined = x.new_full((batch, past_steps + steps, channels), math.nan)
    kernels(
        "conv_input", x, past, started, active, joined, batch, steps, channels, past_steps,
        activation, pad_mode, DTYPES[x.dtype],
    )  # fmt: skip
    return joined


def check_conv_input(kernels: Kernels) -> None:
    """Chunks of a stream, in which rows start late and pause."""
    torch.manual_seed(0)
    for dtype in DTYPES:
        for batch, channels, past_steps in ((0, 3, 2), (1, 1, 6), (3, 16, 3), (4, 5, 4), (2, 8, 0)):
            for pad_mode in range(3):
                for _ in kernels.orders():
                    _check_stream(kernels, dtype, (batch, channels, past_steps), pad_mode)


def _check_stream(
    kernels: Kernels, dtype: torch.dtype, sizes: tuple[int, int, int], pad_mode: int
) -> None:
    batch, channels, past_steps = sizes
    past = torch.zeros(batch, past_steps, channels, dtype=dtype)
    started = torch.zeros(batch, dtype=torch.bool)
    expected_past, expected_started = PastState(past.clone()), started.clone()
    for number, steps in enumerate((1, 5, 2, 70)):
        x = torch.randn(batch, steps, channels).to(dtype)
        active = torch.arange(batch) % 3 != number if number % 2 == 0 else None
        activation = number % 2
        is_first = ~expected_started & (torch.tensor(True) if active is None else active)
        chunk = F.elu(x) if activation else x
        keep(expected_past.past, first_past(chunk, past_steps, PAD_MODES[pad_mode]), is_first)
        expected_started |= is_first
        expected = with_past(chunk, past_steps, expected_past, active)
        if active is not None:
            expected = expected * active[:, None, None]
        joined = conv_input(kernels, x, past, started, active, activation, pad_mode)
        torch.testing.assert_close(joined, expected, rtol=TOLERANCES[dtype], atol=1e-6)
        torch.testing.assert_close(
            past, expected_past.past, rtol=TOLERANCES[dtype], atol=1e-6, equal_nan=False
        )
        assert started.tolist() == expected_started.tolist()
        if number == 3 and batch:
            _check_row_alone(kernels, x, joined, started, expected_past.past)


def _check_row_alone(kernels: Kernels, x: Tensor, joined: Tensor, started: Any, past: Any) -> None:
    before = joined[-1:, : past.shape[1]].clone()  # what it had before this chunk
    alone = conv_input(kernels, x[-1:], before, started[-1:].clone(), None, 1, 0)
    assert torch.equal(alone, joined[-1:])


def check_conv(kernels: Kernels) -> None:
    """A convolution on it is the model's own."""
    torch.manual_seed(0)
    for kernel, stride, dilation in ((7, 1, 1), (3, 1, 2), (4, 2, 1), (2, 2, 1)):
        conv = nn.Conv1d(6, 4, kernel, stride, dilation=dilation).requires_grad_(False)
        module = StreamedConv(conv, "reflect")
        state = module.init_state(3)
        past, started = state.past.clone(), state.started.clone()
        for active in (torch.tensor([True, False, True]), None, torch.tensor([False, True, True])):
            x = torch.randn(3, 4, 6)
            expected = module(F.elu(x), state, active)
            joined = conv_input(kernels, x, past, started, active, 1, 2)
            y = conv(joined.transpose(1, 2)).transpose(1, 2)
            rows = slice(None) if active is None else active
            torch.testing.assert_close(y[rows], expected[rows])
            torch.testing.assert_close(past, state.past)


def check_conv_transpose_output(kernels: Kernels) -> None:
    torch.manual_seed(0)
    for dtype in DTYPES:
        for channels, kernel, hop in ((3, 4, 2), (8, 5, 2), (16, 3, 3), (1, 9, 2), (8, 8, 8)):
            conv = nn.ConvTranspose1d(5, channels, kernel, hop).requires_grad_(False)
            for bias in (conv.bias, None):
                conv.bias = bias
                module, batch = StreamedConvTranspose(conv), 3
                state = module.init_state(batch)
                overlap = state.overlap.to(dtype)
                for number, steps in enumerate((1, 4, 1, 70)):
                    active = torch.arange(batch) != number if number < 3 else None
                    windows = _windows(conv, torch.randn(batch, steps, 5), dtype)
                    _check_windows(kernels, module, windows, state, overlap, active)


def _windows(conv: nn.ConvTranspose1d, x: Tensor, dtype: torch.dtype) -> Tensor:
    windows = F.conv_transpose1d(x.flatten(0, 1)[..., None], conv.weight, stride=conv.stride)
    return windows.unflatten(0, x.shape[:2]).transpose(2, 3).contiguous().to(dtype)


def _check_windows(
    kernels: Kernels, module: StreamedConvTranspose, windows: Tensor, state: Any, overlap: Tensor,
    active: Tensor | None,
) -> None:  # fmt: skip
    from model.streaming import overlap_add

    (batch, steps, window, channels), dtype = windows.shape, windows.dtype
    hop, bias = module.conv.stride[0], module.conv.bias
    given = bias if bias is None else bias.to(dtype)
    before = overlap.clone()
    expected = overlap_add(windows.float(), hop, state, active)
    expected = expected if given is None else expected + given.float()

    def run(windows: Tensor, overlap: Tensor, active: Tensor | None) -> Tensor:
        y = windows.new_full((len(windows), steps * hop, channels), math.nan)
        kernels(
            "conv_transpose_output", windows, overlap, given, active, y, len(windows), steps, hop,
            window, channels, DTYPES[dtype],
        )  # fmt: skip
        return y

    for _ in kernels.orders():
        overlap.copy_(before)
        y = run(windows, overlap, active)
        atol = 2 * TOLERANCES[dtype]
        for row in range(batch):
            is_active = active is None or bool(active[row])
            wanted = expected[row] if is_active else expected[row] * 0
            torch.testing.assert_close(y[row].float(), wanted, rtol=TOLERANCES[dtype], atol=atol)
        torch.testing.assert_close(
            overlap.float(), state.overlap, rtol=TOLERANCES[dtype], atol=atol
        )
    last = before[-1:].clone()
    if active is None or active[-1]:
        assert torch.equal(run(windows[-1:], last, None)[0], y[-1])
        assert torch.equal(last[0], overlap[-1])
    run(windows[:0], overlap[:0], None)


def rvq_encode(
    kernels: Kernels, latent: Tensor, semantic: Tensor | None, acoustic: Tensor
) -> Tensor:
    semantic_dim, squares = latent.shape[1] - acoustic.shape[2], acoustic.square().sum(2)
    if semantic is not None:
        squares = torch.cat([semantic.square().sum(1)[None], squares])
    codes = torch.full((len(latent), len(squares)), -7)
    kernels(
        "rvq_encode", latent, semantic, acoustic, squares, codes, len(latent), semantic_dim,
        acoustic.shape[2], squares.shape[1], len(squares), DTYPES[latent.dtype],
    )  # fmt: skip
    return codes


def check_rvq_encode(kernels: Kernels) -> None:
    torch.manual_seed(0)
    for dtype, semantic_dim, acoustic_dim, size, count, batch in (
        (torch.float32, 8, 136, 150, 4, 5), (torch.float32, 5, 7, 64, 3, 1),
        (torch.float16, 0, 12, 65, 3, 6), (torch.bfloat16, 3, 4, 7, 2, 4),
        (torch.float32, 4, 0, 9, 1, 2), (torch.float32, 4, 4, 9, 3, 0),
    ):  # fmt: skip
        quantizer = SplitQuantizer(semantic_dim, acoustic_dim, size, max(count, 2))
        semantic, *chain = quantizer.codebooks()
        acoustic = torch.stack(chain)[: count if semantic_dim == 0 else count - 1].contiguous()
        if semantic_dim == 0:
            acoustic = torch.randn(count, size, acoustic_dim)
        for is_tied in (False, True):
            latent = torch.randn(batch, semantic_dim + acoustic_dim) * 2
            books = [semantic, acoustic]
            if is_tied:  # whole numbers, so that products are exact; one vector is there four times
                latent = latent.round()
                books = [book.sign() * (1 + torch.arange(size)[:, None] % 3) for book in books]
                for place in {9 % size, size // 2, size - 1} - {0}:
                    for book in books:
                        book[..., place, :] = book[..., 1, :]
                latent[:2] = torch.cat([books[0][1], books[1][:1, 1].flatten()])
            latent = latent.to(dtype)
            expected = _codes(latent, books[0] if semantic_dim else None, books[1])
            for _ in kernels.orders():
                codes = rvq_encode(kernels, latent, books[0] if semantic_dim else None, books[1])
                assert codes.tolist() == expected.tolist()
            if batch:
                one = rvq_encode(kernels, latent[-1:], books[0] if semantic_dim else None, books[1])
                assert one.tolist() == expected[-1:].tolist()
                books = [book * math.nan for book in books]
                lost = rvq_encode(kernels, latent, books[0] if semantic_dim else None, books[1])
                assert ((lost >= 0) & (lost < size)).all(), "what is not a number has a code too"


def _codes(latent: Tensor, semantic: Tensor | None, acoustic: Tensor) -> Tensor:
    """By SplitQuantizer where there is a semantic codebook."""
    if semantic is not None and len(acoustic):
        count, size, dim = acoustic.shape
        quantizer = SplitQuantizer(semantic.shape[1], dim, size, count + 1)
        quantizer.semantic_codebook, quantizer.acoustic_codebooks = semantic, acoustic
        return quantizer(latent).codes
    left, codes = latent.float(), []
    for book in acoustic if semantic is None else [semantic]:
        codes.append(nearest(left, book))
        left = left - book[codes[-1]]
    return torch.stack(codes, -1)


def check_embedding_sum(kernels: Kernels) -> None:
    torch.manual_seed(0)
    for dtype, tolerance in TOLERANCES.items():
        for batch, sizes, dim in (
            (0, [3], 4),
            (1, [5, 9, 2], 8),
            (6, [7] * 17, 1032),
            (3, [4, 6], 5),
        ):
            tables = [nn.Embedding(size, dim).to(dtype).requires_grad_(False) for size in sizes]
            tokens = torch.stack([torch.randint(-1, size, (batch,)) for size in sizes], 1)
            tokens[:1] = -1 if batch > 3 else torch.tensor(sizes) - 1
            terms = [
                _embed_or_nothing(table.float(), token)
                for table, token in zip(tables, tokens.unbind(1), strict=True)
            ]
            expected = torch.stack(terms).sum(0)
            weights = [table.weight.detach().to(dtype) for table in tables]
            for _ in kernels.orders():
                y = torch.full((batch, dim), math.nan, dtype=dtype)
                kernels("embedding_sum", tokens, weights, y, batch, len(sizes), dim, DTYPES[dtype])
                torch.testing.assert_close(y.float(), expected, rtol=tolerance, atol=4e-6)
            alone = torch.full((dim,), math.nan, dtype=dtype)
            if batch:
                last = (tokens[-1], weights, alone, 1, len(sizes), dim, DTYPES[dtype])
                kernels("embedding_sum", *last)
                assert torch.equal(alone, y[-1])
