"""The operators of kernels/: each against the module's own code, alone and in any batch."""

import copy
import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_duplex import TOOLS, tiny_duplex
from torch import Tensor, nn

from model import ops
from model.agent import Agent, AgentConfig
from model.attention import AttentionState
from model.checkpoint import load_codec, load_duplex
from model.codec import FRAME_SIZE
from model.convnext import ConvNext
from model.depth import DepthConfig, DepthTransformer
from model.duplex import ACTION, FRAME, DuplexModel, Inputs, Outputs
from model.native_codec import NativeCodec, NativeCodecConfig
from model.ops import Mode, kept, use_kernels
from model.pointer import Pointer
from model.sampling import Sampler, SamplingConfig, sample, uniforms
from model.spectrogram import LogMel
from model.streaming import State
from model.transformer import Transformer, TransformerConfig, TransformerState
from train.talk import read_call

pytestmark = pytest.mark.skipif(ops.library() is None, reason="the kernels are not built")

ROOT = Path(__file__).parents[1]
ABSOLUTE, RELATIVE = 2e-5, 1e-4  # of values about 1; what docs/kernels.md promises


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(params=["baseline", "avx2", "avx512", "avx512vnni"])
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each set that this processor has, in turn."""
    library = ctypes.CDLL(str(ops.LIBRARY))
    if not library.duologue_use(request.param.encode()):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    library.duologue_use(b"")


def assert_close(ours: Any, reference: Any, atol: float = ABSOLUTE) -> None:
    torch.testing.assert_close(ours, reference, atol=atol, rtol=RELATIVE)


def weights_of(module: Any) -> Any:
    """The module ready to run, none of its weights 0 or 1."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval().requires_grad_(False)


def somebody(batch: int, turn: int) -> Tensor | None:
    """Who is active: everybody every third time."""
    generator = torch.Generator().manual_seed(turn)
    return torch.rand(batch, generator=generator) < 0.6 if turn % 3 else None


def assert_same_state(one: State, other: State) -> None:
    """Where nothing was written, one may hold NaN."""
    for ours, reference in zip(one.tensors(), other.tensors(), strict=True):
        written = ~ours.isnan() if ours.is_floating_point() else torch.ones_like(ours).bool()
        assert_close(ours[written], reference[written])


@pytest.fixture(params=[False, True], ids=["float32", "half"])
def is_half(request: pytest.FixtureRequest) -> bool:
    """Whether weights are such that half precision holds them."""
    return request.param


@pytest.mark.parametrize("rows", [1, 3, 6, 7, 40])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (64, 5), (65, 70), (200, 33)])
def test_a_layer(rows: int, outputs: int, inputs: int, is_half: bool, instructions: str) -> None:
    """And what is packed in half precision gives the same as float32, to the bit."""
    layer, norm = weights_of(nn.Linear(inputs, outputs)), weights_of(nn.LayerNorm(inputs))
    layer.weight[0] *= 1e-7  # partly below what is normal in half precision
    if is_half:
        layer.weight.copy_(layer.weight.half())
    x = torch.randn(rows, inputs)
    assert (ops.packed(layer).dtype == torch.float16) == is_half
    assert_close(ops.linear(layer, x), layer(x))
    assert_close(ops.linear(layer, x, norm), layer(norm(x)), 1e-4)
    full = torch.ops.duologue.linear(
        x, ops.packed(layer).float(), layer.bias, None, None, 0.0, outputs
    )
    assert torch.equal(ops.linear(layer, x), full)
    assert torch.equal(ops.linear(layer, x[-1:]), full[-1:])


# Rounded to 8 bits


