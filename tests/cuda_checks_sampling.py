"""What drawing tokens must do, against model/sampling.py."""

import math

import torch
from cuda_emulator import DTYPES, Kernels
from scipy.stats import chisquare
from torch import Tensor

from model.ops import use_kernels
from model.sampling import SamplingConfig, sample, uniforms

CONFIGS = (
    SamplingConfig(),
    SamplingConfig(1.0),
    SamplingConfig(0.7, top_k=5),
    SamplingConfig(0.01, top_p=0.9),
    SamplingConfig(1.3, top_p=0.5),
    SamplingConfig(0.9, top_k=40, top_p=0.8),
    SamplingConfig(5.0, top_k=1),
    SamplingConfig(4.0, top_k=8, top_p=0.5),
    SamplingConfig(1.0, top_p=1e-9),
)


def draw(
    kernels: Kernels,
    logits: Tensor,
    config: SamplingConfig,
    uniform: Tensor | None = None,
    seed: Tensor | None = None,
    counter: Tensor | None = None,
    stream: int = 0,
    active: Tensor | None = None,
) -> Tensor:
    batch, vocabulary = logits.shape
    tokens = torch.full((batch,), -1)
    weights = torch.full((batch, vocabulary), -(2**62)) if config.temperature else None
    kernels(
        "sample", logits, uniform, seed, counter, stream, active, tokens, weights, batch,
        vocabulary, config.temperature, config.top_k, config.top_p, DTYPES[logits.dtype],
    )  # fmt: skip
    return tokens


def logits_of(vocabulary: int, rows: int) -> Tensor:
    """Random; the first row's are as likely as each other, the second's in groups, which
    makes ties; the third has -inf."""
    logits = torch.randn(rows, vocabulary) * 3
    logits[0] = -0.5
    logits[1] = torch.arange(vocabulary) % 7 / 2.0
    logits[2, 1::2] = -math.inf
    return logits


def check_sample(kernels: Kernels) -> None:
    """The same token as the reference's, given the same number."""
    torch.manual_seed(0)
    rows = torch.arange(6)
    active = torch.tensor([True, True, True, False, True, True])
    for number, config in enumerate(CONFIGS):
        for vocabulary in (1, 2, 45, 300):
            for dtype in DTYPES if vocabulary == 300 else [torch.float32]:
                logits = logits_of(vocabulary, 6).to(dtype)
                with use_kernels("off"):
                    uniform = uniforms(rows * 7, rows + vocabulary, number)
                    uniform[2] = 0
                    uniform[4] = 1 - 2.0**-53
                    expected = sample(logits, config, uniform)
                expected[~active] = 0
                for _ in kernels.orders():
                    tokens = draw(kernels, logits, config, uniform, active=active)
                    assert tokens.tolist() == expected.tolist(), (config, vocabulary, dtype)
                    if vocabulary != 45:  # more than a warp, and less than a block
                        break
    alone = draw(kernels, logits[4:], config, uniform[4:])
    assert alone.tolist() == expected[4:].tolist()
    assert draw(kernels, logits[:0], config, uniform[:0]).shape == (0,)


def check_likeliest(kernels: Kernels) -> None:
    """The first of equals, wherever they are; -0 is as large as 0."""
    for places in ((3, 40), (39, 40), (31, 290), (0, 299), (256, 257)):
        logits = torch.full((1, 300), -1.0)
        logits[0, places[0]], logits[0, places[1]] = -0.0, 0.0
        for _ in kernels.orders():
            assert draw(kernels, logits, SamplingConfig()).tolist() == [places[0]]


def philox(key: int, counter: int, stream: int) -> list[int]:
    """Philox4x32-10 as its paper writes it down: four numbers of 32 bits."""
    mask = 2**32 - 1
    c = [counter & mask, counter >> 32 & mask, stream & mask, stream >> 32]
    k = [key & mask, key >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [second >> 32 ^ c[1] ^ k[0], second & mask, first >> 32 ^ c[3] ^ k[1], first & mask]
        k = [k[0] + 0x9E3779B9 & mask, k[1] + 0xBB67AE85 & mask]
    return c


def check_philox(kernels: Kernels) -> None:
    """Of 4096 tokens as likely as each other, the one drawn says the first 12 bits."""
    ones = 2**64 - 1  # known answers of its authors' library
    assert philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(ones, ones, ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    seed = torch.tensor([0, 0, 0, 1, 2**40, -1])
    counter = torch.tensor([0, 1, 2**33, 1, 5, -1])
    logits = torch.zeros(len(seed), 4096)
    for stream in (0, 3, 2**40 + 3):
        tokens = draw(kernels, logits, SamplingConfig(1.0), None, seed, counter, stream)
        expected = [
            philox(key % 2**64, count % 2**64, stream)[0] >> 20
            for key, count in zip(seed.tolist(), counter.tolist(), strict=True)
        ]
        assert tokens.tolist() == expected


def check_distribution(kernels: Kernels) -> None:
    """One session's draws, one after the other, are as likely as their logits say."""
    draws, vocabulary = 400, 9
    logits = torch.linspace(-2, 1, vocabulary)
    for config, kept in (
        (SamplingConfig(1.0), slice(0, None)),
        (SamplingConfig(1.0, top_k=4), slice(5, None)),
        (SamplingConfig(1.0, top_p=0.75), slice(5, None)),  # 4 reach 0.80, 3 no more than 0.70
    ):
        tokens = draw(
            kernels, logits.expand(draws, -1).contiguous(), config, None,
            torch.full((draws,), 12345), torch.arange(draws),
        )  # fmt: skip
        expected = logits[kept].double().softmax(-1) * draws
        counts = tokens.bincount(minlength=vocabulary)
        assert counts.sum() == counts[kept].sum(), "drawn from what is out"
        assert chisquare(counts[kept].double(), expected).pvalue > 1e-3
