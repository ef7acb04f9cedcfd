"""One session's calls: what the agent, the caller, clients and humans say of them comes in here,
what becomes of them goes out. It is the only thing that starts a tool; how a call lives is in
`life.py`.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Container, Mapping

import structlog

from serve.tools.approvals import Approval
from serve.tools.call import Call, State
from serve.tools.errand import Errand, Result
from serve.tools.gate import Floor, Gate
from serve.tools.journal import NOT_WRITTEN, Entry
from serve.tools.ledger import Ledger
from serve.tools.life import Life
from serve.tools.modes import Change
from serve.tools.policy import Delivery, Method
from serve.tools.runner import Runner
from serve.tools.source import Runs
from serve.tools.told import HandoffRequested, ModeChanged, ResultGiven, Told

_LONGEST = 100  # letters of an approver's name
_SUMMED_UP = 10  # calls in a summary

_log = structlog.get_logger()


class Desk:
    """One session's. `sources` has the source of each tool that the server runs, and may change;
    the other tools are the client's. `confirmed` are the tools whose calls the client wants to be
    asked about, and may change too. What calls bring goes to `deliver(number, result, how)`, what
    happens to them to `tell`. All functions are for the event loop. `clock` gives Unix time."""

    def __init__(
        self,
        session: str,
        tenant: str,
        runner: Runner,
        sources: Mapping[str, Runs],
        deliver: Callable[[int, Result, Delivery], None],
        tell: Callable[[Told], None],
        confirmed: Container[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session, self._tenant, self._runner, self._sources = session, tenant, runner, sources
        self._deliver, self._tell = deliver, tell
        self._ledger = Ledger(runner.journal, tell)
        self._floor = Floor()
        gate = Gate(runner, self._ledger, self._floor, confirmed, tell, clock)
        self._life = Life(runner, self._ledger, gate, sources, self._give, self._not_undone)
        self._errands: dict[int, Errand] = {}
        self._by_id: dict[str, Errand] = {}
        self._waiting: list[Errand] = []  # whose results the agent gets when nobody talks
        self._failed_in_row = 0
        self._handoffs = itertools.count(1)
        self._has_ended = False
        loop = asyncio.get_running_loop()
        self._unsubscribe = runner.modes.subscribe(
            lambda change: loop.call_soon_threadsafe(self._mode_changed, change)
        )

    # What the agent does. What it is said to have done once more, it has not.

    def opened(self, number: int) -> None:
        """It begins to make a call."""
        if number in self._errands or self._has_ended:
            return
        call_id = f"call_{self._session}_{number}"
        call = Call(call_id, self._session, self._tenant, number)
        one = Errand(call, self._runner.policy.rule("", is_client_run=False))
        self._errands[number] = self._by_id[call_id] = one
        self._ledger.tell_of(one)

    def made(
        self, number: int, tool: str, arguments: Result, confidence: float, revises: int = 0
    ) -> None:
        """A call is whole, and runs as soon as it may. It replaces call `revises`, if not 0."""
        self.opened(number)
        one = self._errands.get(number)
        if one is None or one.call.tool or one.unwanted or self._has_ended:
            return
        call = one.call
        call.tool, call.arguments, call.confidence = tool, dict(arguments), confidence
        one.is_client_run = tool not in self._sources
        one.rule = self._runner.policy.rule(tool, one.is_client_run)
        if old := self._errands.get(revises):
            one.replaces = old
            call.revision, call.supersedes = old.call.revision + 1, old.call.call_id
            self._drop(old, State.SUPERSEDED, f"replaced by {call.call_id}")
        self._life.begin(one)

    def cancelled(self, number: int) -> None:
        """The caller has taken a call back."""
        if one := self._errands.get(number):
            self._drop(one, State.CANCELLED, "taken back")

    def confirmed(self, number: int) -> None:
        """The caller has said yes to a call. Said before he was asked, it counts as well."""
        one = self._errands.get(number)
        if one and one.call.tool:
            one.has_yes = True
            one.take_voice()
            one.changed.set()

    def hand_off(self, reason: str, confidence: float = 1.0, actor: str = "agent") -> None:
        """A human is to go on: the agent wants it, or whoever `actor` is."""
        self._life.spawn(self._hand_off(reason, confidence, actor))

    # How the talk goes.

    def caller_has_floor(self, has_it: bool) -> None:
        """Whether the caller is being listened to. When he no longer is, what he said counts."""
        self._floor.is_callers = has_it
        self._life.wake()
        self._give_waiting()

    def agent_speaks(self, does: bool) -> None:
        """Whether the agent does."""
        self._floor.agent_speaks = does
        self._give_waiting()

    # What humans and clients say.

    def answered(self, call_id: str, result: Result) -> None:
        """A client-run call has brought that. Raises KeyError where there is no such call, it has
        not begun, or it has its answer."""
        one = self._by_id.get(call_id)
        if one is None or one.answer is None:
            raise KeyError(call_id)
        answer, one.answer = one.answer, None
        if not answer.cancelled():  # else nobody waits for it
            answer.set_result(dict(result))

    def approve(self, approval_id: str, approver: str, method: Method) -> None:
        """Raises KeyError where nothing waits under that id, PermissionError where the word of
        that method is not enough, ValueError where the answer is there already."""
        one, asked = self._asked(approval_id, approver)
        asked.approve(one.call, approver, method)
        one.changed.set()

    def refuse(self, approval_id: str, approver: str) -> None:
        """As `approve`, but nobody's no is too weak."""
        one, asked = self._asked(approval_id, approver)
        asked.refuse(approver)
        one.changed.set()

    def end(self) -> None:
        """The session has ended. What has not begun does not; what writes is let end. Nothing is
        delivered any more."""
        self._has_ended = True
        self._unsubscribe()
        for one in self._errands.values():
            if one.answer:
                one.answer.cancel()
            if one.call.state is State.DRAFT or (one.may_be_cut_off and not one.is_settled):
                self._drop(one, State.CANCELLED, "the session has ended")
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            self._life.spawn(self._ledger.note(one, "undelivered", {}))

    async def over(self) -> None:
        """After the end: returns when nothing runs any more."""
        await self._life.over()

    # What goes out.

    def _drop(self, one: Errand, state: State, reason: str) -> None:
        if one in self._waiting:
            self._waiting.remove(one)
        self._life.drop(one, state, reason)

    def _give(self, one: Errand, handoff: str) -> None:
        """The agent is given what a call brought: now, or when nobody talks."""
        if self._has_ended:
            self._life.spawn(self._ledger.note(one, "undelivered", {}))
            return
        self._waiting.append(one)
        self._give_waiting()
        self._failed_in_row = self._failed_in_row + 1 if one.call.state is State.FAILED else 0
        if not handoff and self._failed_in_row >= self._runner.policy.handoff_failures:
            handoff = "repeated_failure"
        if handoff:
            self._failed_in_row = 0
            self.hand_off(handoff, one.call.confidence, "policy")

    def _give_waiting(self) -> None:
        is_idle = not self._floor.is_callers and not self._floor.agent_speaks
        for one in [*self._waiting]:
            if is_idle or one.rule.delivery != "when_idle":
                self._waiting.remove(one)
                assert one.result is not None
                self._deliver(one.call.number, one.result, one.rule.delivery)
                self._tell(ResultGiven(one.call.call_id, one.call.revision, one.rule.delivery))

    def _not_undone(self, one: Errand) -> None:
        self.hand_off("compensation_failed", one.call.confidence, "policy")

    async def _hand_off(self, reason: str, confidence: float, actor: str) -> None:
        name, summary = f"handoff_{self._session}_{next(self._handoffs)}", self._summary()
        details = {"handoff": name, "reason": reason, "summary": summary}
        entry = Entry(self._tenant, self._session, "", "handoff", actor, details=details)
        try:
            await self._runner.journal.append(entry)
        except NOT_WRITTEN as error:  # a human is needed all the more
            _log.error("handoff_not_written", session=self._session, error=repr(error))
        self._tell(HandoffRequested(name, reason, confidence, summary))

    def _summary(self) -> str:
        """A line for each of the last calls."""
        lines = []
        for one in [*self._errands.values()][-_SUMMED_UP:]:
            given = one.rule.redacted(one.call.arguments)
            said = ", ".join(f"{name} {value}" for name, value in given.items())
            # What stands behind a colon may quote an argument that is redacted.
            reason = f" ({one.reason.partition(':')[0]})" if one.reason else ""
            lines.append(f"{one.call.tool or 'a call'}: {said}: {one.call.state}{reason}")
        return "\n".join(lines)

    def _asked(self, approval_id: str, approver: str) -> tuple[Errand, Approval]:
        if not 0 < len(approver) <= _LONGEST or not approver.isprintable():
            raise ValueError("an approver has a name of 1 to 100 printable letters")
        for one in self._errands.values():
            asked = one.approval
            is_open = one.call.state is State.AWAITING_CONFIRMATION and not one.unwanted
            if asked and asked.approval_id == approval_id and is_open:
                return one, asked
        raise KeyError(approval_id)

    def _mode_changed(self, change: Change) -> None:
        """Whoever waits looks whether he still may; who runs is named."""
        self._life.wake()
        kind, _, name = change.scope.partition(":")
        if kind in ("all", "tool") or (kind, name) in (
            ("tenant", self._tenant),
            ("session", self._session),
        ):
            running = [c.call.call_id for c in self._errands.values() if c.is_running]
            self._tell(ModeChanged(change.scope, change.after, change.actor, tuple(running)))
