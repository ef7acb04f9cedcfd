"""The engine's rounds on an agent with known outputs, then on a real one of random weights."""

import random

import msgspec
import numpy as np
import pytest
import torch
from fake_agent import FakeAgent
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from tiny_duplex import TOOLS, tiny_duplex

from model.action_session import SavedActions
from model.agent import Agent, AgentConfig, SavedCaller
from model.sampling import SamplingConfig
from model.snapshot import Saved as SavedRow
from serve.engine.engine import Engine, EngineConfig
from serve.engine.messages import (
    Acted,
    Close,
    Closed,
    Command,
    Frame,
    Heard,
    Hello,
    Open,
    Opened,
    Refused,
    Reply,
    Result,
    Resume,
    Saved,
    Tell,
)
from serve.engine.prefixes import Prefixes
from serve.engine.remembered import Remembered
from serve.engine.traces import Traces

SAVED = SavedCaller(SavedRow([], [], []), SavedActions(0, {}, [], [], []))
CONFIG = EngineConfig(slots=3, queue_frames=2, actions_per_frame=4, prefill_tokens=32)


class Clock:
    """Time that stands still unless it is moved."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def frame(session: str, number: int, level: int = 1000) -> Frame:
    return Frame(session, number, np.full(1920, level, "<i2").tobytes())


def engine_of(agent: FakeAgent | None = None) -> tuple[Engine, FakeAgent, Clock]:
    agent, clock = agent or FakeAgent(), Clock()
    return Engine(agent, CONFIG, clock), agent, clock


def run(engine: Engine) -> list[Reply]:
    """Rounds until there is nothing to do."""
    replies: list[Reply] = []
    while not engine.is_idle:
        replies += engine.step()
    return replies


def opened(engine: Engine, *names: str) -> None:
    """With prompts of their own, each of which is taken in."""
    for name in names:
        assert engine.take(Open(name, f"Hello, {name}.", [])) is None
    assert run(engine) == [Opened(name) for name in names]


def refusal(engine: Engine, command: Open | Resume | Frame | Result | Tell | Close) -> Refused:
    reply = engine.take(command)
    assert isinstance(reply, Refused)
    return reply


def test_a_caller_is_in_once_what_is_to_be_taken_in_is() -> None:
    engine, agent, _ = engine_of()
    opened(engine, "a")
    assert agent.batches == [("prefill", [0])] * 3  # 70 tokens, 32 at a time
    assert engine.step() == []


def test_who_has_the_role_and_tools_of_another_is_in_at_once() -> None:
    engine, agent, _ = engine_of()
    opened(engine, "a")
    agent.batches.clear()
    assert engine.take(Open("b", "Hello, a.", [], seed=5)) == Opened("b")
    assert run(engine) == []
    assert engine.take(Open("c", "Hello, a.", [{"name": "t"}])) is None, "with other tools"
    assert run(engine) == [Opened("c")]
    engine.take(frame("b", 0))
    assert [type(reply) for reply in run(engine)] == [Heard]


def test_the_prefixes_that_were_used_last_are_kept() -> None:
    prefixes = Prefixes(2)
    openings = [Open("a", f"{number}", []) for number in range(3)]
    for number, opening in enumerate(openings):
        prefixes.keep(opening, SAVED)
        assert prefixes.find(openings[0]) is SAVED, number
    assert prefixes.find(openings[1]) is None
    assert prefixes.find(openings[2]) is SAVED


def test_whoever_has_a_frame_goes_into_the_next_batch() -> None:
    engine, agent, _ = engine_of()
    opened(engine, "a", "b", "c")
    agent.batches.clear()
    for name in ("c", "a"):
        assert engine.take(frame(name, 0)) is None
    replies = run(engine)
    assert agent.batches == [("hear", [0, 2])]
    assert [(reply.session, reply.number) for reply in replies if isinstance(reply, Heard)] == [
        ("a", 0), ("c", 0),
    ]  # fmt: skip
    assert {np.frombuffer(r.pcm, "<i2")[0] for r in replies if isinstance(r, Heard)} == {500}
    assert [r.agent_text for r in replies if isinstance(r, Heard)] == ["w1", "w1"]


def test_an_action_goes_on_between_frames_and_no_further_than_its_share() -> None:
    engine, agent, _ = engine_of(FakeAgent(call_each=1, burst=9))
    opened(engine, "a")
    agent.batches.clear()
    told: list[Reply] = []
    for number in range(3):
        engine.take(frame("a", number))
        told += run(engine)
    kinds = [kind for kind, _ in agent.batches]
    assert kinds == ["hear", *["act"] * 4, "hear", *["act"] * 4, "hear", "act"]
    acted = [reply for reply in told if isinstance(reply, Acted)]
    assert [(reply.kind, reply.number, reply.call) for reply in acted] == [
        ("opened", 0, 1), ("made", 2, 1),
    ]  # fmt: skip


def test_what_is_due_first_is_run_first() -> None:
    """b's frame came before a's action is due, though a's action opened before that."""
    engine, agent, clock = engine_of(FakeAgent(call_each=1, burst=9))
    opened(engine, "a", "b")
    engine.take(frame("a", 0))
    engine.step()
    agent.batches.clear()
    clock.now_s = 0.015  # a's action positions are due at 0.1, 0.12, 0.14 and 0.16
    engine.take(frame("b", 0))  # due at 0.095
    run(engine)
    assert [slots for kind, slots in agent.batches if kind == "hear"] == [[1]]
    assert agent.batches[0] == ("hear", [1])
    assert agent.batches[1] == ("act", [0, 1])


