"""The frame loop of the split arrangement, on random weights."""

import dataclasses
import itertools
import json
import random
from typing import Any

import jsonschema
import pytest
import torch
from tiny_duplex import TOOLS, tiny_duplex
from torch import Tensor

from model.action_session import ActionEvent
from model.agent import Agent, AgentConfig, AgentFrame
from model.agent_state import AgentState
from model.duplex import FRAME, Inputs, Outputs
from model.frame import AGENTS, FLOORS, USERS
from model.sampling import SamplingConfig
from model.tokens import END, IDLE, PAD, serialize, serialize_context
from train.duplex_inputs import inputs_of
from train.packing import DialogueBatch

DRAWN = AgentConfig(
    agent_text=SamplingConfig(temperature=1.0),
    action=SamplingConfig(temperature=2.0),
    codes=SamplingConfig(temperature=0.3),
    least_declared=0.0,  # random weights mean nothing in particular
)
FRAMES = 8


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent(tiny_duplex(), DRAWN)


def pcm_of(batch: int, frames: int = FRAMES) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return 0.1 * torch.randn(batch, frames, 1920, generator=generator)


def talk(
    agent: Agent, state: AgentState, pcm: Tensor, active: Tensor | None = None
) -> tuple[AgentFrame, ...]:
    """All frames [B, frames, 1920], each call answered at the frame after it."""
    frames = []
    for frame in pcm.unbind(1):
        frames.append(agent.step(state, frame, active))
        for event in frames[-1].events:
            if event.kind == "made" and event.action in ("call", "revise"):
                agent.give(state, event.row, event.number, {"status": "shipped"})
    return tuple(frames)


def events_of(frames: tuple[AgentFrame, ...], row: int) -> list[tuple[int, ActionEvent]]:
    found = [(number, event) for number, frame in enumerate(frames) for event in frame.events]
    return [(number, event._replace(row=0)) for number, event in found if event.row == row]


def test_every_call_is_valid_and_has_a_life(agent: Agent) -> None:
    state = agent.init_state(1)
    agent.begin(state, 0, "You are the front desk.", TOOLS, seed=1)
    events = [event for _, event in events_of(talk(agent, state, pcm_of(1)), 0)]
    opened, made = events[::2], events[1::2]
    assert len(made) > 2
    assert {event.kind for event in opened} == {"opened"}
    assert [event.action for event in opened] == [event.action for event in made]
    numbers = [event.number for event in made if event.action in ("call", "revise")]
    assert numbers == list(range(1, len(numbers) + 1))
    for event in made:
        assert event.kind == "made"
        assert 0 <= event.confidence <= 1
        if event.action in ("call", "revise"):
            jsonschema.validate(event.arguments, TOOLS[0]["parameters"])


