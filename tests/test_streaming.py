"""The law of every stateful module: chunked equals whole, a row in a batch equals the row alone."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from model.attention import AttentionConfig, SlidingWindowAttention, rotate, turn_of
from model.convnext import ConvNext, ConvNextBlock
from model.seanet_streaming import (
    Chain,
    Stateless,
    StreamedConv,
    StreamedConvTranspose,
    StreamedLstm,
    StreamedResidual,
)
from model.source import PulseSource
from model.spectrogram import InverseStft, LogMel
from model.streaming import CausalConv1d, CausalConvTranspose1d, State

CHUNKS = [(1,) * 14, (3, 1, 7, 2, 1), (1, 9, 4), (13, 1)]  # in multiples of a case's `multiple`
STEPS = 14
TOLERANCE = 1e-5


class Case(NamedTuple):
    """A module, its input of so many rows and steps, and what a chunk must be a multiple of."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Tensor]
    multiple: int = 1


def features(channels: int) -> Callable[[int, int], Tensor]:
    return lambda batch, steps: torch.randn(batch, steps, channels)


def spectra(bins: int) -> Callable[[int, int], Tensor]:
    return lambda batch, steps: torch.randn(batch, steps, bins, dtype=torch.complex64)


def pitches(batch: int, steps: int) -> Tensor:
    return 60 + 300 * torch.rand(batch, steps)


def attention(heads: int, kv_heads: int, window: int) -> SlidingWindowAttention:
    return SlidingWindowAttention(AttentionConfig(8 * heads, heads, kv_heads, window))


def residual() -> StreamedResidual:
    first, second = nn.Conv1d(4, 2, 3, dilation=2), nn.Conv1d(2, 4, 1)
    branch = Chain([Stateless(nn.ELU()), StreamedConv(first), StreamedConv(second)])
    return StreamedResidual(branch, StreamedConv(nn.Conv1d(4, 4, 1)))


