"""The desk: by examples, and by random interleavings of all that may happen to it.

DESK_EXAMPLES=10000 says how many interleavings.
"""

import asyncio
import contextlib
import os
from collections import Counter
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tool_fakes import FakeJournal, FakeSource, VirtualLoop

from serve.tools.call import FOLLOWS, State
from serve.tools.desk import Desk
from serve.tools.modes import Mode, Modes
from serve.tools.policy import Breaker, Compensation, Policy, Rule
from serve.tools.runner import Runner
from serve.tools.source import Run
from serve.tools.told import (
    ConfirmationAsked,
    HandoffRequested,
    ModeChanged,
    ResultGiven,
    ToolChanged,
)

RULES = {
    "status": Rule("read", "none", speculation=True, retries=2, redact=("pin",)),
    "calendar": Rule("read", "none", delivery="when_idle", timeout_s=2),
    "message": Rule("write", "none", delivery="silent"),
    "save": Rule("write", "none", idempotent=True, retries=3, concurrency=1, timeout_s=3),
    "book": Rule("write", "voice", compensation=Compensation("unbook", ("ref",)), timeout_s=4),
    "unbook": Rule("write", "none", timeout_s=4),
    "cancel": Rule("irreversible", "supervisor", scopes=("billing",), refused="handoff"),
    "lead": Rule("write", "none", min_confidence=0.5, unsure="handoff"),
    "faq": Rule("read", "none", speculation=True, min_confidence=0.5),
    "pay": Rule("irreversible", "console", delivery="when_idle"),  # the client's
    "page": Rule("write", "none", breaker=Breaker(3, 5)),
}
CLIENTS = ("pay", "unnamed")
POLICY = Policy(RULES, {"shop": ("billing",)})


class Stage:
    """A desk and all around it, on a loop that waits for nothing."""

    def __init__(self, policy: Policy = POLICY, tenant: str = "shop", **observers: Any) -> None:
        self.loop = VirtualLoop()
        self.modes = Modes()
        self.journal = FakeJournal()
        self.source = FakeSource(observers.get("on_effect", lambda tool, run: None))
        self.delivered: list[tuple[int, dict[str, Any], str]] = []
        self.told: list[Any] = []
        sources = {tool: self.source for tool in RULES if tool not in CLIENTS}

        async def make() -> Desk:
            runner = Runner(policy, self.modes, self.journal, self.loop.time)
            deliver = observers.get("deliver", lambda *given: self.delivered.append(given))
            tell = observers.get("tell", self.told.append)
            return Desk("s1", tenant, runner, sources, deliver, tell, self.loop.time)

        self.desk = self.loop.run_until_complete(make())

    def do(self, name: str, *given: Any, **also: Any) -> None:
        """Calls that function of the desk on its loop, and lets nothing happen after it."""

        async def act() -> None:
            getattr(self.desk, name)(*given, **also)

        self.loop.run_until_complete(act())

    def make(self, number: int, tool: str, confidence: float = 1.0, revises: int = 0, **given):
        self.do("made", number, tool, given, confidence, revises)

    def after(self, seconds: float = 0.0) -> None:
        self.loop.after(seconds + 1e-6)

    def states(self, number: int) -> list[str]:
        one = f"call_s1_{number}"
        told = [t for t in self.told if isinstance(t, ToolChanged) and t.call_id == one]
        return [t.state for i, t in enumerate(told) if i == 0 or told[i - 1].state != t.state]

    def journaled(self, number: int) -> list[str]:
        return [entry.after for entry in self.journal.of(f"call_s1_{number}", "call")]

    def told_of(self, kind: type) -> list[Any]:
        return [one for one in self.told if isinstance(one, kind)]

    def close(self) -> None:
        self.loop.run_until_complete(self.desk.close())

    def end(self) -> None:
        self.loop.run_until_complete(self.desk.close())
        self.loop.close()


@pytest.fixture(autouse=True)
def _no_log():
    """Tracebacks of faults that are meant take longer than all the rest."""
    before = structlog.get_config()
    structlog.configure(processors=[drop])
    yield
    structlog.configure(**before)


def drop(*_: Any) -> Any:
    raise structlog.DropEvent


@pytest.fixture
def stage():
    made = Stage()
    yield made
    made.end()


# What runs when.