def test_a_result_is_taken_in_before_the_next_frame() -> None:
    engine, agent, _ = engine_of(FakeAgent(call_each=1, burst=1))
    opened(engine, "a")
    engine.take(frame("a", 0))
    run(engine)
    agent.batches.clear()
    assert engine.take(Result("a", 1, {"status": "shipped"})) is None
    engine.take(frame("a", 1))
    run(engine)
    assert agent.batches[:2] == [("prefill", [0]), ("hear", [0])]
    assert "calls 1 to" in refusal(engine, Result("a", 7, {})).message


def test_late_is_told_and_too_many_are_refused() -> None:
    engine, _, clock = engine_of()
    opened(engine, "a")
    engine.take(frame("a", 0))
    clock.now_s = 0.081
    assert [(r.is_late, r.latency_s) for r in run(engine) if isinstance(r, Heard)] == [
        (True, pytest.approx(0.081))
    ]
    for number in (1, 2):
        assert engine.take(frame("a", number)) is None
    refused = refusal(engine, frame("a", 3))
    assert (refused.code, "frame 3" in refused.message) == ("queue_full", True)
    assert [r.number for r in run(engine) if isinstance(r, Heard)] == [1, 2]


def test_a_caller_of_whom_nothing_comes_is_gone() -> None:
    engine, _, clock = engine_of()
    opened(engine, "a", "b")
    clock.now_s = 15.0
    engine.take(frame("b", 0))
    run(engine)
    clock.now_s = 21.0
    assert engine.step() == [Closed("a", "no_frames")]
    assert [*engine.sessions] == ["b"]


def test_wrong_messages_say_what_would_be_right() -> None:
    engine, _, _ = engine_of()
    opened(engine, "a", "b", "c")
    full = refusal(engine, Open("d", "Hello.", []))
    assert (full.code, full.retry_after_s > 0) == ("at_capacity", True)
    engine.take(frame("a", 0))
    assert refusal(engine, Open("a", "Hello.", [])).code == "session_exists"
    run(engine)
    assert refusal(engine, frame("x", 0)).code == "no_session"
    assert "3840" in refusal(engine, Frame("a", 0, b"123")).message
    engine.take(Close("b"))
    assert "no name" in refusal(engine, Open("e", "Hello.", [{}])).message
    opened(engine, "f")  # the slot is not lost
    assert sorted(engine.sessions) == ["a", "c", "f"]


def test_a_thousand_callers_leave_no_slot_taken() -> None:
    engine, agent, _ = engine_of(FakeAgent(call_each=2, burst=3))
    rng = random.Random(0)
    for number in range(1000):
        opened(engine, f"{number}")
        for heard in range(rng.randint(0, 3)):
            engine.take(frame(f"{number}", heard))
            if rng.random() < 0.5:
                run(engine)
        engine.take(Close(f"{number}"))  # half of them with frames or an action under way
    assert not engine.sessions
    assert not agent.sessions
    opened(engine, "a", "b", "c")


