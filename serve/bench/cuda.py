"""`python -m serve.bench.cuda`: what each CUDA kernel must move, and on a GPU how long it takes.

One call of each for a model 1,024 wide with 16 heads, a window of 250 that is full, 8 codebooks of
2,048 codes, bfloat16; the codec's with 64 channels. On paper are the bytes of global memory that it
cannot do without, at the 3.35 TB/s of an H100. Without a GPU that is all: "skipped: no GPU".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from model import ops
from model.cuda_ops import half_turns

DIM, HEADS, WINDOW, CODEBOOKS, CODES, CODE_DIM = 1024, 16, 250, 8, 2048, 256
STEPS, CHANNELS, HOP = 1920, 64, 4  # of the codec
HEAD_DIM, HALF = DIM // HEADS, torch.bfloat16
BYTES_PER_US = 3.35e6
CALLS, REPLAYS = 20, 30


@dataclass(frozen=True)
class Work:
    """One call of an operator, of so many rows: `numbers` of 2 bytes that are moved, `full` ones of
    4, `products` (multiply and add) and launches on paper; `arguments` need a GPU."""

    name: str
    numbers: int
    full: int
    products: int
    launches: int
    arguments: Callable[[], tuple[Any, ...]]


def works(n: int) -> Iterator[Work]:
    """What is timed of n rows."""
    row, seen, vectors = n * DIM, n * DIM * WINDOW, CODEBOOKS * CODES * CODE_DIM
    yield Work("residual_rms_norm", 4 * row + DIM, 0, 3 * row, 1, lambda: _norm(n))
    yield Work("rope_append", 5 * row, row, 4 * row, 1, lambda: _rope(n))
    launches = 1 if n * HEADS > 132 else 2
    yield Work("ring_attention", 2 * seen + row, row, 2 * seen, launches, lambda: _attention(n))
    yield Work("sample", 0, n * CODES, n * CODES, 1, lambda: _sample(n))
    yield Work("conv_input", 2 * n * CHANNELS * (STEPS + 9), 0, 0, 1, lambda: _conv(n))
    windows = n * CHANNELS * STEPS * 2
    yield Work("conv_transpose_output", windows + windows // 2, 0, 0, 1, lambda: _transpose(n))
    yield Work("rvq_encode", 2 * n * CODE_DIM, vectors, n * vectors, 9, lambda: _encode(n))
    yield Work("embedding_sum", 10 * row, 0, 9 * row, 1, lambda: _embed(n))


def main() -> None:
    """Prints a table."""
    has_gpu = torch.cuda.is_available()
    print(f"on {torch.cuda.get_device_name()}" if has_gpu else "times: skipped: no GPU")
    print("| operator | rows | MB | million products | launches | us at 3.35 TB/s | us |")
    print("|---|---|---|---|---|---|---|")
    todo = [(batch, work) for batch in (1, 16, 256) for work in works(batch)]
    for batch, work in tqdm(todo, disable=not has_gpu):
        us = f"{_timed_us(work):.1f}" if has_gpu else "-"
        moved, products = 2 * work.numbers + 4 * work.full, work.products / 1e6
        print(
            f"| `{work.name}` | {batch} | {moved / 1e6:.3f} | {products:.2f} | {work.launches} "
            f"| {moved / BYTES_PER_US:.2f} | {us} |"
        )


@torch.inference_mode()
def _timed_us(work: Work) -> float:
    """Of one call, out of a graph of many, so that launching them from Python does not count."""
    library = ops.library()
    if library is None:
        raise SystemExit("there are no kernels: make cuda")
    operator, arguments = getattr(library, work.name), work.arguments()
    operator(*arguments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            operator(*arguments)
    times_us = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times_us.append(1000 * begin.elapsed_time(end) / CALLS)
    return median(times_us)


def _norm(n: int) -> tuple[Any, ...]:
    return _half(n, DIM), _half(n, DIM), _half(DIM), 1e-5


def _ring(n: int) -> tuple[Any, ...]:
    """Keys and values, no scales, positions past the window, everybody's own and active."""
    keys, values = (_half(n, WINDOW, HEADS, HEAD_DIM) for _ in range(2))
    return keys, values, None, None, 1000 + _codes(n), None, None


def _rope(n: int) -> tuple[Any, ...]:
    turns = half_turns(HEAD_DIM, 10_000.0, torch.device("cuda"))
    return _half(n, 3 * HEADS, HEAD_DIM), *_ring(n), turns, HEADS, WINDOW, 0


def _attention(n: int) -> tuple[Any, ...]:
    return _full(n, HEADS, HEAD_DIM), _full(0), *_ring(n), WINDOW, 0, HALF


def _sample(n: int) -> tuple[Any, ...]:
    return _full(n, CODES), torch.rand(n, dtype=torch.float64, device="cuda"), 0.8, 250, 0.95


def _conv(n: int) -> tuple[Any, ...]:
    return _half(n, STEPS, CHANNELS), _half(n, 6, CHANNELS), None, None, True, "constant"


def _transpose(n: int) -> tuple[Any, ...]:
    windows = _half(n, STEPS // HOP, 2 * HOP, CHANNELS)
    return windows, _half(n, HOP, CHANNELS), None, None, HOP


def _encode(n: int) -> tuple[Any, ...]:
    books = _full(CODES, CODE_DIM), _full(CODEBOOKS - 1, CODES, CODE_DIM)
    return _half(n, 2 * CODE_DIM), *books, _full(CODEBOOKS, CODES)


def _embed(n: int) -> tuple[Any, ...]:
    return _codes(n, 9), [_half(CODES, DIM) for _ in range(9)]


def _full(*sizes: int) -> Tensor:
    return torch.randn(*sizes, device="cuda")


def _half(*sizes: int) -> Tensor:
    return _full(*sizes).to(HALF)


def _codes(*sizes: int) -> Tensor:
    return torch.randint(CODES, sizes, device="cuda")


if __name__ == "__main__":
    main()