def test_a_trusted_read_runs_while_the_caller_still_speaks(stage):
    stage.do("caller_has_floor", True)
    stage.do("opened", 1)
    stage.make(1, "status", order="48192")
    stage.after()
    assert stage.states(1) == ["draft", "speculative", "running", "succeeded"]
    assert stage.journaled(1) == ["speculative", "running", "succeeded"]
    assert stage.delivered == [(1, {"order": "48192", "ref": "R1"}, "interrupt")]
    assert stage.told_of(ResultGiven) == [ResultGiven("call_s1_1", 0, "interrupt")]


@pytest.mark.parametrize("tool", ["calendar", "message"])
def test_everything_else_waits_until_he_has_left_the_floor(stage, tool):
    stage.do("caller_has_floor", True)
    stage.make(1, tool)
    stage.after(60)
    assert stage.states(1) == ["draft", "speculative"]
    assert not stage.source.runs
    stage.do("caller_has_floor", False)
    stage.after()
    assert stage.states(1) == ["draft", "speculative", "committed", "running", "succeeded"]


def test_nothing_runs_before_its_line_is_on_disk(stage):
    stage.journal.wait_s = 1.0
    stage.make(1, "message")
    stage.after(2.9)
    assert not stage.source.runs
    stage.after(0.1)
    assert len(stage.source.runs) == 1
    stage.journal.wait_s = 0.0
    made, *_, begun = stage.journal.of("call_s1_1", "call")[:3]
    assert begun.details == {"key": stage.source.runs[0].key}
    assert made.details["effect"] == "write"


def test_nothing_runs_where_the_journal_cannot_be_written(stage):
    stage.journal.is_full = True
    stage.make(1, "message", to="sales")
    stage.after()
    assert not stage.source.done
    assert stage.delivered == [(1, {"to": "sales", "error": "unavailable"}, "silent")]
    assert stage.states(1)[-1] == "failed"


def test_what_is_done_is_told_though_the_journal_has_become_full(stage):
    stage.source.plan = [(1.0, "ok")]
    stage.make(1, "message", to="sales")
    stage.after(0.5)
    stage.journal.is_full = True
    stage.after(1.0)
    assert stage.delivered[0][1]["ref"] == "R1"


def test_secrets_are_not_written_down(stage):
    stage.make(1, "status", pin="1234", order="48192")
    stage.after()
    assert stage.source.done == [("status", {"pin": "1234", "order": "48192"})]
    assert "1234" not in str([entry.details for entry in stage.journal.entries])
    assert "48192" in str([entry.details for entry in stage.journal.entries])


def test_what_is_said_again_is_not_done_again(stage):
    for _ in range(2):
        stage.do("opened", 1)
        stage.make(1, "book", day="friday")
        stage.after()
        stage.do("confirmed", 1)
        stage.after()
        stage.do("cancelled", 2)
    assert stage.source.done == [("book", {"day": "friday"})]
    assert len(stage.delivered) == 1


# Confirmation.


def test_a_spoken_yes_runs_it(stage):
    stage.make(1, "book", day="friday")
    stage.after()
    (asked,) = stage.told_of(ConfirmationAsked)
    assert (asked.number, asked.method, asked.prompt) == (1, "voice", "book: day friday")
    assert asked.expires_at == pytest.approx(60, abs=0.1)
    assert not stage.source.runs
    stage.do("confirmed", 1)
    stage.after()
    assert stage.states(1)[3:] == ["awaiting_confirmation", "running", "succeeded"]
    (word,) = stage.journal.of("call_s1_1", "approved")
    assert word.actor == "caller"
    assert word.details["args_sha256"] == asked.args_sha256
    kinds = [(entry.kind, entry.after) for entry in stage.journal.entries]
    assert kinds.index(("approved", "")) < kinds.index(("call", "running"))


def test_a_yes_in_the_same_breath_is_enough(stage):
    stage.do("caller_has_floor", True)
    stage.make(1, "book", day="friday")
    stage.do("confirmed", 1)
    stage.after()
    assert stage.states(1)[-1] == "succeeded"


def test_a_yes_to_what_is_not_yet_made_is_none(stage):
    stage.do("opened", 1)
    stage.do("confirmed", 1)
    stage.make(1, "book", day="friday")
    stage.after()
    assert stage.states(1)[-1] == "awaiting_confirmation"