def test_calls_are_traced_until_their_results() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    engine = Engine(FakeAgent(call_each=1, burst=1), CONFIG, Clock(), Traces(provider))
    opened(engine, "a", "b")
    for number in range(3):
        engine.take(frame("a", number))
        run(engine)
    engine.take(Result("a", 1, {"status": "shipped"}))
    engine.take(Result("a", 2, {"error": "timeout"}))
    engine.take(Close("a"))
    first, second, third, session = exporter.get_finished_spans()
    assert [span.name for span in (first, second, third, session)] == [*["call"] * 3, "session"]
    assert session.context is not None
    for number, span in enumerate((first, second, third), 1):
        assert span.attributes is not None
        assert span.parent is not None
        assert span.parent.span_id == session.context.span_id
        assert (span.attributes["duologue.call"], span.attributes["duologue.tool"]) == (number, "t")
    ends = [[event.name for event in span.events] for span in (first, second, third)]
    assert ends == [["made", "result"], ["made", "result"], ["made", "left"]]
    assert (second.status.status_code, second.status.description) == (StatusCode.ERROR, "timeout")
    assert session.attributes == {
        "duologue.session": "a", "duologue.slot": 0, "duologue.resumed": False,
        "duologue.closed": "closed", "duologue.frames": 3,
    }  # fmt: skip


def test_messages_survive_the_wire() -> None:
    for message, kind in (
        (frame("a", 3), Command),
        (Open("a", "Hello.", [{"name": "t"}], 5), Command),
        (Heard("a", 3, b"12", "w", "", 2, 0.01, False), Reply),
        (Acted("a", 3, "made", 1, "call", "t", {"a": [1]}, 0.5), Reply),
    ):
        packed = msgspec.msgpack.encode(message)
        assert msgspec.msgpack.decode(packed, type=kind) == message


# A real agent


DRAWN = AgentConfig(
    agent_text=SamplingConfig(temperature=1.0),
    action=SamplingConfig(temperature=2.0),
    codes=SamplingConfig(temperature=0.3),
    least_declared=0.0,
)


@pytest.mark.parametrize("buckets", [(), (4,)])
def test_a_session_says_what_it_says_alone_whoever_else_comes_and_goes(
    buckets: tuple[int, ...],
) -> None:
    """Bit by bit where all rounds run as many rows."""
    agent = Agent(tiny_duplex(), DRAWN)
    rng = random.Random(0)
    sound = np.random.default_rng(0).integers(-3000, 3000, (12, 1920)).astype("<i2")

    def talk(others: bool) -> list[Reply]:
        engine = Engine(agent, EngineConfig(slots=4, actions_per_frame=4, buckets=buckets))
        if others:  # who has the same role and tools, and another seed
            engine.take(Open("other", "You are the front desk.", TOOLS, seed=8))
            run(engine)
        first = engine.take(Open("a", "You are the front desk.", TOOLS, seed=7))
        replies = [first] if first else run(engine)
        for number, pcm in enumerate(sound):
            if others:
                name = f"other {number}"
                engine.take(Open(name, "You are somebody else.", TOOLS, seed=number))
                for known in [*engine.sessions]:
                    if known != "a" and rng.random() < 0.3:
                        engine.take(Close(known))
                    elif known != "a":
                        engine.take(Frame(known, number, sound[rng.randrange(12)].tobytes()))
            engine.take(Frame("a", number, pcm.tobytes()))
            replies += run(engine)
        return [r for r in replies if not isinstance(r, Hello | Saved) and r.session == "a"]

    alone, together = talk(others=False), talk(others=True)
    assert any(isinstance(reply, Acted) for reply in alone)
    assert len(alone) == len(together)
    for one, other in zip(alone, together, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Heard) and isinstance(other, Heard):
            assert (one.agent_text, one.number) == (other.agent_text, other.number)
            samples = (np.frombuffer(reply.pcm, "<i2").astype(int) for reply in (one, other))
            most = 0 if buckets else 2
            torch.testing.assert_close(*map(torch.from_numpy, samples), atol=most, rtol=0)
        elif isinstance(one, Acted) and isinstance(other, Acted):
            assert one.arguments == other.arguments


# Saved and resumed


OPENING = Open("a", "You are the front desk.", TOOLS, seed=11)


def talk(engine: Engine, memory: Remembered, frames: range, lost: int = -1) -> list[Reply]:
    """Frames, and the results of calls; what is saved at frame `lost` gets lost."""
    rng = np.random.default_rng(1)
    sound = rng.integers(-3000, 3000, (30, 1920)).astype("<i2")
    replies: list[Reply] = []
    for number in frames:
        memory.said(heard := Frame("a", number, sound[number].tobytes()))
        engine.take(heard)
        new = run(engine)
        for reply in new:
            if isinstance(reply, Saved) and reply.number != lost:
                memory.told(reply)
            if isinstance(reply, Acted) and (reply.kind, reply.action) == ("made", "call"):
                result = Result("a", reply.call, {"status": "shipped"}, after=number)
                memory.said(result)
                assert engine.take(result) is None
        if number == 8:
            tell = Tell("a", "Be quick.", TOOLS[:1], after=number)
            memory.said(tell)
            assert engine.take(tell) is None
        replies += new
    return replies