CASES = [
    Case("conv", lambda: CausalConv1d(3, 5, 4), features(3)),
    Case("conv-no-past", lambda: CausalConv1d(3, 5, 1), features(3)),
    Case("conv-stride", lambda: CausalConv1d(3, 5, 7, stride=3), features(3), 3),
    Case("conv-groups", lambda: CausalConv1d(6, 6, 5, groups=6), features(6)),
    Case("conv-stride-groups", lambda: CausalConv1d(6, 4, 4, stride=2, groups=2), features(6), 2),
    Case("transpose", lambda: CausalConvTranspose1d(3, 5, 4, stride=2), features(3)),
    Case("transpose-long", lambda: CausalConvTranspose1d(3, 5, 11, stride=3), features(3)),
    Case("transpose-no-overlap", lambda: CausalConvTranspose1d(3, 5, 2, stride=2), features(3)),
    Case("attention", lambda: attention(2, 2, window=5), features(16)),
    Case("attention-grouped", lambda: attention(4, 2, window=6), features(32)),
    Case("attention-window-1", lambda: attention(2, 1, window=1), features(16)),
    Case("attention-all-seen", lambda: attention(2, 1, window=99), features(16)),
    Case("log-mel", lambda: LogMel(8000, 24, 8, 6), lambda b, t: torch.randn(b, t), 8),
    Case("inverse-stft", lambda: InverseStft(16, 4), spectra(9)),
    Case("pulse-source", lambda: PulseSource(8000, 24, 8), pitches),
    Case("convnext-block", lambda: ConvNextBlock(4, 8, 5), features(4)),
    Case("convnext", lambda: ConvNext(4, 8, 3, blocks=3), features(4)),
    Case("seanet-conv", lambda: StreamedConv(nn.Conv1d(3, 5, 6, stride=2)), features(3), 2),
    Case("seanet-conv-dilated", lambda: StreamedConv(nn.Conv1d(3, 5, 3, dilation=4)), features(3)),
    Case("seanet-replicate", lambda: StreamedConv(nn.Conv1d(3, 5, 4), "replicate"), features(3)),
    # The mirrored beginning must lie within the first chunk: 3 steps of past need 4.
    Case("seanet-reflect", lambda: StreamedConv(nn.Conv1d(3, 5, 4), "reflect"), features(3), 4),
    Case(
        "seanet-transpose",
        lambda: StreamedConvTranspose(nn.ConvTranspose1d(4, 6, 5, stride=2, groups=2)),
        features(4),
    ),
    Case("seanet-lstm", lambda: StreamedLstm(nn.LSTM(4, 4, 2), skip=True), features(4)),
    Case("seanet-residual", residual, features(4)),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def run(module: Any, chunks: list[Tensor], state: State, active: list[Tensor] | None = None) -> Any:
    """The outputs of chunks [B, T, ...] in turn, joined over time."""
    masks = active or [None] * len(chunks)
    with torch.no_grad():
        outputs = [module(chunk, state, mask) for chunk, mask in zip(chunks, masks, strict=True)]
    return torch.cat(outputs, dim=1)


def split(x: Tensor, case: Case, sizes: tuple[int, ...]) -> list[Tensor]:
    return list(x.split([size * case.multiple for size in sizes], dim=1))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


def assert_same_state(actual: State, expected: State, row: int | slice = slice(None)) -> None:
    for one, other in zip(actual.tensors(), expected.tensors(), strict=True):
        assert_close(one[row], other[row])


@every_case
@pytest.mark.parametrize("sizes", CHUNKS, ids=str)
def test_chunked_equals_whole(case: Case, sizes: tuple[int, ...]) -> None:
    module: Any = case.build().eval()
    x = case.inputs(2, STEPS * case.multiple)
    with torch.no_grad():
        whole = module(x)
    state, at_once = module.init_state(2), module.init_state(2)
    places = [tensor.data_ptr() for tensor in state.tensors()]

    assert_close(run(module, split(x, case, sizes), state), whole)
    assert_close(run(module, [x], at_once), whole)
    assert_same_state(state, at_once)
    assert [tensor.data_ptr() for tensor in state.tensors()] == places, "state is not in place"
    assert whole.std() > 0.01


@every_case
def test_row_in_batch_equals_row_alone(case: Case) -> None:
    module: Any = case.build().eval()
    chunks = split(case.inputs(3, STEPS * case.multiple), case, CHUNKS[1])
    state = module.init_state(3)
    together = run(module, chunks, state)
    for row in range(3):
        alone_state = module.init_state(1)
        alone = run(module, [chunk[row : row + 1] for chunk in chunks], alone_state)
        assert_close(together[row : row + 1], alone)
        for one, all_rows in zip(alone_state.tensors(), state.tensors(), strict=True):
            assert_close(one[0], all_rows[row])


@every_case
@pytest.mark.parametrize("sizes", CHUNKS[:2], ids=str)
def test_paused_row_goes_on_as_if_never_paused(case: Case, sizes: tuple[int, ...]) -> None:
    module: Any = case.build().eval()
    chunks = split(case.inputs(2, STEPS * case.multiple), case, sizes)
    expected = run(module, chunks, module.init_state(2))
    # Row 1 sits out before its first chunk and after each one; it is fed NaN meanwhile.
    state, outputs = module.init_state(2), []
    for chunk in chunks:
        other = case.inputs(1, chunk.shape[1])
        mixed = torch.cat([other, torch.full_like(other, torch.nan)])
        before = [tensor[1].clone() for tensor in state.tensors()]
        run(module, [mixed], state, [torch.tensor([True, False])])
        for old, tensor in zip(before, state.tensors(), strict=True):
            assert torch.equal(old, tensor[1]), "a paused row's state changed"
        outputs.append(run(module, [chunk], state, [torch.tensor([True, True])])[1])
    assert_close(torch.cat(outputs), expected[1])


@every_case
def test_reset_makes_a_row_fresh_and_leaves_the_others(case: Case) -> None:
    module: Any = case.build().eval()
    before = case.inputs(3, 9 * case.multiple)
    after = case.inputs(3, 5 * case.multiple)
    state, never_reset, fresh = (module.init_state(3) for _ in range(3))
    run(module, [before], state)
    state.reset(torch.tensor([False, True, False]))
    assert_same_state(state, fresh, row=1)

    output = run(module, [after], state)
    assert_close(output[1], run(module, [after], fresh)[1])
    expected = run(module, [before, after], never_reset)[:, -output.shape[1] :]
    assert_close(output[[0, 2]], expected[[0, 2]])


@every_case
def test_rows_do_not_see_each_other(case: Case) -> None:
    module: Any = case.build().eval()
    chunks = split(case.inputs(2, STEPS * case.multiple), case, CHUNKS[1])
    expected = run(module, chunks, module.init_state(2))[0]
    broken = [torch.stack([chunk[0], torch.full_like(chunk[1], torch.nan)]) for chunk in chunks]
    assert_close(run(module, broken, module.init_state(2))[0], expected)


@every_case
def test_whole_sequences_train(case: Case) -> None:
    module: Any = case.build()
    x = case.inputs(2, STEPS * case.multiple).requires_grad_()
    module(x).abs().square().mean().backward()
    assert x.grad is not None
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_state_carries_no_graph() -> None:
    module = CausalConv1d(3, 3, 4)
    attend = attention(2, 1, window=4)
    conv_state, attention_state = module.init_state(1), attend.init_state(1)
    x = torch.randn(1, 2, 3, requires_grad=True)
    module(x, conv_state)
    attend(torch.randn(1, 2, 16, requires_grad=True), attention_state)
    tensors = [*conv_state.tensors(), *attention_state.tensors()]
    assert not any(tensor.requires_grad for tensor in tensors)


def test_steps_must_be_a_multiple_of_the_stride() -> None:
    with pytest.raises(ValueError, match="5 steps: must be a multiple of 2"):
        CausalConv1d(1, 1, 4, stride=2)(torch.zeros(1, 5, 1))
    with pytest.raises(ValueError, match="5 steps: must be a multiple of 2"):
        StreamedConv(nn.Conv1d(1, 1, 4, stride=2))(torch.zeros(1, 5, 1))


@pytest.mark.parametrize("module", [CausalConv1d, CausalConvTranspose1d])
def test_kernel_must_cover_the_stride(module: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match="kernel_size 2 must be at least stride 3"):
        module(1, 1, 2, stride=3)


def test_pad_mode_must_be_known() -> None:
    with pytest.raises(ValueError, match="must be constant, replicate or reflect"):
        StreamedConv(nn.Conv1d(1, 1, 3), "circular")(torch.zeros(1, 4, 1))


def test_state_of_a_wrong_type_is_refused() -> None:
    @dataclasses.dataclass
    class Wrong(State):
        inside: Any

    with pytest.raises(TypeError, match="not <class 'list'>"):
        Wrong([torch.zeros(1)]).reset(torch.tensor([True]))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((10, 3, 1, 4), "dim 10 must be a multiple of heads 3"),
        ((6, 2, 1, 4), "dim / heads is 3: must be even"),
        ((16, 4, 3, 4), "heads 4 must be a multiple of kv_heads 3"),
        ((16, 4, 2, 0), "window 0 must be positive"),
    ],
)
def test_attention_config_is_checked(sizes: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        AttentionConfig(*sizes)


def test_attention_sees_exactly_its_window() -> None:
    module = attention(2, 1, window=4)
    x = torch.randn(1, 9, 16)
    x.requires_grad_()
    module(x)[0, 7].sum().backward()
    assert x.grad is not None
    seen = (x.grad[0].abs().sum(1) > 0).nonzero()[:, 0].tolist()
    assert seen == [4, 5, 6, 7]


def test_rotation_depends_on_distance_alone_even_after_ten_hours() -> None:
    query, key = torch.randn(2, 1, 1, 1, 64)
    ten_hours = int(10 * 3600 * 12.5)

    def score(position: int) -> Tensor:
        turned = [
            rotate(x, turn_of(torch.tensor([[position + shift]]), x.shape[-1], 10_000.0))
            for x, shift in ((query, 3), (key, 0))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(ten_hours), score(0), atol=1e-5, rtol=1e-5)