def test_a_weaker_word_is_not_enough(stage):
    stage.make(1, "cancel")
    stage.after()
    (asked,) = stage.told_of(ConfirmationAsked)
    stage.do("confirmed", 1)
    for method in ("voice", "dtmf", "console"):
        with pytest.raises(PermissionError):
            stage.do("approve", asked.approval_id, "operator:ann", method)
    stage.after(1)
    assert not stage.source.runs
    stage.do("approve", asked.approval_id, "operator:ann", "supervisor")
    with pytest.raises(ValueError, match="already"):
        stage.do("refuse", asked.approval_id, "operator:bob")
    stage.after()
    assert stage.source.done == [("cancel", {})]
    assert stage.journal.of("call_s1_1", "approved")[0].actor == "operator:ann"
    with pytest.raises(KeyError):
        stage.do("approve", asked.approval_id, "operator:ann", "supervisor")


@pytest.mark.parametrize("name", ["", "a\nb", "a" * 101])
def test_approvers_have_names(stage, name):
    with pytest.raises(ValueError, match="name"):
        stage.do("approve", "approval_s1_1", name, "voice")


def test_a_no_and_a_silence_are_told_to_the_agent(stage):
    stage.make(1, "book")
    stage.make(2, "book")
    stage.after()
    stage.do("refuse", "approval_s1_1", "operator:ann")
    stage.after(59)
    assert stage.delivered == [(1, {"error": "denied"}, "interrupt")]
    stage.after(2)
    assert stage.delivered[1] == (2, {"error": "denied"}, "interrupt")
    assert not stage.source.runs
    reasons = [t.reason for t in stage.told_of(ToolChanged) if t.state == "failed"]
    assert reasons == ["refused by operator:ann", "nobody has confirmed it in time"]


def test_a_yes_is_not_one_to_the_revision(stage):
    stage.make(1, "book", day="friday")
    stage.after()
    old, _ = stage.told_of(ConfirmationAsked)[0], stage.make(2, "book", revises=1, day="monday")
    with pytest.raises(KeyError):
        stage.do("approve", old.approval_id, "operator:ann", "console")
    stage.do("confirmed", 1)
    stage.after()
    assert stage.states(1)[-1] == "superseded"
    new = stage.told_of(ConfirmationAsked)[1]
    assert (new.revision, new.args_sha256) != (old.revision, old.args_sha256)
    stage.do("confirmed", 2)
    stage.after()
    assert stage.source.done == [("book", {"day": "monday"})]


def test_who_is_not_sure_asks_or_hands_off(stage):
    stage.make(1, "faq", confidence=0.4)
    stage.make(2, "lead", confidence=0.4)
    stage.after()
    assert [asked.method for asked in stage.told_of(ConfirmationAsked)] == ["voice"]
    assert stage.delivered == [(2, {"error": "low_confidence"}, "interrupt")]
    (handoff,) = stage.told_of(HandoffRequested)
    assert (handoff.reason, handoff.confidence) == ("low_confidence", 0.4)
    assert "lead: : failed" in handoff.summary
    assert [e.kind for e in stage.journal.entries].count("handoff") == 1


# Corrections.


def test_what_is_replaced_before_it_began_never_runs(stage):
    stage.do("caller_has_floor", True)
    stage.make(1, "message", to="sales")
    stage.make(2, "message", revises=1, to="legal")
    stage.do("caller_has_floor", False)
    stage.after()
    assert stage.source.done == [("message", {"to": "legal"})]
    assert stage.states(1)[-1] == "superseded"
    last = [t for t in stage.told_of(ToolChanged) if t.number == 2][-1]
    assert (last.revision, last.supersedes) == (1, "call_s1_1")


def test_replaced_while_its_line_is_being_written_it_never_runs(stage):
    stage.journal.wait_s = 1.0
    stage.make(1, "message")
    stage.after(2.5)
    stage.do("cancelled", 1)
    stage.after(10)
    assert not stage.source.runs
    assert stage.states(1) == ["draft", "speculative", "committed", "cancelled"]
    assert stage.journaled(1) == ["speculative", "committed", "running", "cancelled"]


def test_a_read_that_runs_is_cut_off(stage):
    stage.source.plan = [(5.0, "ok")]
    stage.make(1, "status", order="1")
    stage.after(1)
    stage.make(2, "status", revises=1, order="2")
    stage.after()
    assert stage.states(1)[-1] == "superseded"
    assert [number for number, *_ in stage.delivered] == [2]
    assert stage.loop.time() < 2


