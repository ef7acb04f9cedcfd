"""What stands between a call and its start: the floor, policy, a human's word, the mode."""

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass

from serve.tools.approvals import Approval
from serve.tools.call import Call, State
from serve.tools.errand import Errand
from serve.tools.ledger import Ledger
from serve.tools.modes import Mode
from serve.tools.policy import Method, Rule
from serve.tools.runner import Refused, Runner
from serve.tools.source import ToolError
from serve.tools.told import ConfirmationAsked


class Unwanted(ToolError):
    """Nobody wants the call any more."""


@dataclass
class Floor:
    """Who is talking: whether the caller is listened to, and whether the agent speaks."""

    is_callers: bool = False
    agent_speaks: bool = False


class Gate:
    """That of one session, whose client wants to be asked about calls of the tools `confirmed`. It
    asks humans by `ask`; `clock` gives Unix time."""

    def __init__(
        self,
        runner: Runner,
        ledger: Ledger,
        floor: Floor,
        confirmed: Container[str],
        ask: Callable[[ConfirmationAsked], None],
        clock: Callable[[], float],
    ) -> None:
        self._runner, self._ledger, self._floor = runner, ledger, floor
        self._confirmed, self._ask, self._clock = confirmed, ask, clock

    async def lead_up(self, one: Errand) -> list[State]:
        """Until it may run. Returns the states on the way that are still to be written: where
        nothing has to be waited for, all of them are written in one go."""
        self.check(one)
        self._judge(one)
        due = [State.SPECULATIVE]
        if self._floor.is_callers and not one.has_yes:
            if one.rule.speculation and not self._method(one):
                return due
            await self._ledger.become(one, *due)
            due = []
            await self._until(one, lambda: not self._floor.is_callers or one.has_yes)
        due.append(State.COMMITTED)
        old = one.replaces
        if old and not old.is_settled and one.rule.effect != "read" and not self._is_free(old):
            await self._ledger.become(one, *due)
            due = []
            await self._until(one, lambda: old.is_settled)  # it ends first, and is undone
        if method := self._method(one):
            await self._ledger.become(one, *due, State.AWAITING_CONFIRMATION)
            due = []
            await self._confirm(one, method)
        return due

    def _is_free(self, old: Errand) -> bool:
        """Whether a client runs it as he likes: he knows that it is replaced, and may never say
        what came of it."""
        return old.is_client_run and self._runner.policy.is_open

    def _judge(self, one: Errand) -> None:
        """Raises Refused where policy lets the call by no means run."""
        rule, call = one.rule, one.call
        if not self._runner.policy.is_granted(call.tenant, rule):
            handoff = "policy" if rule.refused == "handoff" else ""
            raise Refused("denied", f"the tenant needs {', '.join(rule.scopes)}", handoff)
        if call.confidence < rule.min_confidence and rule.unsure == "handoff":
            raise Refused("low_confidence", "the agent is not sure enough", "low_confidence")

    def _method(self, one: Errand) -> Method | None:
        """Whose word the call needs before it runs."""
        if one.rule.confirmation != "none":
            return one.rule.confirmation
        if self._mode(one.call) is Mode.CONFIRM_ALL:
            return "console"
        if one.call.tool in self._confirmed:
            return "dtmf"
        return "voice" if one.call.confidence < one.rule.min_confidence else None

    async def _confirm(self, one: Errand, method: Method) -> None:
        """Asks, and waits for a yes. Raises Refused where none comes."""
        call, wait_s = one.call, one.rule.confirm_s
        name, expires_at = f"approval_{call.session}_{call.number}", self._clock() + wait_s
        bound = (call.revision, call.arguments_hash)
        asked = one.approval = Approval(name, call.call_id, *bound, method, expires_at)
        given = ", ".join(f"{argument} {value}" for argument, value in call.arguments.items())
        who = (name, call.call_id, call.number)
        self._ask(ConfirmationAsked(*who, *bound, f"{call.tool}: {given}", method, expires_at))
        one.take_voice()
        try:
            async with asyncio.timeout(wait_s):
                await self._until(one, lambda: bool(asked.answer))
        except TimeoutError:
            if not asked.answer:
                asked.refuse("system")
        details = {"approval": name, "revision": bound[0], "args_sha256": bound[1]}
        await self._ledger.note(one, asked.answer, details, asked.approver)
        if asked.answer == "refused":
            is_late = asked.approver == "system"
            by = "nobody has confirmed it in time" if is_late else f"refused by {asked.approver}"
            raise Refused("denied", by)

    async def _until(self, one: Errand, is_so: Callable[[], bool]) -> None:
        """Waits. Raises as `check` as soon as it would."""
        while True:
            self.check(one)
            if is_so():
                return
            one.changed.clear()
            await one.changed.wait()

    def _mode(self, call: Call) -> Mode:
        return self._runner.modes.of(call.tenant, call.session, call.tool)

    def check(self, one: Errand) -> None:
        """Raises Unwanted or Refused where the call may run no more."""
        if one.unwanted:
            raise Unwanted(one.reason)
        self.check_mode(one.call, one.rule, is_approved=True)

    def check_mode(self, call: Call, rule: Rule, is_approved: bool) -> None:
        """Raises Refused where the mode does not let it run. On any thread."""
        mode = self._mode(call)
        is_stopped = mode is Mode.OFF or (mode is Mode.READ_ONLY and rule.effect != "read")
        if is_stopped or (mode is Mode.CONFIRM_ALL and not is_approved):
            raise Refused("denied", f"the mode is {mode}", "policy" * (rule.refused == "handoff"))

    def may_start(self, one: Errand) -> None:
        """Raises as `check`, and where it has been given up or nobody has approved of it as the
        mode wants it by now: right before it starts. On any thread."""
        if one.unwanted:
            raise Unwanted(one.reason)
        if one.is_overdue:
            raise Refused("timeout", "it took too long")
        self.check_mode(one.call, one.rule, one.is_approved)
