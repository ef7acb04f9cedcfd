"""What a call goes through, in a task of its own: every step is in the journal before anything
comes of it.

    draft -> speculative -> committed -> awaiting_confirmation -> running -> how it ended

Whether it may still run is asked after every wait, and for the last time with nothing between that
and the start.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import structlog

from serve.tools.call import FOLLOWS, Call, State
from serve.tools.errand import Client, Errand
from serve.tools.gate import Gate, Unwanted
from serve.tools.journal import NOT_WRITTEN
from serve.tools.ledger import Ledger
from serve.tools.runner import Refused, Runner
from serve.tools.source import Runs, ToolError

_GRACE_S = 0.5  # after its deadline, for a write to say itself what became of it
_BROKEN = ("unavailable", "timeout")  # said by a tool that does not work; the rest is its answer
_log = structlog.get_logger()


class Life:
    """That of a session's calls. Results go to `give(errand, handoff)`, which says as well why a
    human is to go on, if one is; `lost(errand)` is told where what was done can't be undone."""

    def __init__(
        self,
        runner: Runner,
        ledger: Ledger,
        gate: Gate,
        sources: Mapping[str, Runs],
        give: Callable[[Errand, str], None],
        lost: Callable[[Errand], None],
    ) -> None:
        self._runner, self._ledger, self._gate, self._sources = runner, ledger, gate, sources
        self._give, self._lost = give, lost
        self._tasks: set[asyncio.Task[None]] = set()
        self._errands: dict[Errand, None] = {}  # that are dealt with; woken in their order

    def begin(self, one: Errand) -> None:
        """A call has been made."""
        self._deal_with(one, self._live(one))

    def drop(self, one: Errand, state: State, reason: str) -> None:
        """Nobody wants a call any more, which becomes `state`: at once, unless it writes."""
        if one.unwanted:
            return
        one.unwanted, one.reason = state, one.reason or reason
        one.changed.set()
        self._ledger.tell_of(one)
        self._undo_where_due(one)
        if one.running and one.may_be_cut_off:
            one.running.cancel()

    def wake(self) -> None:
        """Something is different now."""
        for one in self._errands:
            one.changed.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Does it, and is not over before it is done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def over(self) -> None:
        """Returns when nothing is being done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _deal_with(self, one: Errand, work: Coroutine[Any, Any, None]) -> None:
        one.is_settled = False
        self._errands[one] = None
        self.spawn(work).add_done_callback(lambda _: self._settle(one))

    def _settle(self, one: Errand) -> None:
        one.is_settled = True
        self._errands.pop(one, None)
        self._undo_where_due(one)
        if one.is_settled:
            self.wake()

    def _undo_where_due(self, one: Errand) -> None:
        """Where nobody wants a call that is over: it is said, and what it did is undone."""
        is_said = one.unwanted not in FOLLOWS[one.call.state]
        is_done = one.brought is None or one.rule.compensation is None or one.is_undone
        if one.unwanted and one.is_settled and not (is_said and is_done):
            self._deal_with(one, self._undo(one))

    async def _live(self, one: Errand) -> None:
        try:
            await self._run(one, await self._gate.lead_up(one))
        except Unwanted:
            assert one.unwanted
            await self._ledger.end(one, one.unwanted)
        except Refused as refusal:
            await self._fail(one, refusal.code, str(refusal), refusal.handoff)
        except NOT_WRITTEN as error:  # in the journal: nothing has run
            _log.error("journal_not_written", call_id=one.call.call_id, error=repr(error))
            await self._fail(one, "unavailable", repr(error))

    async def _run(self, one: Errand, due: list[State]) -> None:
        """From its start to what comes of it."""
        call, rule = one.call, one.rule
        self._gate.check(one)
        self._runner.admit(call, rule)
        await self._ledger.begin(one, *due)
        self._gate.may_start(one)
        source = Client(one) if one.is_client_run else self._sources.get(call.tool)
        if source is None:
            raise Refused("unavailable", "the tool is gone")
        may_start, started = partial(self._gate.may_start, one), partial(self._started, one)
        running = asyncio.create_task(self._runner.run(source, call, rule, may_start, started))
        one.running = running
        await asyncio.wait({running}, timeout=rule.timeout_s)
        if not running.done() and not one.may_be_cut_off:
            await asyncio.wait({running}, timeout=_GRACE_S)
        if running.done():
            await self._ended(one, running)
            return
        one.is_overdue = True
        if one.may_be_cut_off:
            running.cancel()
        else:
            self.spawn(self._late(one, running))
        self._runner.ended(call, is_well=False)
        await self._fail(one, "timeout", "it took too long")

    def _started(self, one: Errand) -> None:
        one.has_begun = True
        if one.is_client_run:
            one.answer = asyncio.get_running_loop().create_future()
        self._ledger.tell_of(one)

    async def _ended(self, one: Errand, running: asyncio.Task[dict[str, Any]]) -> None:
        """It has run, or tried to."""
        if running.cancelled():
            if one.unwanted:
                raise Unwanted(one.reason)
            raise Refused("unavailable", "it was given up")
        error = running.exception()
        if error is None:
            self._runner.ended(one.call, is_well=True)
            one.result = one.brought = running.result()
            await self._ledger.end(one, one.unwanted or State.SUCCEEDED, one.result)
            if not one.unwanted:
                self._give(one, "")
        elif not one.has_begun or isinstance(error, Refused | Unwanted):
            raise error
        else:
            code = str(error) if isinstance(error, ToolError) else "unavailable"
            if not isinstance(error, ToolError):
                _log.error("tool_raised", tool=one.call.tool, exc_info=error)
            self._runner.ended(one.call, is_well=code not in _BROKEN)
            await self._fail(one, code, str(error))

    async def _fail(self, one: Errand, code: str, reason: str, handoff: str = "") -> None:
        """It did not do what it should, and the agent hears so, unless nobody wants it."""
        if not one.unwanted:
            one.reason, one.result = reason, {**one.call.arguments, "error": code}
            if code == "timeout" and not one.may_be_cut_off:
                one.result = {**one.result, "outcome": "unknown"}
        await self._ledger.end(one, one.unwanted or State.FAILED, one.result)
        if not one.unwanted:
            self._give(one, handoff)

    async def _late(self, one: Errand, running: asyncio.Task[dict[str, Any]]) -> None:
        """What wrote, and nobody waits for any more, ends after all: a call, or what undoes it."""
        await asyncio.wait({running})
        error = "cancelled" if running.cancelled() else running.exception()
        if error is None and not one.is_undone:
            one.brought = running.result()
            self._undo_where_due(one)
        details = (
            {"error": str(error)} if error else {"result": one.rule.redacted(running.result())}
        )
        await self._ledger.note(one, "late", details)

    async def _undo(self, one: Errand) -> None:
        """As far as its rule knows how."""
        assert one.unwanted
        if one.unwanted in FOLLOWS[one.call.state]:
            await self._ledger.end(one, one.unwanted, one.result)
        if one.brought is None or one.rule.compensation is None or one.is_undone:
            return
        one.is_undone = True
        try:
            await self._compensate(one)
        except Exception as error:
            _log.error("not_undone", call_id=one.call.call_id, error=repr(error))
            one.reason = f"not undone: {error}"
            self._ledger.tell_of(one)
            self._lost(one)
        else:
            await self._ledger.end(one, State.COMPENSATED)

    async def _compensate(self, one: Errand) -> None:
        """Raises whatever is in the way."""
        call, undoing = one.call, one.rule.compensation
        assert undoing
        assert one.brought is not None
        known = {**call.arguments, **one.brought}
        arguments = {name: known[name] for name in undoing.fields}
        source = self._sources[undoing.tool]
        rule = self._runner.policy.rule(undoing.tool, is_client_run=False)
        name = f"{call.call_id}_undone"
        undo = Call(name, call.session, call.tenant, call.number, undoing.tool, arguments)
        details = {"tool": undo.tool, "arguments": rule.redacted(arguments), "key": undo.key}
        await self._ledger.note(one, "compensation", details, "policy")
        may_start = partial(self._gate.check_mode, undo, rule, is_approved=False)
        # A task of its own: it writes too, and is not cut off.
        running = asyncio.create_task(self._runner.run(source, undo, rule, may_start, lambda: None))
        done, _ = await asyncio.wait({running}, timeout=rule.timeout_s + _GRACE_S)
        if not done:
            self.spawn(self._late(one, running))
            raise TimeoutError("it took too long")
        running.result()