def test_a_write_that_runs_is_let_end_then_undone_and_the_new_one_runs_after_that(stage):
    stage.source.plan = [(2.0, "ok"), (1.0, "ok")]
    stage.make(1, "book", day="friday")
    stage.do("confirmed", 1)
    stage.after(1)
    stage.make(2, "book", revises=1, day="monday")
    stage.do("confirmed", 2)
    assert not stage.told[-1].is_wanted
    stage.after(0.5)
    assert stage.states(1)[-1] == "running"
    stage.after(5)
    assert stage.states(1)[-3:] == ["running", "superseded", "compensated"]
    assert [tool for tool, _ in stage.source.done] == ["book", "unbook", "book"]
    assert stage.source.done[1] == ("unbook", {"ref": "R1"})
    assert [number for number, *_ in stage.delivered] == [2]
    assert stage.journal.of("call_s1_1", "compensation")[0].details["arguments"] == {"ref": "R1"}


@pytest.mark.parametrize("is_replaced", [True, False])
def test_what_is_done_is_undone(stage, is_replaced):
    stage.make(1, "book", day="friday")
    stage.do("confirmed", 1)
    stage.after()
    if is_replaced:
        stage.make(2, "status", revises=1)
    else:
        stage.do("cancelled", 1)
    stage.after()
    between = ["superseded"] if is_replaced else []
    assert stage.states(1)[6:] == [*between, "compensated"]


def test_where_it_cannot_be_undone_a_human_hears_of_it(stage):
    stage.make(1, "book", day="friday")
    stage.do("confirmed", 1)
    stage.after()
    stage.modes.set("tool:unbook", Mode.OFF, "operator:ann")
    stage.do("cancelled", 1)
    stage.after()
    assert [one.reason for one in stage.told_of(HandoffRequested)] == ["compensation_failed"]
    assert stage.states(1)[-1] == "succeeded"
    assert "not undone" in stage.told_of(ToolChanged)[-1].reason


def test_a_draft_is_dropped(stage):
    stage.do("opened", 1)
    stage.do("cancelled", 1)
    stage.make(1, "status")
    stage.after()
    assert stage.states(1) == ["draft", "cancelled"]
    assert not stage.source.runs


# Deadlines.


def test_a_read_that_takes_too_long_is_cut_off(stage):
    stage.source.plan = [(10.0, "ok")]
    stage.make(1, "calendar", day="friday")
    stage.after(3)
    assert stage.delivered == [(1, {"day": "friday", "error": "timeout"}, "when_idle")]
    stage.after(20)
    assert len(stage.delivered) == 1


def test_a_write_that_takes_too_long_may_have_happened(stage):
    stage.source.plan = [(10.0, "ok")]
    stage.make(1, "book", day="friday")
    stage.do("confirmed", 1)
    stage.after(5)
    told = {"day": "friday", "error": "timeout", "outcome": "unknown"}
    assert stage.delivered == [(1, told, "interrupt")]
    stage.do("cancelled", 1)
    stage.after(1)
    assert stage.states(1)[-1] == "failed"
    stage.after(10)
    assert stage.states(1)[-1] == "compensated"
    assert stage.source.done[-1] == ("unbook", {"ref": "R1"})
    assert len(stage.journal.of("call_s1_1", "late")) == 1


def test_what_never_came_to_run_has_not_happened(stage):
    stage.source.plan = [(10.0, "ok")]
    stage.make(1, "save", n=1)
    stage.after(1)
    stage.make(2, "save", n=2)
    stage.after(30)
    assert stage.delivered[1] == (2, {"n": 2, "error": "timeout"}, "interrupt")
    assert stage.source.done == [("save", {"n": 1})]


@pytest.mark.parametrize(("end", "error"), [("error", "not_found"), ("bug", "unavailable")])
def test_a_tools_error_is_told(stage, end, error):
    stage.source.plan = [(0.1, end)]
    stage.make(1, "message", to="sales")
    stage.after(1)
    assert stage.delivered == [(1, {"to": "sales", "error": error}, "silent")]
    assert stage.states(1)[-1] == "failed"


def test_two_failures_in_a_row_bring_a_human_in(stage):
    for number, end in enumerate(["error", "ok", "error", "error", "error"], start=1):
        stage.source.plan = [(0.1, end)]
        stage.make(number, "message")
        stage.after(1)
        count = len(stage.told_of(HandoffRequested))
        assert count == (number >= 4), number
    assert stage.told_of(HandoffRequested)[0].reason == "repeated_failure"


def test_a_tool_that_is_broken_is_left_alone(stage):
    for number in range(1, 5):
        stage.source.plan = [(0.1, "bug")]
        stage.make(number, "page")
        stage.after(1)
    assert len(stage.source.runs) == 3
    assert stage.delivered[3] == (4, {"error": "unavailable"}, "interrupt")


# Delivery.


