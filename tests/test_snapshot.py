"""A caller's state as bytes: whoever loads it goes on as if nothing had been."""

import random

import pytest
import torch
from tiny_duplex import TOOLS, tiny_duplex

from model import ops
from model.agent import Agent, AgentConfig, AgentFrame, SavedCaller
from model.agent_state import AgentState
from model.ops import Mode, use_kernels
from model.sampling import SamplingConfig
from model.snapshot import Part

DRAWN = AgentConfig(
    agent_text=SamplingConfig(temperature=1.0),
    action=SamplingConfig(temperature=1.5),
    least_declared=0.0,
)
FRAMES = 130  # of a window of 64 positions behind 16 pinned ones
SOUND = torch.rand(FRAMES, 1920, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1


def begun(agent: Agent) -> AgentState:
    state = agent.init_state(3)
    for row in range(3):
        agent.begin(state, row, "You are the front desk.", TOOLS, seed=row)
    return state


def hear(agent: Agent, state: AgentState, row: int, number: int) -> AgentFrame:
    active = torch.arange(3) == row
    frame = agent.hear(state, SOUND[number].expand(3, -1).contiguous(), active)
    for _ in range(3):
        if agent.acting(state, active).any():
            frame.events.extend(agent.act(state, active))
    return frame


def assert_same(one: AgentFrame, other: AgentFrame, row: int, other_row: int) -> None:
    for found, expected in zip(other[:4], one[:4], strict=True):
        assert torch.equal(found[other_row], expected[row])
    assert [event[1:] for event in other.events] == [event[1:] for event in one.events]


def test_a_caller_goes_on_where_he_was_saved() -> None:
    """Mid-word and mid-action, in another agent, in another row, before and behind the window."""
    agent = Agent(tiny_duplex(), DRAWN)
    state = begun(agent)
    chain: list[SavedCaller] = []
    kept: dict[int, list[SavedCaller]] = {}
    told: list[AgentFrame] = []
    was_open = False
    for number in range(FRAMES):
        told.append(hear(agent, state, 1, number))
        if number % 7 == 3:
            known = chain[-1].row.positions if chain else ()
            chain.append(agent.save(state, 1, known))
        if number in (3, 24, 52, 101):
            kept[number] = [*chain]
            was_open |= bool(chain[-1].actions.burst)
    assert was_open
    assert any(event.kind == "made" for frame in told for event in frame.events)
    for number, saved in kept.items():
        other = Agent(tiny_duplex(), DRAWN)
        fresh = begun(other)
        other.load(fresh, 2, TOOLS, saved)
        for later in range(number + 1, min(number + 25, FRAMES)):
            assert_same(told[later], hear(other, fresh, 2, later), 1, 2)


def test_what_came_since_is_less_than_all() -> None:
    agent = Agent(tiny_duplex())
    state = begun(agent)
    for number in range(40):
        hear(agent, state, 0, number)
    whole = agent.save(state, 0)
    again = agent.save(state, 0, whole.row.positions)
    duplex = agent.model.init_state(1)
    kept = sum(len(part.data) for part in whole.row.parts)
    kept -= sum(len(part.data) for part in again.row.parts)
    assert whole.row.positions[0] > 80  # everything that attention can see is there
    size = sum(tensor.numel() * tensor.element_size() for tensor in duplex.tensors())
    assert kept > 0.9 * size
    other = Agent(tiny_duplex())
    fresh = begun(other)
    other.load(fresh, 0, TOOLS, [whole, again])
    assert_same(hear(agent, state, 0, 41), hear(other, fresh, 0, 41), 0, 0)


def test_others_are_left_alone() -> None:
    agent = Agent(tiny_duplex(), DRAWN)
    expected = begun(agent)
    expected_frames = [hear(agent, expected, 0, number) for number in range(6)]
    state = begun(agent)
    frames = [hear(agent, state, 0, number) for number in range(3)]
    saved = agent.save(state, 0)
    agent.load(state, 1, TOOLS, [saved])
    frames += [hear(agent, state, 0, number) for number in range(3, 6)]
    for one, other in zip(expected_frames, frames, strict=True):
        assert_same(one, other, 0, 0)


def test_the_state_of_another_model_is_refused() -> None:
    agent = Agent(tiny_duplex())
    saved = agent.save(begun(agent), 0)
    parts, positions = saved.row.parts, saved.row.positions
    integers = parts[0]._replace(dtype="torch.int32")  # as many bytes of another kind
    for changed in (
        {"parts": parts[3:]},
        {"parts": [Part("torch.float32", b"1234"), *parts[1:]]},
        {"parts": [integers, *parts[1:]]},
        {"positions": positions[1:]},
    ):
        other = saved._replace(row=saved.row._replace(**changed))
        with pytest.raises(ValueError, match="of another model: it has"):
            agent.load(begun(agent), 0, TOOLS, [other])
    unknown = saved._replace(row=saved.row._replace(parts=[Part("float12", b"12"), *parts[1:]]))
    with pytest.raises(ValueError, match="'float12', which torch does not have"):
        agent.load(begun(agent), 0, TOOLS, [unknown])


@pytest.mark.skipif(ops.library() is None, reason="the kernels are not built")
@pytest.mark.parametrize("before", ["exact", "int8"])
def test_an_engine_that_holds_keys_otherwise_goes_on_with_them(before: Mode) -> None:
    """Rounded from float32, or widened to it, the whole as what came since."""
    agent, chain = Agent(tiny_duplex()), list[SavedCaller]()
    with use_kernels(before):
        state = begun(agent)
        for number in range(60):
            hear(agent, state, 1, number)
            if number % 20 == 10:
                chain.append(agent.save(state, 1, chain[-1].row.positions if chain else ()))
        chain.append(agent.save(state, 1, chain[-1].row.positions))
    with use_kernels("exact" if before == "int8" else "int8"):
        fresh = begun(agent)
        agent.load(fresh, 2, TOOLS, chain)
        for ours, theirs in zip(
            fresh.duplex.temporal.layers, state.duplex.temporal.layers, strict=True
        ):
            assert {ours.keys.dtype, theirs.keys.dtype} == {torch.float32, torch.bfloat16}
            assert torch.equal(ours.keys[2].bfloat16(), theirs.keys[1].bfloat16())
            assert torch.equal(ours.values[2].bfloat16(), theirs.values[1].bfloat16())
        assert hear(agent, fresh, 2, 60).pcm.isfinite().all()


def test_random_rows() -> None:
    """Saved and loaded again and again, in rows at random: as one who never was."""
    agent = Agent(tiny_duplex(), DRAWN)
    state = begun(agent)
    expected = [hear(agent, state, 0, number) for number in range(40)]
    rng, row = random.Random(0), 0
    state = begun(agent)
    for number in range(40):
        assert_same(expected[number], hear(agent, state, row, number), 0, row)
        saved, row = agent.save(state, row), rng.randrange(3)
        if rng.random() < 0.5:
            state = begun(agent)
        agent.load(state, row, TOOLS, [saved])