def test_it_goes_on_as_it_was_trained(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it ran, laid out as training lays it out, gives the same inputs at each position."""
    ran: list[Inputs] = []
    forward = agent.model.forward

    def record(inputs: Inputs, *more: Any) -> Any:
        ran.append(Inputs._make(values.clone() for values in inputs))
        return forward(inputs, *more)

    monkeypatch.setattr(agent.model, "forward", record)
    state = agent.init_state(1)
    agent.begin(state, 0, "Hello.", TOOLS, seed=1)
    frames = talk(agent, state, pcm_of(1))
    seen = Inputs._make(torch.cat(values, 1) for values in zip(*ran, strict=True))
    pad, idle, end = map(agent.tokenizer.id_of, (PAD, IDLE, END))
    came = torch.where(seen.is_new, seen.action, idle).roll(-1, dims=1)
    came[0, -1] = state.action[0] if state.is_new[0] else idle
    is_frame = seen.kind == FRAME

    def spread(tokens: list[Tensor]) -> Tensor:
        stream = torch.full(seen.kind.shape, pad)
        stream[is_frame] = torch.cat(tokens)
        return stream

    blank = torch.zeros_like(came)
    batch = DialogueBatch(
        kind=seen.kind, segment=blank + 1, position=blank.cumsum(1), action=came,
        agent_text=spread([frame.agent_text for frame in frames]),
        user_text=spread([frame.user_text for frame in frames]),
        floor=blank, agent_codes=blank[..., None], user_codes=blank[..., None],
        user_latents=seen.latents, heard=is_frame, learn_action=is_frame, learn_frame=is_frame,
    )  # fmt: skip
    expected = inputs_of(batch, agent.model.config, pad, idle, end)
    for name in ("kind", "action", "is_new", "agent_text", "user_text", "is_heard"):
        assert torch.equal(getattr(seen, name), getattr(expected, name)), name
    given = [*serialize_context("Hello.", TOOLS), serialize("result", 1, "", {"status": "shipped"})]
    channel = [token for token in came[0].tolist() if token != idle]
    for text in given:
        tokens = agent.tokenizer.encode_action(text)
        places = [n for n, token in enumerate(channel) if channel[n : n + len(tokens)] == tokens]
        assert places, text


def test_a_call_of_a_tool_that_is_not_declared_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not surely a declared tool is no call: it ends at once, and the model is told."""
    agent = Agent(tiny_duplex(), dataclasses.replace(DRAWN, least_declared=1.0))
    channel: list[int] = []
    forward = agent.model.forward

    def record(inputs: Inputs, *more: Any) -> Any:
        channel.extend(inputs.action[0][inputs.is_new[0]].tolist())
        return forward(inputs, *more)

    monkeypatch.setattr(agent.model, "forward", record)
    state = agent.init_state(1)
    agent.begin(state, 0, "", TOOLS, seed=1)
    events = [event for _, event in events_of(talk(agent, state, pcm_of(1)), 0)]
    calls = [event for event in events if event.kind == "opened" and event.action == "call"]
    assert len(calls) > 2
    for opened in calls:
        after = events[events.index(opened) + 1]
        assert (after.kind, after.action) == ("made", "cancel")
        assert (after.number, after.tool, after.arguments) == (opened.number, "", {})
        assert 0.5 < after.confidence <= 1
    told = serialize("result", calls[0].number, "", {"error": "undeclared"})
    expected = [agent.tokenizer.id_of(token) for token in ("<call>", END)]
    expected += agent.tokenizer.encode_action(told)
    starts = range(len(channel) - len(expected) + 1)
    assert expected in [channel[start : start + len(expected)] for start in starts]
    assert not agent.sessions[0].standing


def test_a_caller_in_a_batch_has_the_call_he_has_alone(agent: Agent) -> None:
    """Others begin, fall out and have other seeds; his draws are his own."""
    pcm = pcm_of(3)
    alone = agent.init_state(1)
    agent.begin(alone, 0, "Hello.", TOOLS, seed=7)
    by_himself = talk(agent, alone, pcm[1:2])
    state = agent.init_state(3)
    for row, seed in enumerate((5, 7, 7)):
        agent.begin(state, row, "Hello.", TOOLS, seed=seed)
    together = [
        talk(agent, state, pcm[:, n : n + 1], torch.tensor([n % 2 == 0, True, n < 5]))[0]
        for n in range(FRAMES)
    ]
    assert events_of(by_himself, 0)
    said = [[event[:6] for _, event in events_of(run, row)] for run, row in
            ((by_himself, 0), (tuple(together), 1))]  # fmt: skip
    assert said[0] == said[1]
    for one, many in zip(by_himself, together, strict=True):
        assert one.agent_text[0] == many.agent_text[1]
        assert one.user_text[0] == many.user_text[1]
        torch.testing.assert_close(one.pcm[0], many.pcm[1], atol=1e-4, rtol=1e-4)


def test_whoever_is_ready_goes_together(agent: Agent) -> None:
    """Any rows, gathered for a frame and scattered back, have the call that each has alone."""
    pcm = pcm_of(3)
    state = agent.init_state(5)
    slots = [4, 1, 2]
    heard: list[list[AgentFrame]] = [[], [], []]
    for caller, slot in enumerate(slots):
        agent.begin(state, slot, f"You are number {caller}.", TOOLS, seed=caller)
    rng = random.Random(0)
    while ready := [caller for caller in range(3) if len(heard[caller]) < FRAMES]:
        ready = rng.sample(ready, rng.randint(1, len(ready)))
        rows = torch.tensor([slots[caller] for caller in ready])
        part = state.gather(rows)
        now = torch.stack([pcm[caller, len(heard[caller])] for caller in ready])
        frame = agent.step(part, now)
        state.scatter(rows, part)
        for place, caller in enumerate(ready):
            events = [event._replace(row=0) for event in frame.events if event.row == slots[caller]]
            only = [tensor[place : place + 1] for tensor in frame[:-1]]
            own = AgentFrame._make([*only, events])
            heard[caller].append(own)
            for event in own.events:
                if event.kind == "made" and event.action in ("call", "revise"):
                    agent.give(state, slots[caller], event.number, {"status": "shipped"})
    assert any(frame.events for frames in heard for frame in frames)
    for caller in range(3):
        alone = agent.init_state(1)
        agent.begin(alone, 0, f"You are number {caller}.", TOOLS, seed=caller)
        for one, other in zip(
            talk(agent, alone, pcm[caller : caller + 1]), heard[caller], strict=True
        ):
            assert one.agent_text == other.agent_text
            assert one.events == [
                event._replace(confidence=mine.confidence)
                for event, mine in zip(other.events, one.events, strict=True)
            ]
            torch.testing.assert_close(one.pcm, other.pcm, atol=1e-4, rtol=1e-3)


def test_what_waits_goes_in_by_parts_as_it_does_at_once(agent: Agent) -> None:
    heard = []
    for most in (None, 7):
        state = agent.init_state(1)
        agent.begin(state, 0, "You are the front desk.", TOOLS, seed=1)
        while agent.sessions[0].waiting:
            agent.prefill(state, 0, most)
        assert state.positions > 20
        heard.append(talk(agent, state, pcm_of(1)))
    for whole, parts in zip(*heard, strict=True):
        assert whole.agent_text == parts.agent_text
        torch.testing.assert_close(whole.pcm, parts.pcm, atol=1e-4, rtol=1e-3)


def test_each_thing_given_goes_in_by_a_run_of_its_own_whenever_it_comes(agent: Agent) -> None:
    """Sums of other lengths round otherwise: the caller would not hear the same to the bit."""
    results = [{"status": "shipped"}, {"status": "lost", "since": "Monday"}]
    texts = (serialize("result", number, "", one) for number, one in enumerate(results, 1))
    lengths = [3, *(len(agent.tokenizer.encode_action(text)) for text in texts)]
    state = agent.init_state(1)
    agent.begin(state, 0, "", ())
    agent.sessions[0].forced, agent.sessions[0].calls = [40, 41, 42], 2
    for number, result in enumerate(results, 1):
        agent.give(state, 0, number, result)
    positions = [int(state.positions)]
    while agent.sessions[0].is_waiting:
        agent.prefill(state, 0)
        positions.append(int(state.positions))
    assert [after - before for before, after in itertools.pairwise(positions)] == lengths


def test_another_seed_is_another_call(agent: Agent) -> None:
    texts = []
    for seed in (1, 1, 2):
        state = agent.init_state(1)
        agent.begin(state, 0, "Hello.", TOOLS, seed=seed)
        texts.append([int(frame.agent_text) for frame in talk(agent, state, pcm_of(1))])
    assert texts[0] == texts[1] != texts[2]


def test_wrong_calls_are_refused(agent: Agent) -> None:
    state = agent.init_state(1)
    agent.begin(state, 0, "Hello.", TOOLS)
    with pytest.raises(ValueError, match="number 1: row 0 has made calls 1 to 0"):
        agent.give(state, 0, 1, {"status": "shipped"})
    twice = json.loads(json.dumps([*TOOLS, *TOOLS]))
    with pytest.raises(ValueError, match="order_status"):
        agent.begin(state, 0, "Hello.", twice)


def test_it_falls_silent_once_the_caller_surely_has_the_floor(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two frames of his between its own, as a cough looks, do not silence it."""
    heard = [AGENTS] * 3 + [USERS] * 2 + [AGENTS] * 3 + [USERS] * 4
    floors = iter(heard)
    hushed: list[bool] = []

    def floor_logits(hidden: Tensor) -> Tensor:
        return torch.eye(len(FLOORS))[next(floors)].expand(1, 1, -1)

    monkeypatch.setattr(agent.model, "floor", floor_logits)
    monkeypatch.setattr(agent.speech, "hush", lambda _, mask: hushed.append(bool(mask)))
    state = agent.init_state(1)
    agent.begin(state, 0, "Hello.", TOOLS, seed=1)
    talk(agent, state, pcm_of(1, len(heard)))
    assert [number for number, now in enumerate(hushed) if now] == [10]


@pytest.mark.parametrize(("nothing", "speaks"), [(0.4, True), (0.6, False)])
def test_it_speaks_where_words_together_are_likelier_than_nothing(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, nothing: float, speaks: bool
) -> None:
    """Six ways to begin, none of which is as likely as silence."""
    pad = agent.tokenizer.id_of(PAD)
    words = list(range(len(agent.tokenizer) - 6, len(agent.tokenizer)))
    shares = torch.zeros(agent.model.config.vocabulary)
    shares[words], shares[pad] = (1 - nothing) / len(words), nothing
    monkeypatch.setattr(agent.model, "log_probabilities", lambda *_: shares.log()[None, None])
    state = agent.init_state(1)
    text = int(agent._draw_text(state, Outputs(torch.zeros(1, 1, 1), {})))
    assert (text in words) is speaks
    assert speaks or text == pad