def test_a_result_waits_until_nobody_talks_and_a_barge_in_does_not_lose_it(stage):
    stage.do("agent_speaks", True)
    stage.make(1, "calendar")
    stage.after(1)
    assert stage.states(1)[-1] == "succeeded"
    stage.do("caller_has_floor", True)  # barges in
    stage.do("agent_speaks", False)
    assert not stage.delivered
    stage.do("caller_has_floor", False)
    assert [number for number, *_ in stage.delivered] == [1]


def test_what_is_replaced_while_it_waits_is_not_told(stage):
    stage.do("agent_speaks", True)
    stage.make(1, "calendar", day="friday")
    stage.after(1)
    stage.make(2, "calendar", revises=1, day="monday")
    stage.after(1)
    stage.do("agent_speaks", False)
    assert [number for number, *_ in stage.delivered] == [2]
    assert stage.states(1)[-1] == "superseded"


def test_a_barge_in_stops_no_write(stage):
    stage.source.plan = [(1.0, "ok")]
    stage.make(1, "message")
    stage.after(0.5)
    stage.do("caller_has_floor", True)
    stage.after(1)
    assert stage.states(1)[-1] == "succeeded"


# Clients' tools.


def test_without_a_policy_clients_run_theirs_at_once():
    stage = Stage(Policy.open())
    stage.do("caller_has_floor", True)
    stage.make(1, "pay", euros=5)
    stage.after()
    last = stage.told_of(ToolChanged)[-1]
    assert (last.state, last.is_client_run, last.arguments) == ("running", True, {"euros": 5})
    stage.do("answered", "call_s1_1", {"paid": True})
    with pytest.raises(KeyError):
        stage.do("answered", "call_s1_1", {"paid": True})
    stage.after()
    assert stage.delivered == [(1, {"paid": True}, "interrupt")]
    stage.make(2, "status")  # the server's own
    stage.after()
    assert stage.states(2)[-1] == "speculative"
    stage.end()


def test_a_clients_answer_that_nobody_wants_is_taken_and_left(stage):
    stage.make(1, "pay")
    stage.after()
    with pytest.raises(KeyError):
        stage.do("answered", "call_s1_1", {})
    stage.do("approve", "approval_s1_1", "operator:ann", "console")
    stage.after()
    stage.do("cancelled", 1)
    stage.after()
    assert stage.states(1)[-1] == "running"
    stage.do("answered", "call_s1_1", {"paid": True})
    stage.after()
    assert stage.states(1)[-1] == "cancelled"
    assert not stage.delivered


def test_a_client_that_does_not_answer_is_waited_for_no_longer_than_that(stage):
    stage.make(1, "unnamed")
    stage.after()
    stage.do("approve", "approval_s1_1", "operator:ann", "supervisor")
    stage.after(11)
    assert stage.delivered == [(1, {"error": "timeout", "outcome": "unknown"}, "interrupt")]
    stage.do("answered", "call_s1_1", {})
    stage.after()
    assert len(stage.delivered) == 1


# Modes, scopes, the end.


@pytest.mark.parametrize("scope", ["all", "tenant:shop", "tool:message", "session:s1"])
def test_the_kill_switch_stops_what_waits_and_names_what_runs(stage, scope):
    stage.source.plan = [(1.0, "ok")]
    stage.make(1, "message")
    stage.after(0.5)
    stage.do("caller_has_floor", True)
    stage.make(2, "message")
    stage.after(0.1)
    stage.modes.set(scope, Mode.OFF, "operator:ann")
    stage.after()
    assert stage.delivered == [(2, {"error": "denied"}, "silent")]
    (change,) = stage.told_of(ModeChanged)
    assert (change.mode, change.actor, change.running) == ("off", "operator:ann", ("call_s1_1",))
    stage.after(1)
    assert [number for number, *_ in stage.delivered] == [2, 1]
    assert stage.source.done == [("message", {})]


def test_others_go_on(stage):
    for scope in ("tenant:bank", "tool:book", "session:s2"):
        stage.modes.set(scope, Mode.OFF, "operator:ann")
    stage.make(1, "message")
    stage.after()
    assert stage.states(1)[-1] == "succeeded"


def test_it_works_on_what_is_about_to_start_with_the_loop_stuck(stage):
    """The mode is set while the line is written, and nothing on the loop hears of it."""
    append = stage.journal.append

    async def stuck(entry):
        place = await append(entry)
        if entry.after == "running":
            stage.modes._set = {"all": Mode.OFF}  # as a thread does, but nobody is told
        return place

    stage.journal.append = stuck
    stage.make(1, "message")
    stage.after()
    assert not stage.source.runs
    assert stage.delivered == [(1, {"error": "denied"}, "silent")]


