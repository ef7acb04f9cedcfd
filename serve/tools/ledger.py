"""Changes the states of a session's calls: in the journal, then in fact; then they are told."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import structlog

from serve.tools.call import FOLLOWS, State
from serve.tools.errand import Errand, Result
from serve.tools.journal import NOT_WRITTEN, Entry, Journal
from serve.tools.told import Told, ToolChanged

_ACTORS = {
    State.SPECULATIVE: "agent",
    State.COMMITTED: "caller",
    State.AWAITING_CONFIRMATION: "policy",
    State.CANCELLED: "caller",
    State.SUPERSEDED: "caller",
}  # of the others: system
_log = structlog.get_logger()


class Ledger:
    """One session's. Only one task at a time deals with a call."""

    def __init__(self, journal: Journal, tell: Callable[[Told], None]) -> None:
        self._journal, self._tell = journal, tell

    async def begin(self, one: Errand, *states: State) -> None:
        """A call passes through these states, written in one go, and is to run then, which is not
        told before it does. Raises OSError where they can't be written: it is as it was."""
        await self._write(one, [*states, State.RUNNING], {"key": one.call.key})
        for state in states:
            self._tell_of(one, state)

    async def become(self, one: Errand, *states: State) -> None:
        """A call passes through these states. Raises OSError, and then it is as it was."""
        await self._write(one, states, {})
        for state in states:
            self._tell_of(one, state)

    async def end(self, one: Errand, state: State, result: Result | None = None) -> None:
        """What has happened has, whether it can be written down or not."""
        states = [state]
        if one.call.state is State.DRAFT and state is State.FAILED:
            states = [State.SPECULATIVE, state]
        details = {"reason": one.reason} if one.reason else {}
        if result is not None:
            details["result"] = one.rule.redacted(result)
        try:
            await self._write(one, states, details)
        except NOT_WRITTEN as error:
            _log.error("journal_not_written", call_id=one.call.call_id, error=repr(error))
            one.call.state = state
        for passed in states:
            self._tell_of(one, passed)

    async def note(
        self, one: Errand, kind: str, details: Mapping[str, Any], actor: str = "system"
    ) -> None:
        """Something else has happened to a call, or is about to. Raises OSError."""
        call = one.call
        await self._journal.append(
            Entry(call.tenant, call.session, call.call_id, kind, actor, details=details)
        )

    def tell_of(self, one: Errand) -> None:
        """What is to be known of a call now."""
        self._tell_of(one, one.call.state)

    async def _write(
        self, one: Errand, states: Sequence[State], details: Mapping[str, Any]
    ) -> None:
        call = one.call
        entries = []
        for before, after in pairwise([call.state, *states]):
            assert after in FOLLOWS[before], f"call {call.call_id}: {after} can't follow {before}"
            given = _made(one) if before is State.DRAFT else {}
            given |= details if after is states[-1] else {}
            who = (call.tenant, call.session, call.call_id)
            actor = _ACTORS.get(after, "system")
            entries.append(Entry(*who, "call", actor, before, after, given))
        if len(entries) == 1:
            await self._journal.append(entries[0])
        else:  # in this order, but they may reach the disk together
            await asyncio.gather(*(self._journal.append(entry) for entry in entries))
        call.state = states[-1]

    def _tell_of(self, one: Errand, state: State) -> None:
        call, rule = one.call, one.rule
        self._tell(
            ToolChanged(
                call.call_id,
                call.number,
                call.revision,
                call.supersedes,
                state,
                call.tool,
                call.arguments,
                call.confidence,
                rule.effect,
                call.key,
                rule.timeout_s,
                rule.delivery,
                one.is_client_run,
                one.unwanted is None,
                one.result,
                one.reason,
            )
        )


def _made(one: Errand) -> dict[str, Any]:
    """What the journal says of a call once: what the agent made."""
    call = one.call
    return {
        "tool": call.tool,
        "arguments": one.rule.redacted(call.arguments),
        "args_sha256": call.arguments_hash,
        "confidence": call.confidence,
        "revision": call.revision,
        "supersedes": call.supersedes,
        "effect": one.rule.effect,
    }