@pytest.mark.parametrize("rows", [1, 3, 6, 7, 40])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (64, 4), (65, 70), (200, 33)])
def test_a_rounded_layer(rows: int, outputs: int, inputs: int, instructions: str) -> None:
    """What 8 bits hold loses nothing, and a row is the same in any batch."""
    layer = weights_of(nn.Linear(inputs, outputs))
    layer.weight.copy_(torch.randint(-127, 128, (outputs, inputs)) / 2**7)
    layer.weight[:, 0] = 127 / 2**7
    x = torch.randint(256, (rows, inputs)) / 2**6 - 1
    x[:, 0], x[:, -1] = -1, 255 / 2**6 - 1
    x[-1] = 0.5  # without a range
    with use_kernels("int8"):
        y = ops.linear(layer, x)
        assert_close(y, layer(x))
        assert torch.equal(ops.linear(layer, x[-1:]), y[-1:])
        assert torch.equal(ops.linear(layer, x[:2]), y[:2])
        packed = ops.kept(layer, lambda: None)
        assert (packed.dtype, packed.shape[-2]) == (torch.int8, -(-inputs // 4) * 4 + 8)
    assert_close(ops.linear(layer, x), layer(x))


def test_a_rounded_transformer_is_near_the_exact_one(instructions: str) -> None:
    """As docs/kernels.md says, at the size that it names."""
    torch.manual_seed(0)
    stack = Transformer(TransformerConfig(512, 8, 8, 2, 1408, window=250, pinned=0)).eval()
    ours, reference, errors = stack.init_state(2), stack.init_state(2), []
    for x in torch.randn(12, 2, 1, 512):
        exact = stack(x, reference)
        with use_kernels("int8"):
            errors.append((stack(x, ours) - exact).norm() / exact.norm())
    assert 0.001 < torch.stack(errors).mean() < 0.01


def test_an_agent_decides_the_same_and_sounds_otherwise(instructions: str) -> None:
    """And a row alone is the row in a batch, to the bit."""
    agent = Agent(tiny_duplex(), AgentConfig())
    pcm = 0.1 * torch.randn(3, 20, FRAME_SIZE, generator=torch.Generator().manual_seed(3))
    told, said = agent_frames(agent, pcm, TOOLS)
    with use_kernels("int8"):
        told_rounded, rounded = agent_frames(agent, pcm, TOOLS)
        assert told_rounded == told
        assert torch.equal(agent_frames(agent, pcm[:1], TOOLS)[1], rounded[:1])
    assert not torch.equal(rounded, said)
    assert torch.equal(agent_frames(agent, pcm, TOOLS)[1], said)


def test_a_mode_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="kernels is 'int4': must be one of off, exact, int8"):
        use_kernels("int4")  # pyright: ignore[reportArgumentType]


# The stack of a transformer

STACKS = [
    TransformerConfig(24, 2, 3, 1, 20, window=7, pinned=3),  # heads of 8, groups of 3
    TransformerConfig(64, 2, 4, 2, 40, window=5, pinned=0),
    TransformerConfig(96, 1, 6, 6, 50, window=9, pinned=20),
    TransformerConfig(70, 1, 7, 1, 33, window=4, pinned=1),  # groups of 4, 2 and 1
]


@pytest.mark.parametrize("config", STACKS)
def test_a_step_of_a_transformer(config: TransformerConfig, instructions: str) -> None:
    """Beyond the ring's wrap-around, and nothing is read that was never written."""
    stack, batch = weights_of(Transformer(config)), 4
    ours, reference = stack.init_state(batch), stack.init_state(batch)
    for layer in ours.layers:
        layer.keys.fill_(torch.nan)
        layer.values.fill_(torch.nan)
    for turn in range(3 * (config.window + config.pinned)):
        x, active = torch.randn(batch, 1, config.dim), somebody(batch, turn)
        y = stack(x, ours, active)
        with use_kernels("off"):
            expected = stack(x, reference, active)
        rows = slice(None) if active is None else active
        assert_close(y[rows], expected[rows])
    assert_same_state(ours, reference)


def test_gathered_rows_lie_where_they_are(instructions: str) -> None:
    stack = weights_of(Transformer(STACKS[0]))
    ours, reference = stack.init_state(5), stack.init_state(5)
    for _ in range(30):
        order = torch.randperm(4)[:3]
        rows = torch.cat([order, order.new_tensor([4])])  # the last fills up
        active = torch.tensor([True, True, True, False])
        x = torch.randn(4, 1, 24)
        parts = ours.gather(rows), reference.gather(rows)
        y = stack(x, parts[0], active)
        with use_kernels("off"):
            expected = stack(x, parts[1], active)
        ours.scatter(rows, parts[0])
        reference.scatter(rows, parts[1])
        assert_close(y[:3], expected[:3])
    assert_same_state(ours, reference)


def test_a_step_after_a_longer_chunk() -> None:
    """What goes in at once is PyTorch's, the next step is ours."""
    stack = weights_of(Transformer(STACKS[0]))
    ours, reference = stack.init_state(2), stack.init_state(2)
    for length in (5, 1, 1, 12, 1, 1):
        x = torch.randn(2, length, 24)
        y = stack(x, ours)
        with use_kernels("off"):
            assert_close(y, stack(x, reference))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", ["exact", "int8"])  # in which states begin
def test_a_row_alone_is_the_row_in_a_batch_to_the_bit(
    instructions: str, mode: Mode, threads: int
) -> None:
    stack, before = weights_of(Transformer(STACKS[1])), torch.get_num_threads()
    torch.set_num_threads(threads)
    with use_kernels(mode):
        together, alone = stack.init_state(19), stack.init_state(1)
    for turn in range(12):
        x, active = torch.randn(19, 1, 64), somebody(19, turn)
        y = stack(x, together, active)
        if active is None or active[7]:
            torch.set_num_threads(1)
            assert torch.equal(stack(x[7:8], alone)[0], y[7])
            torch.set_num_threads(threads)
    torch.set_num_threads(before)
    for one, all_rows in zip(alone.tensors(), together.tensors(), strict=True):
        assert torch.equal(one[0], all_rows[7])


# Keys and values in half precision


def half_state(stack: Transformer, batch: int) -> TransformerState:
    with use_kernels("int8"):
        state = stack.init_state(batch)
    assert all(layer.keys.dtype == layer.values.dtype == torch.bfloat16 for layer in state.layers)
    return state


def assert_nearly_all_close(ours: list[Tensor], reference: list[Tensor]) -> None:
    """Rows of two that round alike, and now and then not: a sum in another order may lie on the
    other side of what is half way between two numbers, which are 2^-8 apart."""
    one, other = torch.cat(ours), torch.cat(reference)
    assert_close(one, other, 1e-2)
    is_close = torch.isclose(one, other, atol=ABSOLUTE, rtol=RELATIVE).all(dim=-1)
    assert is_close.float().mean() > 0.95


@pytest.mark.parametrize("config", STACKS)
def test_a_step_with_half_keys(config: TransformerConfig, instructions: str) -> None:
    """As PyTorch's on the same state, what is remembered as well; rows may lie anywhere in it."""
    stack, order = weights_of(Transformer(config)), torch.tensor([3, 0, 4, 1])
    everybody, told, expected = half_state(stack, 5), list[Tensor](), list[Tensor]()
    written = differ = 0
    for layer in everybody.layers:
        layer.keys.fill_(torch.nan)
        layer.values.fill_(torch.nan)
    for turn in range(3 * config.attention.reach):
        reference = copy.deepcopy(everybody)
        active = torch.ones(4).bool() if turn % 3 == 0 else torch.rand(4) < 0.6
        parts = [state.gather(order) for state in (everybody, reference)]
        x = torch.randn(4, 1, config.dim)
        told.append(stack(x, parts[0], active)[active, 0])
        with use_kernels("off"):
            expected.append(stack(x, parts[1], active)[active, 0])
        everybody.scatter(order, parts[0])
        reference.scatter(order, parts[1])
        for ours, others in zip(everybody.layers, reference.layers, strict=True):
            assert torch.equal(ours.position, others.position)
            for one, other in ((ours.keys, others.keys), (ours.values, others.values)):
                differ += int(((one != other) & ~(one.isnan() & other.isnan())).sum())
                written += int(active.sum()) * one[0, 0].numel()
    assert_nearly_all_close(told, expected)
    assert differ < 0.02 * written


def test_values_are_rounded_as_torch_rounds(instructions: str) -> None:
    """Half way to the even one; what is too large, tiny or no number as well."""
    stack = Transformer(TransformerConfig(32, 1, 1, 1, 8, window=2, norm_eps=1e-30))
    bits = torch.randint(-(2**31), 2**31, (32,), dtype=torch.int32)
    bits[::2] = bits[::2] & ~0xFFFF | 0x8000
    bits[:4] = torch.tensor([0x7FFFFFFF, 0x7F800000, 0x7F7FFFFF, 0x00018000])
    numbers, state = bits.view(torch.float32), half_state(stack, 1)
    attention = next(stack._layers()).attention
    attention.input.weight.zero_()[64:] = numbers.diag()
    stack(torch.ones(1, 1, 32), state)
    held = state.layers[0].values[0, 0, 0]
    torch.testing.assert_close(held, numbers.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_half_keys_in_one_chunk_or_many() -> None:
    """Those that go in one by one are ours, longer ones PyTorch's, which sees what it will hold."""
    stack = weights_of(Transformer(STACKS[0]))
    state, x = half_state(stack, 6), torch.randn(6, 60, 24)
    whole = stack(x, half_state(stack, 6))
    chunks = [stack(part, state) for part in x.split([5, 1, 1, 12, 1, 1, 1, 2, 13, *[1] * 23], 1)]
    assert_nearly_all_close([*torch.cat(chunks, 1)], [*whole])


def test_half_keys_change_little() -> None:
    """As docs/kernels.md says, of a window that is full."""
    torch.manual_seed(0)
    stack = Transformer(TransformerConfig(512, 8, 8, 8, 1408, window=250)).eval()
    states = stack.init_state(1), half_state(stack, 1)
    past, errors = torch.randn(1, 250, 512), list[Tensor]()
    for state in states:
        stack(past, state)
    for x in torch.randn(4, 1, 1, 512):
        exact, half = (stack(x, state) for state in states)
        errors.append((half - exact).norm() / exact.norm())
    assert 1e-5 < torch.stack(errors).max() < 2e-3


def test_no_rows() -> None:
    stack = weights_of(Transformer(STACKS[0]))
    assert stack(torch.zeros(0, 1, 24), stack.init_state(0)).shape == (0, 1, 24)
    nobody = torch.zeros(2, dtype=torch.bool)
    state = stack.init_state(2)
    stack(torch.full((2, 1, 24), torch.nan), state, nobody)
    assert all(not tensor.any() for tensor in state.tensors())


def test_what_does_not_fit_is_refused() -> None:
    stack = weights_of(Transformer(STACKS[0]))
    with pytest.raises(RuntimeError, match="position has size 3"):
        stack(torch.zeros(2, 1, 24), stack.init_state(3))
    state = stack.init_state(2)
    state.layers[0].position[1] = -1
    with pytest.raises(RuntimeError, match="position is -1"):
        stack(torch.zeros(2, 1, 24), state)
    state.layers[0].position[1] = 0
    state.layers[0].rows = torch.tensor([0, 2])
    with pytest.raises(RuntimeError, match="row is 2"):
        stack(torch.zeros(2, 1, 24), state)
    state = stack.init_state(2)
    state.layers[1].values = state.layers[1].values.bfloat16()
    with pytest.raises(RuntimeError, match="values must be a contiguous tensor of the type"):
        stack(torch.zeros(2, 1, 24), state)


# Pointers, heads and what goes in


def test_a_step_of_a_pointer(instructions: str) -> None:
    pointer, batch = weights_of(Pointer(24, 10, window=6)), 3
    ours, reference = pointer.init_state(batch), pointer.init_state(batch)
    ours.keys.fill_(torch.nan)
    alone = pointer.init_state(1)
    for turn in range(20):
        x, active = torch.randn(batch, 1, 24), somebody(batch, turn)
        source = torch.randint(9, (batch, 1)) * (torch.rand(batch, 1) < 0.4)
        pointed = pointer(x, source, ours, active)
        with use_kernels("off"):
            expected = pointer(x, source, reference, active)
        rows = torch.ones(batch).bool() if active is None else active
        for part, wanted in zip(pointed, expected, strict=True):
            assert_close(part[rows], wanted[rows])
        if rows[1]:
            one = pointer(x[1:2], source[1:2], alone)
            assert all(torch.equal(part[0], of[1]) for part, of in zip(one, pointed, strict=True))
    assert isinstance(ours, AttentionState)
    assert_same_state(ours, reference)


@pytest.fixture(scope="module")
def duplex() -> DuplexModel:
    return tiny_duplex().model


def inputs_for(model: DuplexModel, batch: int) -> Inputs:
    tokens = [torch.randint(model.config.vocabulary, (batch, 1)) for _ in range(3)]
    kind = torch.where(torch.rand(batch, 1) < 0.3, ACTION, FRAME)
    truths = [torch.rand(batch, 1) < 0.6 for _ in range(3)]
    latents = 3 * torch.randn(batch, 1, model.config.latent_dim)
    nothing = torch.zeros(batch, 1, 0, dtype=torch.int64)
    action, agent, user = tokens
    return Inputs(
        kind, action, truths[0], agent, user, latents, truths[1], truths[2], nothing, nothing
    )


def test_a_position_of_the_duplex_model(duplex: DuplexModel, instructions: str) -> None:
    """What goes in, what is pointed at, and what each stream is told from."""
    ours, reference, alone = (duplex.init_state(n) for n in (6, 6, 1))
    for _ in range(30):
        inputs = inputs_for(duplex, 6)
        outputs = duplex(inputs, ours)
        one = duplex(Inputs(*(part[2:3] for part in inputs)), alone)
        for stream in duplex.config.streams:
            told = duplex.log_probabilities(outputs, stream)
            assert torch.equal(duplex.log_probabilities(one, stream)[0], told[2])
            with use_kernels("off"):
                # From the same, or an error would be counted twice.
                assert_close(told, duplex.log_probabilities(outputs, stream))
        with use_kernels("off"):
            expected: Outputs = duplex(inputs, reference)
        assert_close(outputs.hidden, expected.hidden)
    assert_same_state(ours, reference)


# The codec


def test_blocks_of_convolutions(instructions: str) -> None:
    stack, batch = weights_of(ConvNext(20, 36, 5, 2)), 3
    ours, reference, alone = (stack.init_state(n) for n in (batch, batch, 1))
    for turn, steps in enumerate((1, 4, 8, 3, 1, 4)):
        x, active = torch.randn(batch, steps, 20), somebody(batch, turn)
        y = stack(x, ours, active)
        with use_kernels("off"):
            expected = stack(x, reference, active)
        rows = torch.ones(batch).bool() if active is None else active
        assert_close(y[rows], expected[rows])
        if rows[0]:
            assert torch.equal(stack(x[:1], alone)[0], y[0])
    assert_same_state(ours, reference)


@pytest.mark.parametrize(("window", "hop"), [(960, 240), (60, 12), (36, 36), (64, 48)])
def test_log_mel_of_any_window(window: int, hop: int, instructions: str) -> None:
    mel = LogMel(24_000, window, hop, 7)
    ours, reference, alone = (mel.init_state(n) for n in (3, 3, 1))
    for turn, hops in enumerate((8, 1, 5, 8, 3)):
        pcm, active = 0.1 * torch.randn(3, hops * hop), somebody(3, turn)
        y = mel(pcm, ours, active)
        with use_kernels("off"):
            expected = mel(pcm, reference, active)
        rows = torch.ones(3).bool() if active is None else active
        assert_close(y[rows], expected[rows], 1e-4)
        if rows[2]:
            assert torch.equal(mel(pcm[2:], alone)[0], y[2])
    assert_same_state(ours, reference)


SMALL = NativeCodecConfig(
    codebook_size=64, semantic_dim=8, acoustic_dim=8, width=32, hidden=48, slow_width=40,
    slow_hidden=48, encoder_blocks=1, encoder_slow_blocks=1, decoder_slow_blocks=1,
    decoder_blocks=1, vocoder_blocks=1,
)  # fmt: skip


def test_the_voice(instructions: str) -> None:
    """Any pitch, from the first pulse on: what is summed up over harmonics is rounded alike."""
    decoder = weights_of(NativeCodec(SMALL)).decoder
    ours, reference, alone = (decoder.init_state(n) for n in (3, 3, 1))
    for turn in range(8):
        features, active = torch.randn(3, 4, SMALL.width), somebody(3, turn)
        pitch_hz = 40 + 450 * torch.rand(3, 8)
        pcm = decoder.speak(features, pitch_hz, ours, active)
        with use_kernels("off"):
            expected = decoder.speak(features, pitch_hz, reference, active)
        rows = torch.ones(3).bool() if active is None else active
        assert_close(pcm[rows], expected[rows], 2e-4)
        if rows[1]:
            assert torch.equal(decoder.speak(features[1:2], pitch_hz[1:2], alone)[0], pcm[1])
    for tensor, wanted in zip(ours.source.tensors(), reference.source.tensors(), strict=True):
        assert_close(tensor, wanted, 1e-4)


# Codes, and drawing them

DRAWN = [
    SamplingConfig(),
    SamplingConfig(temperature=0.3),
    SamplingConfig(temperature=1.0, top_k=3),
    SamplingConfig(temperature=1.5, top_p=0.7),
    SamplingConfig(temperature=1.5, top_k=9, top_p=0.5),
]


@pytest.mark.parametrize("config", DRAWN)
@pytest.mark.parametrize("text_vocabulary", [0, 9])
def test_codes_are_those_that_are_drawn_step_by_step(
    config: SamplingConfig, text_vocabulary: int, instructions: str
) -> None:
    depth = weights_of(DepthTransformer(DepthConfig(20, 24, 2, 3, 28, 5, 70, text_vocabulary)))
    context, uniform = torch.randn(40, 20), torch.rand(40, 5, dtype=torch.float64)
    text = torch.randint(9, (40,)) if text_vocabulary else None
    codes = depth.generate(context, Sampler(config, uniform), text)
    assert len(codes.unique()) > 20
    with use_kernels("off"):
        assert torch.equal(codes, depth.generate(context, Sampler(config, uniform), text))
    one = slice(11, 12)
    alone = Sampler(config, uniform[one])
    text = None if text is None else text[one]
    assert torch.equal(depth.generate(context[one], alone, text), codes[one])
    assert torch.equal(depth.generate(context[one], alone, text, steps=2), codes[one, :2])


@pytest.mark.parametrize("config", DRAWN)
def test_as_likely_as_the_last_that_stays_stays_with_it(
    config: SamplingConfig, instructions: str
) -> None:
    logits = torch.randint(4, (60, 37)).float()
    logits[:, 5::7] = -torch.inf
    uniform = torch.rand(60, dtype=torch.float64)
    with use_kernels("off"):
        expected = sample(logits, config, uniform)
    assert torch.equal(sample(logits, config, uniform), expected)
    assert torch.equal(sample(logits[:1], config, uniform[:1]), expected[:1])


# Speech


def test_speech_reads_and_says_the_same(instructions: str) -> None:
    duplex, batch = tiny_duplex(), 5
    speech = weights_of(duplex.speech)
    words = duplex.tokenizer.encode(" where is my order please it is shipped, 48192. ok?")
    pad = duplex.tokenizer.id_of("<pad>")
    ours, reference, alone = (speech.init_state(n) for n in (batch, batch, 1))
    generator = torch.Generator().manual_seed(5)
    speaks = torch.zeros(batch, dtype=torch.int64)
    for turn in range(120):
        is_next = torch.rand(batch, generator=generator) < (0.5 if turn % 60 < 30 else 0)
        text = torch.where(is_next, torch.tensor(words)[speaks % len(words)], pad)
        speaks += is_next
        uniform = torch.rand(batch, 8, generator=generator, dtype=torch.float64)
        sampler, active = Sampler(SamplingConfig(temperature=0.3), uniform), somebody(batch, turn)
        codes = speech.step(text, ours, sampler, active)
        with use_kernels("off"):
            expected = speech.step(text, reference, sampler, active)
        rows = torch.ones(batch).bool() if active is None else active
        assert torch.equal(codes[rows], expected[rows])
        if rows[3]:
            row = torch.arange(batch) == 3
            assert torch.equal(speech.step(text[3:4], alone, sampler.only(row))[0], codes[3])
    assert_same_state(ours, reference)


def test_a_damaged_state_of_the_reader_is_refused() -> None:
    speech = tiny_duplex().speech
    assert speech is not None
    text = torch.zeros(2, 1, dtype=torch.int64)
    for name in ("letters", "phones"):
        state = speech.reader.init_state(2)
        getattr(state, name)[1, 0, 0] = 1000
        with pytest.raises(RuntimeError, match=f"{name[:-1]} is 1000"):
            speech.reader(text, state)


# All of it


def agent_frames(agent: Agent, pcm: Tensor, tools: list[Any]) -> tuple[list[Any], Tensor]:
    """pcm [B, frames, 1920] -> tokens and events of all frames, and the sound."""
    state, told, said = agent.init_state(len(pcm)), [], []
    for row in range(len(pcm)):
        agent.begin(state, row, "You are the front desk.", tools, seed=row)
    for frame in pcm.unbind(1):
        heard = agent.step(state, frame)
        told.append((heard.agent_text.tolist(), heard.user_text.tolist(), heard.floor.tolist()))
        told += [(event.row, event.kind, event.action, event.number) for event in heard.events]
        said.append(heard.pcm)
    return told, torch.cat(said, dim=1)


def assert_frames_agree(agent: Agent, pcm: Tensor, tools: list[Any]) -> None:
    told, said = agent_frames(agent, pcm, tools)
    with use_kernels("off"):
        expected, sound = agent_frames(agent, pcm, tools)
    assert told == expected
    assert_close(said, sound, 1e-3)
    # A row alone says the same, to the bit.
    assert torch.equal(agent_frames(agent, pcm[:1], tools)[1], said[:1])


def test_frames_of_a_tiny_agent() -> None:
    drawn = (SamplingConfig(temperature=t) for t in (1.0, 1.0, 0.3))
    config = AgentConfig(*drawn, least_declared=0.0)
    generator = torch.Generator().manual_seed(3)
    pcm = 0.1 * torch.randn(3, 60, FRAME_SIZE, generator=generator)
    assert_frames_agree(Agent(tiny_duplex(), config), pcm, TOOLS)


def test_frames_of_nano() -> None:
    sound = torch.from_numpy(read_call(ROOT / "data" / "calls" / "demo.flac")).float()
    frames = sound[: len(sound) // FRAME_SIZE * FRAME_SIZE].view(-1, FRAME_SIZE)
    pcm = torch.stack([frames.roll(-start, 0)[:190] for start in (0, 40, 77)])
    assert_frames_agree(Agent(load_duplex("nano")), pcm, [])


NAMES = (
    "linear conv_next log_mel voice transformer_step pointer_step log_probabilities frame_input "
    "depth_generate sample reader_step speech_input gather_rows scatter_rows uniforms code_vectors"
).split()


def test_rows_of_any_type_are_moved() -> None:
    agent = Agent(tiny_duplex())
    ours, reference = agent.init_state(4), agent.init_state(4)
    for tensor, same in zip(ours.copied(), reference.copied(), strict=True):
        same.copy_(tensor.copy_(torch.randint(2, tensor.shape)))
    rows = torch.tensor([3, 0])
    part = ours.gather(rows)
    with use_kernels("off"):
        expected = reference.gather(rows)
    for state in (part, expected):
        for tensor in state.copied():
            tensor.copy_(tensor == 0)
    ours.scatter(rows, part)
    with use_kernels("off"):
        reference.scatter(rows, expected)
    assert all(torch.equal(*pair) for pair in zip(ours.copied(), reference.copied(), strict=True))
    with pytest.raises(RuntimeError, match="row is 4"):
        ours.gather(torch.tensor([4]))


def test_random_numbers_are_the_same_to_the_bit() -> None:
    seed, counter = (torch.randint(-(2**62), 2**62, (50, 1)) for _ in range(2))
    streams = torch.arange(9)
    with use_kernels("off"):
        expected = uniforms(seed, counter, streams)
    assert torch.equal(uniforms(seed, counter, streams), expected)


@pytest.mark.parametrize(("mode", "names"), [("exact", NAMES), ("int8", ["transformer_step"])])
def test_operators_are_what_torch_expects(
    mode: Mode, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`opcheck` of each, with what it is called with in a frame."""
    called: dict[str, tuple[Any, ...]] = {}

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any) -> Any:
                called.setdefault(name, copy.deepcopy(arguments))
                return getattr(torch.ops.duologue, name)(*arguments)

            return call

    monkeypatch.setattr(ops, "library", Recorder)
    config = AgentConfig(agent_text=SamplingConfig(temperature=3.0))
    agent = Agent(tiny_duplex(), config)
    with use_kernels(mode):
        agent_frames(agent, 0.1 * torch.randn(2, 20, FRAME_SIZE), [])
    state, rows = agent.init_state(3), torch.tensor([2, 0])
    state.scatter(rows, state.gather(rows))
    assert sorted(called) == sorted(NAMES)
    for name in names:
        operator = getattr(torch.ops.duologue, name).default
        with torch.inference_mode(False):
            torch.library.opcheck(operator, outside_inference(called[name]))


def outside_inference(value: Any) -> Any:
    """With tensors that are not of inference mode."""
    if isinstance(value, Tensor):
        return value.clone()
    return type(value)(map(outside_inference, value)) if isinstance(value, list | tuple) else value


# When they are used


def test_changed_weights_are_noticed() -> None:
    with torch.inference_mode(False):
        layer, other = (nn.Linear(5, 3).requires_grad_(False) for _ in range(2))
    x = torch.randn(2, 5)
    ops.linear(layer, x)
    changes = [
        lambda: layer.weight.mul_(2),
        lambda: setattr(layer, "weight", nn.Parameter(torch.randn(3, 5), requires_grad=False)),
        lambda: layer.load_state_dict(other.state_dict()),
        lambda: setattr(layer.weight, "data", torch.randn(3, 5)),
    ]
    for change in changes:
        with torch.inference_mode(False), torch.no_grad():
            change()
        assert_close(ops.linear(layer, x), layer(x))


def test_what_is_kept_is_made_once_and_goes_with_its_module() -> None:
    layer, made = nn.Linear(2, 2), []
    for _ in range(2):
        kept(layer, lambda: made.append(1))
    assert made == [1]
    before = len(ops._kept)
    del layer
    assert len(ops._kept) == before - 1


def test_training_and_other_types_are_left_to_torch() -> None:
    x = torch.zeros(1)
    assert ops.kernels_for(x)
    assert not ops.kernels_for(x, x.double())
    with use_kernels("off"):
        assert not ops.kernels_for(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not ops.kernels_for(x)
    with torch.inference_mode(False):
        assert not ops.kernels_for(torch.zeros(1))


@pytest.mark.parametrize("why", ["missing", "damaged", "off"])
def test_where_there_are_none_the_reason_is_logged_once(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library = tmp_path / "lib.so"
    if why == "damaged":
        library.write_text("not a library")
    monkeypatch.setattr(ops, "LIBRARY", library)
    monkeypatch.setenv(ops.SWITCH, "0" if why == "off" else "1")
    caplog.set_level(logging.INFO, logger="model.ops")
    ops.library.cache_clear()
    try:
        assert not ops.kernels_for(torch.zeros(1))
        assert not ops.kernels_for(torch.zeros(1))
    finally:
        ops.library.cache_clear()
    assert len(caplog.records) == 1
    assert (ops.SWITCH if why == "off" else str(library)) in caplog.records[0].getMessage()


def test_the_shipped_codec_says_the_same() -> None:
    codec = load_codec()
    ours, reference = codec.init_state(2), codec.init_state(2)
    for frame in (0.1 * torch.randn(2, 20, FRAME_SIZE)).unbind(1):
        codes, latent = codec.encode(frame, ours)
        said = codec.decode(codes, ours)
        with use_kernels("off"):
            expected = codec.encode(frame, reference).latent
            sound = codec.decode(codes, reference)
        assert_close(latent, expected, 1e-3)
        assert_close(said, sound, 1e-4)