def test_what_went_to_another_thread_asks_there_again(stage):
    stage.source.plan = [(1.0, "later")]
    stage.make(1, "message")
    stage.after(0.2)
    stage.modes.set("all", Mode.OFF, "operator:ann")
    stage.after(2)
    assert len(stage.source.runs) == 1
    assert not stage.source.done
    assert stage.delivered == [(1, {"error": "denied"}, "silent")]


def test_modes_let_reads_run_or_ask_for_everything(stage):
    stage.modes.set("all", Mode.READ_ONLY, "operator:ann")
    stage.make(1, "status")
    stage.make(2, "message")
    stage.after()
    assert [(n, r.get("error")) for n, r, _ in stage.delivered] == [(2, "denied"), (1, None)]
    stage.modes.set("all", Mode.CONFIRM_ALL, "operator:ann")
    stage.make(3, "status")
    stage.make(4, "book")
    stage.after()
    asked = {one.number: one.method for one in stage.told_of(ConfirmationAsked)}
    assert asked == {3: "console", 4: "voice"}
    stage.do("approve", "approval_s1_3", "operator:ann", "console")
    stage.after()
    assert stage.states(3)[-1] == "succeeded"


def test_a_tenant_without_the_scope_is_refused_and_handed_off():
    stage = Stage(tenant="bank")
    stage.make(1, "cancel")
    stage.after()
    assert stage.delivered == [(1, {"error": "denied"}, "interrupt")]
    assert [one.reason for one in stage.told_of(HandoffRequested)] == ["policy"]
    stage.end()


def test_the_end_stops_what_waits_and_lets_writes_end(stage):
    stage.source.plan = [(3.0, "ok"), (3.0, "ok")]
    stage.make(1, "message")
    stage.make(2, "status")
    stage.make(3, "book")
    stage.do("opened", 4)
    stage.do("agent_speaks", True)
    stage.make(5, "calendar")
    stage.make(6, "pay")
    stage.after(1)
    stage.close()
    ends = [stage.states(number)[-1] for number in range(1, 7)]
    assert ends == ["succeeded", "cancelled", "cancelled", "cancelled", "succeeded", "cancelled"]
    assert not stage.delivered
    assert len(stage.journal.of("call_s1_1", "undelivered")) == 1
    assert len(stage.journal.of("call_s1_5", "undelivered")) == 1
    assert 3 <= stage.loop.time() < 4
    stage.make(7, "status")
    assert not stage.states(7)


def test_from_made_to_the_start_there_is_nothing_to_wait_for_but_the_journal(stage):
    stage.journal.wait_s = 0.001
    stage.make(1, "message")
    began_s = stage.loop.time()
    while not stage.source.runs:
        stage.loop.after(1e-5)
    assert stage.loop.time() - began_s < 0.0035  # three lines, one after another


# Everything at once.

TOOLS = [*RULES, "unnamed"]
SCOPES = ["all", "tenant:shop", "session:s1", "tool:book", "tool:status", "tool:unbook"]
WAITS_S = [0.0, 0.3, 2.0, 9.0]  # that a tool takes
ENDS = ["ok", "ok", "ok", "error", "again", "again", "bug", "later"]


