"""Our models of the Moshi family say what those of the package `moshi` say."""

import dataclasses

import pytest
import torch
from moshi_models import CONFIGS, KINDS, Reference, load_reference
from torch import Tensor

from model.duplex import DuplexConfig, DuplexModel
from model.joint import (
    QUIET_FRAMES,
    SILENCE,
    SINE,
    Given,
    JointLoop,
    inputs_of,
    personaplex_prompt,
)

TOLERANCE = 1e-3


class Greedy:
    """Picks the most likely token and keeps the logits, those of each stream in a list."""

    def __init__(self) -> None:
        self.logits: dict[int, list[Tensor]] = {}

    def __call__(self, logits: Tensor, stream: int) -> Tensor:
        self.logits.setdefault(stream, []).append(logits)
        return logits.argmax(-1)

    def of(self, stream: int) -> Tensor:
        """[B, T, V]"""
        return torch.stack(self.logits[stream], dim=1)


@dataclasses.dataclass
class Talk:
    """The reference's call by our model: what it picked [B, 1 + K, T] and what it said [B, K, T].

    `first` is the reference's step that our first picks belong to: the last one of a prompt.
    """

    reference: Reference
    greedy: Greedy
    picked: Tensor
    said: Tensor
    first: int


def _prompt(values: dict[str, Tensor]) -> Given:
    agent, user = values["prompt_agent"], values["prompt_user"]
    return Given(values["prompt_text"], agent.transpose(1, 2), user.transpose(1, 2))


@pytest.fixture(scope="module", params=KINDS)
def talk(request: pytest.FixtureRequest) -> Talk:
    reference, greedy, first = load_reference(request.param), Greedy(), 0
    loop = JointLoop(reference.model(), greedy)
    state, picked, said = loop.init_state(2), [], []
    if "prompt_text" in reference.values:
        prompt = _prompt(reference.values)
        loop.prefill(prompt, state)
        picked.append(torch.cat([state.text[:, None], state.codes], dim=1))
        first = prompt.text.shape[1] - 1
    for codes in reference.values["user"].unbind(2):
        spoken = loop.step(codes, state)
        picked.append(torch.cat([spoken.text[:, None], state.codes], dim=1))
        said.append(spoken.codes)
    return Talk(reference, greedy, torch.stack(picked, 2), torch.stack(said, 2), first)


# Parity


def test_text_logits_are_the_references(talk: Talk) -> None:
    theirs = talk.reference.values["text_logits"][:, talk.first :]
    assert theirs.shape[1] >= 200
    assert (talk.greedy.of(0)[:, : theirs.shape[1]] - theirs).abs().max() <= TOLERANCE


@pytest.mark.parametrize("codebook", range(8))
def test_depth_logits_are_the_references(talk: Talk, codebook: int) -> None:
    theirs = talk.reference.values["depth_logits"][:, talk.first :, codebook]
    if talk.first and codebook:
        theirs = theirs[:, 1:]  # behind a prompt these codes are due, nothing is picked
    ours = talk.greedy.of(codebook + 1)[:, : theirs.shape[1]]
    assert (ours - theirs).abs().max() <= TOLERANCE


def test_greedy_tokens_are_the_references(talk: Talk) -> None:
    theirs = talk.reference.values["tokens"][:, :9, talk.first :]
    assert torch.equal(talk.picked[:, :, : theirs.shape[2]], theirs)
    assert len(theirs[:, 0].unique()) > 10  # no model that says the same all the time


@pytest.mark.parametrize("talk", ["moshi"], indirect=True)
def test_sound_is_put_together_as_by_the_reference(talk: Talk) -> None:
    assert torch.equal(talk.said[:, :, 1:], talk.reference.values["frames"][:, 1:])
    assert (talk.said[:, 0, 0] == CONFIGS["moshi"].codebook).all()  # no sound yet


def test_whole_sequence_gives_the_references_logits() -> None:
    reference = load_reference("personaplex")
    model, config = reference.model(), reference.config
    made = reference.values["tokens"].transpose(1, 2)  # [B, T, 1 + 16], the caller's as well
    start = torch.tensor([config.vocabulary, *[config.codebook] * 16]).expand(2, 1, -1)
    columns = torch.cat([start, made[:, :-1]], dim=1)
    with torch.no_grad():
        hidden = model(
            inputs_of(Given(columns[..., 0], columns[..., 1:9], columns[..., 9:]))
        ).hidden
        text = model.logits(hidden, "agent_text")
        made = made.flatten(0, 1)
        depth = model.depth(hidden.flatten(0, 1), made[:, 1:], made[:, 0])
    assert (text - reference.values["text_logits"]).abs().max() <= TOLERANCE
    assert (depth - reference.values["depth_logits"].flatten(0, 1)).abs().max() <= TOLERANCE


# The loop


def test_prompt_in_parts_is_the_prompt_at_once() -> None:
    reference = load_reference("personaplex")
    prompt, loop = _prompt(reference.values), JointLoop(reference.model(), Greedy())
    whole, parts = loop.init_state(2), loop.init_state(2)
    loop.prefill(prompt, whole)
    for chunk in zip(*(tokens.split(5, dim=1) for tokens in prompt), strict=True):
        loop.prefill(Given(*chunk), parts)
    for one, other in zip(whole.tensors(), parts.tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_row_in_a_batch_is_the_row_alone() -> None:
    reference = load_reference("moshi")
    loop, user = JointLoop(reference.model(), Greedy()), reference.values["user"]
    both, alone = loop.init_state(2), loop.init_state(1)
    for frame in range(12):
        active = torch.tensor([frame % 3 != 1, True])
        spoken = loop.step(user[:, :, frame], both, active)
        if active[0]:
            own = loop.step(user[:1, :, frame], alone)
            assert torch.equal(spoken.codes[0], own.codes[0])
            assert torch.equal(spoken.text[0], own.text[0])


def test_what_predicts_the_caller_never_runs() -> None:
    reference, greedy = load_reference("personaplex"), Greedy()
    model = reference.model()
    stacked = [weight for weight in model.depth.parameters() if weight.dim() == 3]
    tables = [table.weight for table in model.depth.embeddings[7:]]
    assert len(stacked) == 2 + 2 * 4
    assert len(tables) == 8
    for weight in [*(weight[8:] for weight in stacked), *tables]:
        weight.data.fill_(torch.nan)
    loop = JointLoop(model, greedy)
    state = loop.init_state(2)
    loop.prefill(_prompt(reference.values), state)
    loop.step(reference.values["user"][:, :, 0], state)
    assert all(greedy.of(stream).isfinite().all() for stream in range(9))


def test_other_arrangements_have_no_such_loop() -> None:
    split = DuplexConfig(20, CONFIGS["moshi"].temporal, latent_dim=4)
    with pytest.raises(ValueError, match="must be joint"):
        JointLoop(DuplexModel(split), Greedy())


def test_prompt_of_personaplex() -> None:
    voice, quiet = torch.arange(24).view(3, 8), [3] * QUIET_FRAMES
    prompt = personaplex_prompt(voice, [70, 71])
    assert prompt.text.tolist() == [[3, 3, 3, *quiet, 70, 71, *quiet]]
    assert torch.equal(prompt.agent_codes[0, :3], voice)
    assert (prompt.agent_codes[0, 3:] == torch.tensor(SILENCE)).all()
    assert (prompt.user_codes == torch.tensor(SINE)).all()
    assert prompt.user_codes.shape == prompt.agent_codes.shape == (1, 17, 8)
