"""What a GPU computes is what the CPU does: model, codec, speech, a few steps of training."""

from pathlib import Path

import lightning
import pytest
import torch
from codec_law import decode_all, encode_all, random_codes, random_pcm
from cuda_cases import assert_same, cases, copied
from small_dialogues import LATENT_DIM, write_small_dialogues
from test_duplex import JOINT, SPLIT, all_streams, model_of, part_of, random_inputs
from test_duplex_training import TOKENIZER, TRUNK, Watch
from tiny_duplex import tiny_duplex
from torch import Tensor

from model import ops
from model.checkpoint import load_codec
from model.cuda_ops import OPERATORS
from model.depth import DepthConfig, DepthTransformer
from model.duplex import DuplexConfig
from model.sampling import Sampler, SamplingConfig
from model.tokens import PAD
from model.transformer import Transformer, TransformerConfig
from train.dialogue_data import DialogueData, DialogueDataConfig
from train.duplex import DuplexTraining, DuplexTrainingConfig
from train.optimization import OptimizationConfig
from train.positions import PositionsConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


@pytest.mark.parametrize("config", [SPLIT, JOINT], ids=["split", "joint"])
def test_a_duplex_model_packed_and_in_steps(config: DuplexConfig) -> None:
    model, inputs = model_of(config), random_inputs(config, 2, 30)
    segment = torch.tensor([[1] * 12 + [2] * 18, [1] * 25 + [0] * 5])
    whole, packed = all_streams(model, inputs), all_streams(model, inputs, None, None, segment)
    model = model.cuda()
    moved = type(inputs)._make(values.cuda() for values in inputs)
    state = model.init_state(2)
    cuts = [slice(0, 1), slice(1, 9), slice(9, 10), slice(10, 30)]
    parts = [all_streams(model, part_of(moved, slice(None), cut), state) for cut in cuts]
    torch.testing.assert_close(torch.cat(parts, 1).cpu(), whole, atol=1e-3, rtol=1e-3)
    found = all_streams(model, moved, None, None, segment.cuda()).cpu()
    is_dialogue = segment > 0
    torch.testing.assert_close(found[is_dialogue], packed[is_dialogue], atol=1e-3, rtol=1e-3)


def test_the_shipped_codec() -> None:
    pcm = random_pcm(2)
    codec = load_codec()
    codes = random_codes(codec, 2)
    encoded, decoded = encode_all(codec, pcm), decode_all(codec, codes)
    codec = codec.cuda()
    found = encode_all(codec, pcm.cuda())
    torch.testing.assert_close(found.latent.cpu(), encoded.latent, atol=1e-2, rtol=1e-2)
    assert (found.codes.cpu() == encoded.codes).float().mean() > 0.98  # ties of nearly equal codes
    torch.testing.assert_close(decode_all(codec, codes.cuda()).cpu(), decoded, atol=1e-3, rtol=1e-3)


def test_speech_in_steps() -> None:
    duplex = tiny_duplex()
    assert duplex.speech is not None
    pads = [duplex.tokenizer.id_of(PAD)] * 40
    texts = [duplex.tokenizer.encode("where is my order"), []]
    said = torch.tensor([(text + pads)[:40] for text in texts]).T
    spoken = []
    for device in ("cpu", "cuda"):
        speech = duplex.speech.to(device)
        state = speech.init_state(2)
        frames = [speech.step(t.to(device), state, lambda x, _: x.argmax(-1)) for t in said]
        spoken.append(torch.stack(frames).cpu())
    assert torch.equal(*spoken)
    assert (spoken[0][:, 0] != spoken[0][:, 1]).any()