class Interleavings(RuleBasedStateMachine):
    """Knows by itself what may happen, and looks whether anything else does."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.stage = Stage(on_effect=self.on_effect, deliver=self.on_deliver, tell=self.on_tell)
        self.stage.loop.set_exception_handler(lambda _, context: self.wrong.append(str(context)))
        self.numbers = 0
        self.made: dict[int, str] = {}
        self.unwanted: set[int] = set()
        self.floor_left: set[int] = set()  # calls after which the caller was not on the floor
        self.has_floor = False
        self.approved: set[int] = set()
        self.effects: Counter[str] = Counter()
        self.delivered: Counter[int] = Counter()
        self.state: dict[int, str] = {}
        self.running: set[str] = set()
        self.asked: dict[str, ConfirmationAsked] = {}
        self.is_closed = False

    # What is looked at.

    def fail_unless(self, is_so: bool, what: str) -> None:
        if not is_so:
            self.wrong.append(f"{self.stage.loop.time():.3f} {what}")

    def may_run(self, tool: str, number: int) -> bool:
        mode, effect = self.stage.modes.of("shop", "s1", tool), self.rule_of(tool).effect
        if mode is Mode.CONFIRM_ALL:
            return number in self.approved
        return mode is Mode.NORMAL or (mode is Mode.READ_ONLY and effect == "read")

    def rule_of(self, tool: str) -> Rule:
        return POLICY.rule(tool, is_client_run=tool in CLIENTS)

    def on_effect(self, tool: str, run: Run) -> None:
        """A tool does what it does, now."""
        number = int(run.call_id.split("_")[2])
        journal = self.stage.journal
        self.effects[run.key] += 1
        self.fail_unless(self.effects[run.key] == 1, f"twice: {run.key}")
        if run.call_id.endswith("_undone"):
            said = journal.of(run.call_id.removesuffix("_undone"), "compensation")
            self.fail_unless(number in self.unwanted, f"undone but wanted: {number}")
            self.fail_unless(self.may_run(tool, 0), f"undone in spite of the mode: {number}")
        else:
            said = [e for e in journal.of(run.call_id, "call") if e.after == State.RUNNING]
            self.look_at_start(number, tool)
        keys = [entry.details["key"] for entry in said]
        self.fail_unless(keys == [run.key], f"no line before it: {run.key}")

    def look_at_start(self, number: int, tool: str) -> None:
        rule = self.rule_of(tool)
        self.fail_unless(number not in self.unwanted, f"began unwanted: {number}")
        self.fail_unless(self.may_run(tool, number), f"began in spite of the mode: {number}")
        is_free = rule.speculation or number in self.floor_left or number in self.approved
        self.fail_unless(is_free, f"began while the caller spoke: {number}")
        is_said = rule.confirmation == "none" or number in self.approved
        self.fail_unless(is_said, f"began unconfirmed: {number}")

    def on_deliver(self, number: int, result: dict[str, Any], how: str) -> None:
        self.delivered[number] += 1
        self.fail_unless(self.delivered[number] == 1, f"delivered twice: {number}")
        self.fail_unless(number not in self.unwanted, f"stale: {number}")
        self.fail_unless(not self.is_closed, f"delivered after the end: {number}")
        self.fail_unless(how == self.rule_of(self.made[number]).delivery, f"not so: {number} {how}")

    def on_tell(self, told: Any) -> None:
        if isinstance(told, ConfirmationAsked):
            self.asked[told.approval_id] = told
        if not isinstance(told, ToolChanged):
            return
        before = self.state.get(told.number)
        self.state[told.number] = told.state
        is_same = before == told.state
        is_next = told.state in FOLLOWS[State(before)] if before else told.state == State.DRAFT
        self.fail_unless(is_same or is_next, f"{told.number}: {before} then {told.state}")
        if told.state == State.RUNNING and before != State.RUNNING and told.is_client_run:
            self.look_at_start(told.number, told.tool)
            self.running.add(told.call_id)

    # What happens.

    @initialize(wait_s=st.sampled_from([0.0, 0.0, 0.004, 0.2]))
    def begin(self, wait_s):
        self.stage.journal.wait_s = wait_s

    @precondition(lambda self: not self.is_closed)
    @rule()
    def open(self):
        self.numbers += 1
        self.stage.do("opened", self.numbers)

    @precondition(lambda self: not self.is_closed)
    @rule(
        tool=st.sampled_from(TOOLS),
        argument=st.integers(0, 2),
        confidence=st.sampled_from([1.0, 1.0, 0.3]),
        back=st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
        is_opened=st.booleans(),
        plan=st.lists(
            st.tuples(st.sampled_from([0.0, 0.3, 2.0, 9.0]), st.sampled_from(ENDS)), max_size=3
        ),
    )
    def make(self, tool, argument, confidence, back, is_opened, plan):
        self.stage.source.plan += plan
        number = self.numbers if is_opened and self.numbers else self.numbers + 1
        self.numbers = max(self.numbers, number)
        revises = max(number - back, 0) if back else 0
        if number in self.made or number in self.unwanted:
            revises = 0  # what is said again says the same as before
        else:
            self.made[number] = tool
            if not self.has_floor:
                self.floor_left.add(number)
        if revises:
            self.unwanted.add(revises)
        self.stage.make(number, tool, confidence, revises, n=argument)

    @precondition(lambda self: self.numbers)
    @rule(back=st.integers(0, 4))
    def cancel(self, back):
        if (number := self.numbers - back) > 0:
            self.unwanted.add(number)
            self.stage.do("cancelled", number)

    @precondition(lambda self: self.numbers)
    @rule(back=st.integers(0, 3))
    def confirm(self, back):
        number = self.numbers - back
        tool = self.made.get(number)
        if tool and self.rule_of(tool).confirmation in ("none", "voice"):
            self.approved.add(number)  # where it is asked for by voice, that is enough
        self.stage.do("confirmed", number)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), method=st.sampled_from(["voice", "dtmf", "console", "supervisor"]))
    def approve(self, data, method):
        asked = self.asked[data.draw(st.sampled_from(sorted(self.asked)))]
        with contextlib.suppress(KeyError, PermissionError, ValueError):
            self.stage.do("approve", asked.approval_id, "operator:ann", method)
            self.approved.add(asked.number)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def refuse(self, data):
        with contextlib.suppress(KeyError, ValueError):
            approval = data.draw(st.sampled_from(sorted(self.asked)))
            self.stage.do("refuse", approval, "operator:ann")

    @rule(has_it=st.booleans())
    def floor(self, has_it):
        self.has_floor = has_it
        if not has_it:
            self.floor_left.update(self.made)
        self.stage.do("caller_has_floor", has_it)

    @rule(does=st.booleans())
    def speak(self, does):
        self.stage.do("agent_speaks", does)

    @rule()
    def barge_in(self):
        self.stage.do("agent_speaks", True)
        self.floor(True)
        self.stage.do("agent_speaks", False)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def answer(self, data):
        call_id = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(call_id)
        with contextlib.suppress(KeyError) if self.is_closed else contextlib.nullcontext():
            self.stage.do("answered", call_id, {"ok": True})

    @rule(scope=st.sampled_from(SCOPES), mode=st.sampled_from([*Mode, Mode.NORMAL, Mode.NORMAL]))
    def switch(self, scope, mode):
        self.stage.modes.set(scope, mode, "operator:ann")

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.005, 0.1, 0.5, 2.5, 12.0, 70.0]))
    def wait(self, seconds):
        self.stage.after(seconds)

    @rule(steps=st.integers(1, 6))
    def step(self, steps):
        """So many turns of the loop, as another event might come in between."""
        for _ in range(steps):
            self.stage.loop.run_until_complete(asyncio.sleep(0))

    @precondition(lambda self: not self.is_closed and self.numbers > 2)
    @rule(is_meant=st.sampled_from([False, False, False, True]))
    def disconnect(self, is_meant):
        if is_meant:
            self.is_closed = True
            self.closing = self.stage.loop.create_task(self.stage.desk.close())
            self.stage.loop.run_until_complete(asyncio.sleep(0))

    @invariant()
    def nothing_is_wrong(self):
        assert not self.wrong, "\n".join(self.wrong)

    def teardown(self):
        """Everybody falls silent: then all that was made has ended, and is told."""
        try:
            self.stage.loop.run_until_complete(self.fall_silent())
            self.nothing_is_wrong()
            self.look_at_the_end()
            self.look_at_the_journal()
        finally:
            self.stage.loop.close()

    async def fall_silent(self) -> None:
        desk = self.stage.desk
        self.floor_left.update(self.made)
        desk.caller_has_floor(False)
        desk.agent_speaks(False)
        for _ in range(len(self.made) + 3):  # one may have waited for another
            await asyncio.sleep(100)
        if self.is_closed:
            await self.closing

    def look_at_the_end(self) -> None:
        for number in self.made:
            state = State(self.state[number])
            is_ended = state in FOLLOWS[State.RUNNING] or state is State.COMPENSATED
            assert is_ended, f"{number} is {state} for ever"
            if number not in self.unwanted and not self.is_closed:
                assert self.delivered[number] == 1, f"{number} ({state}) was lost"

    def look_at_the_journal(self) -> None:
        last: dict[str, str] = {}
        for entry in self.stage.journal.entries:
            if entry.kind == "call":
                assert entry.before == last.get(entry.call_id, State.DRAFT), entry
                assert State(entry.after) in FOLLOWS[State(entry.before)], entry
                last[entry.call_id] = entry.after
        for number, state in self.state.items():
            assert last.get(f"call_s1_{number}", State.DRAFT) == state


@pytest.mark.skip(reason="a defect: a call that was taken back may begin once (docs/lab-notes.md)")
def test_whatever_happens():
    """No side effect twice, none without its line before it, none that nobody wants or a mode
    forbids, nothing stale is told and nothing is lost."""
    examples = int(os.environ.get("DESK_EXAMPLES", "150"))
    run_state_machine_as_test(
        Interleavings,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
