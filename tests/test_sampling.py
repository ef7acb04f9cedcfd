"""Drawing tokens: the distribution that was asked for, and no row that depends on another."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model.sampling import SamplingConfig, sample, uniforms

GREEDY = SamplingConfig()


def _grid(count: int) -> Tensor:
    """Numbers that fill [0, 1) evenly, so that shares come out exact to 1 / count."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def _shares(logits: Tensor, config: SamplingConfig, count: int = 20_000) -> Tensor:
    drawn = sample(logits.expand(count, -1), config, _grid(count))
    return torch.bincount(drawn, minlength=len(logits)) / count


def _logits(rows: int, size: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_shares_are_the_softmax(temperature: float) -> None:
    logits = _logits(1, 30)[0]
    shares = _shares(logits, SamplingConfig(temperature))
    torch.testing.assert_close(shares, (logits / temperature).softmax(-1), rtol=0, atol=1e-4)


def test_drawn_numbers_give_the_softmax_too() -> None:
    logits, count = _logits(1, 10)[0], 200_000
    uniform = uniforms(torch.zeros(count, dtype=torch.int64), torch.arange(count), 0)
    drawn = sample(logits.expand(count, -1), SamplingConfig(1.0), uniform)
    shares = torch.bincount(drawn, minlength=10) / count
    torch.testing.assert_close(shares, logits.softmax(-1), rtol=0, atol=0.005)


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (SamplingConfig(1.0, top_k=1), [3]),
        (SamplingConfig(1.0, top_k=2), [3, 1]),
        (SamplingConfig(1.0, top_k=5), [0, 1, 2, 3, 4]),
        (SamplingConfig(1.0, top_k=9), [0, 1, 2, 3, 4]),
        (SamplingConfig(1.0, top_p=1e-9), [3]),
        (SamplingConfig(1.0, top_p=0.39), [3]),
        (SamplingConfig(1.0, top_p=0.41), [3, 1]),
        (SamplingConfig(1.0, top_p=0.71), [3, 1, 0]),
        (SamplingConfig(1.0, top_p=0.999), [0, 1, 2, 3, 4]),
        # Of the two likeliest, 0.4 and 0.3, the first has 0.57.
        (SamplingConfig(1.0, top_k=2, top_p=0.5), [3]),
        (SamplingConfig(1.0, top_k=2, top_p=0.6), [3, 1]),
    ],
)
def test_only_what_the_filters_leave_is_drawn(config: SamplingConfig, kept: list[int]) -> None:
    probabilities = torch.tensor([0.15, 0.3, 0.1, 0.4, 0.05])
    expected = torch.zeros(5)
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    shares = _shares(probabilities.log(), config)
    torch.testing.assert_close(shares, expected, rtol=0, atol=1e-4)


def test_equally_likely_tokens_stay_together() -> None:
    shares = _shares(torch.zeros(4), SamplingConfig(1.0, top_k=2))
    torch.testing.assert_close(shares, torch.full((4,), 0.25), rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", [GREEDY, SamplingConfig(1.0), SamplingConfig(0.01, 3, 0.9)])
def test_what_is_masked_is_never_drawn(config: SamplingConfig) -> None:
    logits = torch.full((7,), float("-inf"))
    logits[[0, 3]] = torch.tensor([-80.0, -79.0])
    edges = torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    drawn = sample(logits.expand(3, -1), config, edges)
    assert set(drawn.tolist()) <= {0, 3}
    assert drawn[-1] == 3


def test_no_temperature_and_hardly_any_take_the_likeliest() -> None:
    logits = _logits(50, 100)
    for config in (GREEDY, SamplingConfig(1e-30)):
        assert torch.equal(sample(logits, config, _grid(50)), logits.argmax(-1))


@pytest.mark.parametrize("config", [GREEDY, SamplingConfig(0.8), SamplingConfig(0.9, 40, 0.95)])
@pytest.mark.parametrize("size", [33, 2053])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_alone_is_the_row_in_a_batch(
    config: SamplingConfig, size: int, dtype: torch.dtype
) -> None:
    logits = _logits(9, size).to(dtype)
    seeds, counters = torch.arange(9) ** 7, torch.arange(9) * 1000
    together = sample(logits, config, uniforms(seeds, counters, 2))
    for row in range(9):
        one = slice(row, row + 1)
        uniform = uniforms(seeds[one], counters[one], 2)
        assert torch.equal(sample(logits[one].clone(), config, uniform), together[one])


def test_numbers_are_even_and_those_of_their_seed() -> None:
    count = 100_000
    numbers = uniforms(torch.full((count,), 7), torch.arange(count), 0)
    assert numbers.dtype == torch.float64
    assert ((numbers >= 0) & (numbers < 1)).all()
    shares = torch.histc(numbers.float(), 20, 0, 1) / count
    torch.testing.assert_close(shares, torch.full((20,), 0.05), rtol=0, atol=0.003)
    again = uniforms(torch.tensor([7]), torch.tensor([123]), 0)
    assert again == numbers[123]


@pytest.mark.parametrize("other", ["seed", "counter", "stream", "negative seed"])
def test_seeds_positions_and_streams_are_independent(other: str) -> None:
    count = 100_000
    zeros, positions = torch.zeros(count, dtype=torch.int64), torch.arange(count)
    first = uniforms(zeros, positions, 0)
    second = {
        "seed": uniforms(zeros + 1, positions, 0),
        "counter": uniforms(zeros, positions + count, 0),
        "stream": uniforms(zeros, positions, 1),
        "negative seed": uniforms(zeros - 1, positions, 0),
    }[other]
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
    assert abs(correlation) < 0.015  # five standard deviations
    assert not {*first.tolist()} & {*second.tolist()}


def test_streams_are_no_seeds_or_positions_shifted() -> None:
    size = torch.arange(40)
    seeds, counters = (axis.flatten() for axis in torch.meshgrid(size, size, indexing="ij"))
    numbers = torch.cat([uniforms(seeds, counters, stream) for stream in range(40)])
    assert len({*numbers.tolist()}) == 40**3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -0.1}, "temperature -0.1 must be"),
        ({"temperature": float("nan")}, "temperature nan must be"),
        ({"temperature": float("inf")}, "temperature inf must be"),
        ({"top_k": -1}, "top_k -1 must be"),
        ({"top_p": 0.0}, "top_p 0.0 must be"),
        ({"top_p": 1.1}, "top_p 1.1 must be"),
    ],
)
def test_a_wrong_config_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        SamplingConfig(**wrong)
