import time

import pytest
from tool_fakes import Stage, without_log

from serve.tools.modes import Mode
from serve.tools.policy import Policy
from serve.tools.told import (
    ConfirmationAsked,
    HandoffRequested,
    ModeChanged,
    ResultGiven,
    ToolChanged,
)

_without_log = pytest.fixture(autouse=True)(without_log)


@pytest.fixture
def stage():
    made = Stage()
    yield made
    made.close()


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


def test_what_was_given_up_is_not_tried_again(stage):
    stage.source.plan = [(2.0, "again"), (2.0, "again")]
    stage.make(1, "save", n=1)
    stage.after(3.6)
    assert stage.states(1)[-1] == "failed"
    stage.after(30)
    assert len(stage.source.runs) == 2
    assert not stage.source.done


def test_what_is_taken_back_while_its_end_is_written_is_not_told(stage):
    stage.source.plan = [(0.0, "error"), (0.0, "ok")]
    for number in (1, 2):
        stage.journal.wait_s = 0.0
        stage.make(number, "page")
        while stage.states(number)[-1] != "running":
            stage.loop.after(0)
        stage.journal.wait_s = 1.0
        stage.after(0.5)
        stage.do("cancelled", number)
        stage.after(5)
    assert len(stage.source.done) == 2
    assert not stage.delivered


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
    stage.close()


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


def test_a_file_stops_what_is_about_to_start_though_the_loop_is_stuck(tmp_path):
    stage = Stage(modes=tmp_path / "modes")
    append = stage.journal.append

    async def append_and_stick(entry):
        place = await append(entry)
        if entry.after == "running":
            (tmp_path / "modes").touch()
            ends_s = time.monotonic() + 10
            while stage.modes.of("shop", "s1", "message") is not Mode.OFF:
                assert time.monotonic() < ends_s
        return place

    stage.journal.append = append_and_stick
    stage.make(1, "message")
    stage.after()
    assert not stage.source.runs
    assert stage.delivered == [(1, {"error": "denied"}, "silent")]
    stage.modes.close()
    stage.close()


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
    stage.close()


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
    stage.end()
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
