"""The duplex model in both arrangements: its law, streams, pointers and training inputs."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model.depth import DepthConfig
from model.duplex import ACTION, FRAME, DuplexConfig, DuplexModel, Inputs
from model.frame import AGENTS, USERS
from model.transformer import TransformerConfig
from train.duplex_inputs import inputs_of
from train.packing import DialogueBatch

PAD, IDLE, END = 0, 1, 2
TRUNK = TransformerConfig(dim=32, layers=2, heads=4, kv_heads=2, hidden=48, window=9, pinned=4)
SPLIT = DuplexConfig(vocabulary=40, temporal=TRUNK, latent_dim=6, pointer_dim=8)
JOINT = DuplexConfig(
    vocabulary=40,
    temporal=TRUNK,
    arrangement="joint",
    codebooks=3,
    codebook=11,
    depth=DepthConfig(32, 16, 1, 2, 24, steps=3, codebook=11, text_vocabulary=41),
    tied=False,
    pointer_dim=8,
)


def model_of(config: DuplexConfig) -> DuplexModel:
    torch.manual_seed(0)
    model = DuplexModel(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("gate.weight"):
            torch.nn.init.normal_(parameter)
    model.copy_targets[0] = torch.arange(config.vocabulary).flip(0)
    return model


def random_inputs(config: DuplexConfig, batch: int, length: int) -> Inputs:
    def integers(high: int, *more: int) -> Tensor:
        return torch.randint(high, (batch, length, *more))

    kind = 1 + (torch.rand(batch, length) < 0.3).long()
    action = torch.where(torch.rand(batch, length) < 0.5, IDLE, integers(40))
    return Inputs(
        kind=kind,
        action=action,
        is_new=(action != IDLE) & (torch.rand(batch, length) < 0.7),
        agent_text=integers(40),
        user_text=torch.where(torch.rand(batch, length) < 0.5, PAD, integers(40)),
        latents=torch.randn(batch, length, config.latent_dim),
        is_heard=torch.rand(batch, length) < 0.8,
        is_speaking=torch.rand(batch, length) < 0.5,
        agent_codes=integers(13, config.codebooks) - 1,
        user_codes=integers(13, config.codebooks) - 1,
    )


def part_of(inputs: Inputs, *place: slice) -> Inputs:
    return Inputs._make(values[place] for values in inputs)


def all_streams(model: DuplexModel, inputs: Inputs, *more) -> Tensor:
    """Log-probabilities of every stream, side by side."""
    outputs = model(inputs, *more)
    streams = [model.log_probabilities(outputs, stream) for stream in model.config.streams]
    return torch.cat([*streams, model.floor(outputs.hidden)], dim=-1)


@pytest.mark.parametrize("config", [SPLIT, JOINT], ids=["split", "joint"])
@pytest.mark.parametrize("sizes", [[1] * 30, [1, 7, 2, 20], [30]])
def test_steps_and_bursts_equal_the_whole(config: DuplexConfig, sizes: list[int]) -> None:
    """However a run of positions is cut: a burst in one run or broken up, a result in a prefill."""
    model, inputs = model_of(config), random_inputs(config, 2, 30)
    whole, state, parts, start = all_streams(model, inputs), model.init_state(2), [], 0
    for size in sizes:
        part = part_of(inputs, slice(None), slice(start, start + size))
        parts.append(all_streams(model, part, state))
        start += size
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [SPLIT, JOINT], ids=["split", "joint"])
def test_a_row_equals_the_row_alone(config: DuplexConfig) -> None:
    model, inputs = model_of(config), random_inputs(config, 3, 20)
    batched = all_streams(model, inputs)
    for row in range(3):
        alone = all_streams(model, part_of(inputs, slice(row, row + 1)))
        torch.testing.assert_close(alone[0], batched[row], atol=1e-5, rtol=1e-5)


def test_a_result_of_200_tokens_goes_in_by_one_prefill() -> None:
    """In one row of a batch, while the others keep their state to the bit."""
    config = dataclasses.replace(SPLIT, temporal=dataclasses.replace(TRUNK, window=300))
    model, inputs = model_of(config), random_inputs(config, 3, 201)
    state, stepped = model.init_state(3), model.init_state(1)
    all_streams(model, part_of(inputs, slice(None), slice(0, 1)), state)
    others = [tensor[[0, 2]].clone() for tensor in state.tensors()]
    row = part_of(inputs, slice(1, 2))
    prefilled = all_streams(model, part_of(row, slice(None), slice(1, 201)), state.row(1))
    one_by_one = [
        all_streams(model, part_of(row, slice(None), slice(step, step + 1)), stepped)
        for step in range(201)
    ]
    torch.testing.assert_close(prefilled[:, -1:], one_by_one[-1], atol=1e-4, rtol=1e-4)
    for before, after in zip(others, state.tensors(), strict=True):
        assert torch.equal(before, after[[0, 2]])


def test_a_stream_is_a_distribution_and_a_target_is_its_entry() -> None:
    model, inputs = model_of(SPLIT), random_inputs(SPLIT, 2, 25)
    outputs, target = model(inputs), torch.randint(40, (2, 25))
    for stream in model.config.streams:
        whole = model.log_probabilities(outputs, stream)
        torch.testing.assert_close(whole.exp().sum(-1), torch.ones(2, 25))
        entry = whole.gather(2, target[..., None])[..., 0]
        found = model.log_probability(outputs, stream, target)
        torch.testing.assert_close(found, entry, atol=1e-4, rtol=1e-4)


def test_an_open_gate_copies_what_the_token_is_copied_as() -> None:
    model = model_of(SPLIT)
    pointer = model.get_submodule("pointers.agent_text.gate")
    assert isinstance(pointer, torch.nn.Linear)
    torch.nn.init.zeros_(pointer.weight)
    torch.nn.init.constant_(pointer.bias, 50.0)
    inputs = random_inputs(SPLIT, 1, 8)
    action = torch.full((1, 8), IDLE)
    action[0, 3] = 7
    inputs = inputs._replace(action=action, is_new=action != IDLE)
    likely = model.log_probabilities(model(inputs), "agent_text").exp()
    torch.testing.assert_close(likely[0, 3:, 40 - 1 - 7], torch.ones(5))
    assert likely[0, 2].max() < 0.9  # nothing to point at yet: it names a word


def test_a_small_model_of_moshis_kind_has_nothing_else() -> None:
    config = dataclasses.replace(JOINT, streams=["agent_text"], pointer_dim=0)
    names = {name.split(".")[0] for name, _ in DuplexModel(config).named_parameters()}
    assert names == {"temporal", "embeddings", "heads", "code_embeddings", "depth"}


def batch_of(**streams: Tensor) -> DialogueBatch:
    """One sequence of a few positions, quiet where nothing is given."""
    length = len(streams["kind"])
    blank = torch.zeros(length, dtype=torch.int64)
    values = {
        "segment": blank + 1,
        "position": torch.arange(length),
        "action": blank + IDLE,
        "agent_text": blank,
        "user_text": blank,
        "floor": blank,
        "agent_codes": torch.zeros(length, 3, dtype=torch.int64),
        "user_codes": torch.zeros(length, 3, dtype=torch.int64),
        "user_latents": torch.zeros(length, 6),
        "heard": streams["kind"] == FRAME,
        "learn_action": blank.bool(),
        "learn_frame": streams["kind"] == FRAME,
    } | streams
    return DialogueBatch(**{name: value[None] for name, value in values.items()})


def test_what_was_made_goes_in_at_the_next_position_that_takes_it() -> None:
    """A burst `5 6 <end>` opened at a frame and split by one; then the same again, packed."""
    kind = torch.tensor([FRAME, FRAME, ACTION, FRAME, ACTION, FRAME, FRAME] * 2)
    batch = batch_of(
        kind=kind,
        segment=torch.tensor([1] * 7 + [2] * 7),
        action=torch.tensor([IDLE, 5, 6, IDLE, END, IDLE, IDLE] * 2),
        agent_text=torch.tensor([10, 11, PAD, 13, PAD, 15, 16] * 2),
        user_text=torch.tensor([20, 21, PAD, 23, PAD, 25, 26] * 2),
        floor=torch.tensor([USERS, AGENTS, 0, USERS, 0, 0, 0] * 2),
    )
    inputs = inputs_of(batch, SPLIT, PAD, IDLE, END)
    assert inputs.action[0].tolist() == [IDLE, IDLE, 5, 6, 6, END, IDLE] * 2
    assert inputs.is_new[0].tolist() == [False, False, True, True, False, True, False] * 2
    assert inputs.agent_text[0].tolist() == [PAD, 10, PAD, 11, PAD, 13, 15] * 2
    assert inputs.user_text[0].tolist() == [PAD, 20, PAD, 21, PAD, 23, 25] * 2
    assert inputs.is_speaking[0].tolist() == [True, False, False, True, False, False, False] * 2


def test_codes_go_in_as_moshi_delays_them() -> None:
    """The first codebook a frame late, the others one more, `codebook` where there is no frame."""
    kind = torch.tensor([FRAME, ACTION, FRAME, FRAME])
    codes = torch.tensor([[1, 2, 3], [0, 0, 0], [4, 5, 6], [7, 8, 9]])
    inputs = inputs_of(batch_of(kind=kind, agent_codes=codes, user_codes=codes), JOINT, 0, 1, 2)
    for side in (inputs.agent_codes, inputs.user_codes):
        frames = side[0, kind == FRAME]
        assert frames.tolist() == [[11, 11, 11], [1, 11, 11], [4, 2, 3]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 0}, "latent_dim 0"),
        ({"streams": ("agent_text", "floor")}, "streams"),
        ({"streams": ("action",)}, "must hold agent_text"),
        ({"streams": ("agent_text",)}, "pointer_dim 8"),
        ({"arrangement": "joint"}, "codebooks"),
        ({"arrangement": "both"}, "both"),
    ],
)
def test_a_wrong_configuration_is_named(change: dict, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        dataclasses.replace(SPLIT, **change)