def test_training(tmp_path: Path) -> None:
    """From the same weights, on the same batches."""
    write_small_dialogues(tmp_path, shards=1, dialogues=4)
    losses = {}
    for accelerator in ("cpu", "gpu"):
        torch.manual_seed(0)
        watch = Watch()
        data = DialogueDataConfig(
            [tmp_path], TOKENIZER, sequence_length=512, batch_size=2, steps_per_epoch=6,
            positions=PositionsConfig(plain_user_text=True, describe_tools=False),
        )  # fmt: skip
        model = DuplexConfig(2048, TRUNK, latent_dim=LATENT_DIM, pointer_dim=16)
        config = DuplexTrainingConfig(latent_noise=0, bfloat16=False)
        module = DuplexTraining(
            model, config, OptimizationConfig(6, 1e-3, warmup_steps=2), TOKENIZER
        )
        lightning.Trainer(
            accelerator=accelerator, devices=1, max_steps=6, gradient_clip_val=1.0,
            callbacks=[watch], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        ).fit(module, DialogueData(data))  # fmt: skip
        losses[accelerator] = [step["loss"] for step in watch.figures]
    assert losses["gpu"] == pytest.approx(losses["cpu"], rel=1e-3)
    assert losses["gpu"][-1] < losses["gpu"][0]


# Operators with CUDA kernels, against their references


@pytest.mark.parametrize("name", [*OPERATORS, "sample"])
def test_an_operator(name: str) -> None:
    operator = getattr(ops.library(), name)
    for case in cases(name):
        here, there = (tuple(copied(value, device) for value in case) for device in ("cpu", "cuda"))
        assert_same(operator(*there), operator(*here))
        assert_same(there, here)  # what it writes to


def test_an_operator_gives_a_row_alone_what_it_gives_it_in_a_batch() -> None:
    """To the bit, however many blocks share a row's attention."""
    torch.manual_seed(0)
    keys, values = torch.randn(2, 70, 300, 4, 64, device="cuda").half()
    query, position = torch.randn(70, 8, 64, device="cuda"), torch.arange(0, 700, 10).cuda()
    attention = ops.library().ring_attention  # pyright: ignore[reportOptionalMemberAccess]
    rest = (None, None, 300, 0, torch.float16)

    def attend(rows: slice) -> Tensor:
        held = (keys[rows], values[rows], None, None, position[rows])
        return attention(query[rows], query[:0], *held, *rest)

    assert torch.equal(attend(slice(33, 34))[0], attend(slice(None))[33])


@torch.inference_mode()
def test_a_step_of_a_transformer_in_a_graph() -> None:
    """One capture, replayed step by step, beyond the ring's wrap-around."""
    torch.manual_seed(0)
    config = TransformerConfig(64, 2, 4, 2, 96, window=9, pinned=3)
    stack = Transformer(config).eval()
    state = stack.init_state(3)
    steps = torch.randn(40, 3, 1, 64)
    expected = torch.stack([stack(x, state) for x in steps])
    stack, state, x = stack.cuda(), stack.cuda().init_state(3), steps[0].cuda()
    assert ops.cuda_kernels_for(x) is not None
    stack(x, state)  # what is made once must not be made in the graph
    state.reset(torch.ones(3, dtype=torch.bool, device="cuda"))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = stack(x, state)
    found = []
    for step in steps:
        x.copy_(step)
        graph.replay()
        found.append(y.cpu())
    torch.testing.assert_close(torch.stack(found), expected, atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_the_codes_of_a_frame_in_a_graph() -> None:
    torch.manual_seed(0)
    depth = DepthTransformer(DepthConfig(20, 24, 2, 3, 28, steps=5, codebook=70)).eval()
    context, uniform = torch.randn(6, 20), torch.rand(6, 5, dtype=torch.float64)
    drawn = SamplingConfig(temperature=1.0, top_k=30, top_p=0.9)
    expected = depth.generate(context, Sampler(drawn, uniform))
    depth, there, sampler = depth.cuda(), context.cuda(), Sampler(drawn, uniform.cuda())
    depth.generate(there, sampler)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        codes = depth.generate(there, sampler)
    codes.zero_()
    graph.replay()
    assert torch.equal(codes.cpu(), expected)