@pytest.mark.parametrize(("end", "lost"), [(2, -1), (13, -1), (20, 12), (27, -1)])
def test_another_engine_goes_on_with_a_session(end: int, lost: int) -> None:
    """What a gateway keeps is enough, wherever it is cut off and whatever has got lost: as if the
    first engine had gone on, results and all."""
    agent = Agent(tiny_duplex(), DRAWN)
    config = EngineConfig(slots=2, queue_frames=64, actions_per_frame=4, save_frames=3)
    engine, memory = Engine(agent, config), Remembered(OPENING)
    engine.take(OPENING)
    run(engine)
    whole = talk(engine, memory, range(30))
    assert sum(isinstance(reply, Acted) and reply.kind == "made" for reply in whole) > 1

    engine, memory = Engine(agent, config), Remembered(OPENING)
    engine.take(OPENING)
    run(engine)
    talk(engine, memory, range(end), lost)
    other, again = Engine(agent, config), memory.again()
    if lost < 0:
        assert len(again) <= 6, "what was said since it was saved is all that is kept"
    told = [reply for command in again if (reply := other.take(command))]
    replies = told + run(other) + talk(other, memory, range(end, 30))
    heard = [reply for reply in replies if isinstance(reply, Heard)]
    first = heard[0].number
    assert told == ([Opened("a", first - 1)] if isinstance(again[0], Resume) else [])
    assert [said(one) for one in heard] == [
        said(one) for one in whole if isinstance(one, Heard) and one.number >= first
    ]
    is_resumed = other.metrics.registry.get_sample_value("duologue_sessions_resumed_total")
    assert is_resumed == float(isinstance(again[0], Resume))


def test_a_caller_is_opened_again_before_his_first_frame() -> None:
    """With what his client has made up its mind to, in the same slot."""
    engine, agent, _ = engine_of()
    opened(engine, "a")
    assert refusal(engine, Open("a", "Hello.", [{}])).code == "bad_message"
    assert engine.take(Open("a", "You are somebody else.", [])) is None
    assert run(engine) == [Opened("a")]
    assert engine.metrics.registry.get_sample_value("duologue_sessions_opened_total") == 1
    engine.take(frame("a", 0))
    assert refusal(engine, Open("a", "Hello.", [])).code == "session_exists"
    assert [*agent.sessions] == [0]


def test_who_brings_neither_role_nor_tools_is_in_at_once() -> None:
    engine, _, _ = engine_of(FakeAgent(context=0))
    assert engine.take(Open("a", "", [])) == Opened("a")


def test_what_an_agent_is_told_and_may_do_can_change() -> None:
    """At a frame's end, not under an open action; bad tools are refused and change nothing."""
    engine, agent, _ = engine_of(FakeAgent(call_each=2))
    opened(engine, "a")
    engine.take(frame("a", 0))
    engine.take(Tell("a", "Be quick.", after=1))
    run(engine)
    assert agent.sessions[0].told == []
    engine.take(frame("a", 1))
    engine.step()
    assert (agent.sessions[0].is_open, agent.sessions[0].told) == (True, [])
    run(engine)  # the positions that this frame may have
    assert agent.sessions[0].is_open
    for number in (2, 3, 4):
        engine.take(frame("a", number))
        run(engine)
    assert agent.sessions[0].told == [("Be quick.", None)]
    assert "a tool has no name" in refusal(engine, Tell("a", "", [{}], after=4)).message


def said(heard: Heard) -> tuple[int, bytes, str, str]:
    return heard.number, heard.pcm, heard.agent_text, heard.user_text


def test_a_resume_that_cannot_be_is_refused() -> None:
    engine, _, _ = engine_of()
    opened(engine, "a", "b", "c")
    assert refusal(engine, Resume("a", [], [])).code == "session_exists"
    assert refusal(engine, Resume("d", [], [])).code == "at_capacity"
    engine.take(Close("b"))
    for states, named in (([], "must be whole"), ([b"no"], "states: ")):
        assert named in refusal(engine, Resume("d", [], states)).message
    opened(engine, "d")
