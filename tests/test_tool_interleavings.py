"""The desk under random interleavings of all that may happen to it.

DESK_EXAMPLES=10000 says how many.
"""

import asyncio
import contextlib
import itertools
import os
from collections import Counter
from typing import Any

import pytest
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
from tool_fakes import CLIENTS, POLICY, RULES, Stage, without_log

from serve.tools.call import FOLLOWS, State
from serve.tools.modes import Mode
from serve.tools.policy import Rule
from serve.tools.source import Run
from serve.tools.told import ConfirmationAsked, ToolChanged

_without_log = pytest.fixture(autouse=True)(without_log)

TOOLS = [*RULES, "unnamed"]
SCOPES = ["all", "tenant:shop", "session:s1", "tool:book", "tool:status", "tool:unbook"]
WORDS = ["voice", "dtmf", "console", "supervisor"]  # from the weakest
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
        self.refused: set[int] = set()
        self.effects: Counter[str] = Counter()
        self.delivered: Counter[int] = Counter()
        self.state: dict[int, str] = {}
        self.running: set[str] = set()
        self.asked: dict[str, ConfirmationAsked] = {}
        self.replaces: dict[int, int] = {}
        self.has_ended = False

    def do(self, name: str, *given: Any) -> None:
        """The desk hears of it; then so many turns of the loop pass before anything else does."""
        self.stage.do(name, *given)
        self.turn(next(self.turns))

    def turn(self, count: int) -> None:
        for _ in range(count):
            self.stage.loop.run_until_complete(asyncio.sleep(0))

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
            self.fail_unless(self.state[number] == State.RUNNING, f"given up: {number}")
        keys = [entry.details["key"] for entry in said]
        self.fail_unless(keys == [run.key], f"no line before it: {run.key}")

    def look_at_start(self, number: int, tool: str) -> None:
        rule = self.rule_of(tool)
        self.fail_unless(number not in self.unwanted, f"began unwanted: {number}")
        self.fail_unless(self.may_run(tool, number), f"began in spite of the mode: {number}")
        old = self.state.get(self.replaces.get(number, 0))
        is_next = rule.effect == "read" or old != State.RUNNING
        self.fail_unless(is_next, f"began while what it replaces ran: {number}")
        is_free = rule.speculation or number in self.floor_left or number in self.approved
        self.fail_unless(is_free, f"began while the caller spoke: {number}")
        self.fail_unless(number not in self.refused, f"began refused: {number}")
        is_said = rule.confirmation == "none" or number in self.approved
        self.fail_unless(is_said, f"began unconfirmed: {number}")

    def on_deliver(self, number: int, result: dict[str, Any], how: str) -> None:
        self.delivered[number] += 1
        self.fail_unless(self.delivered[number] == 1, f"delivered twice: {number}")
        self.fail_unless(number not in self.unwanted, f"stale: {number}")
        self.fail_unless(not self.has_ended, f"delivered after the end: {number}")
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

    @initialize(
        wait_s=st.sampled_from([0.0, 0.0, 0.004, 0.2]),
        turns=st.lists(st.integers(0, 6), min_size=1, max_size=10),
    )
    def begin(self, wait_s, turns):
        self.stage.journal.wait_s = wait_s
        self.turns = itertools.cycle(turns)

    @precondition(lambda self: not self.has_ended)
    @rule()
    def open(self):
        self.numbers += 1
        self.do("opened", self.numbers)

    @precondition(lambda self: not self.has_ended)
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
            self.replaces[number] = revises
        self.do("made", number, tool, {"n": argument}, confidence, revises)

    @precondition(lambda self: self.numbers)
    @rule(back=st.integers(0, 4))
    def cancel(self, back):
        if (number := self.numbers - back) > 0:
            self.unwanted.add(number)
            self.do("cancelled", number)

    @precondition(lambda self: self.numbers)
    @rule(back=st.integers(0, 3))
    def confirm(self, back):
        number = self.numbers - back
        tool = self.made.get(number)
        if tool and self.rule_of(tool).confirmation in ("none", "voice"):
            self.approved.add(number)  # where it is asked for by voice, that is enough
        self.do("confirmed", number)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), method=st.sampled_from(WORDS))
    def approve(self, data, method):
        asked = self.asked[data.draw(st.sampled_from(sorted(self.asked)))]
        with contextlib.suppress(KeyError, PermissionError, ValueError):
            is_enough = WORDS.index(method) >= WORDS.index(asked.method)
            self.approved |= {asked.number} if is_enough else set()
            self.do("approve", asked.approval_id, "operator:ann", method)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def refuse(self, data):
        asked = self.asked[data.draw(st.sampled_from(sorted(self.asked)))]
        if asked.number not in self.approved:
            self.refused.add(asked.number)
        with contextlib.suppress(KeyError, ValueError):
            self.do("refuse", asked.approval_id, "operator:ann")

    @rule(has_it=st.booleans())
    def floor(self, has_it):
        self.has_floor = has_it
        if not has_it:
            self.floor_left.update(self.made)
        self.do("caller_has_floor", has_it)

    @rule(does=st.booleans())
    def speak(self, does):
        self.do("agent_speaks", does)

    @rule()
    def barge_in(self):
        self.do("agent_speaks", True)
        self.floor(True)
        self.do("agent_speaks", False)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def answer(self, data):
        call_id = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(call_id)
        with contextlib.suppress(KeyError) if self.has_ended else contextlib.nullcontext():
            self.do("answered", call_id, {"ok": True})

    @rule(scope=st.sampled_from(SCOPES), mode=st.sampled_from([*Mode, Mode.NORMAL, Mode.NORMAL]))
    def switch(self, scope, mode):
        self.stage.modes.set(scope, mode, "operator:ann")

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.005, 0.1, 0.5, 2.5, 12.0, 70.0]))
    def wait(self, seconds):
        self.stage.after(seconds)

    @precondition(lambda self: not self.has_ended and self.numbers > 2)
    @rule(is_meant=st.sampled_from([False, False, False, True]))
    def disconnect(self, is_meant):
        if is_meant:
            self.has_ended = True
            self.do("end")

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
        desk.end()
        await desk.over()

    def look_at_the_end(self) -> None:
        for number in self.made:
            state = State(self.state[number])
            is_ended = state in FOLLOWS[State.RUNNING] or state is State.COMPENSATED
            assert is_ended, f"{number} is {state} for ever"
            if number not in self.unwanted and not self.has_ended:
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
