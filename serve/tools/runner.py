"""Runs tools within what their rules leave them: rates, breakers, concurrency, retries.

It belongs to the server: what it counts, it counts over all sessions.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import limits
import stamina
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from serve.tools import policy as policies
from serve.tools.call import Call
from serve.tools.journal import Entry, Journal
from serve.tools.modes import Modes
from serve.tools.policy import Policy, Rule
from serve.tools.source import Run, Runs, ToolError

_FIRST_WAIT_S, _LONGEST_WAIT_S, _JITTER_S = 0.1, 2.0, 0.1  # between tries
_parsed = functools.cache(limits.parse_many)


class Refused(ToolError):
    """A call may not run. `code` is what the agent is told: `denied`, `rate_limited`,
    `unavailable`, `timeout` or `low_confidence`, as it is of tools' own errors; the message is for
    whoever watches. Where there is a `handoff`, that is why a human is to go on."""

    def __init__(self, code: str, message: str, handoff: str = "") -> None:
        super().__init__(message)
        self.code, self.handoff = code, handoff


class Breaker:
    """Keeps calls away from a tool that fails."""

    def __init__(self, rule: policies.Breaker, clock: Callable[[], float]) -> None:
        self._rule, self._clock = rule, clock
        self._failed = 0  # in a row
        self._closed_until_s = 0.0

    def lets_through(self) -> bool:
        """Whether a call may run: after a while one may, and the next not until again a while
        later, or once that one has succeeded."""
        if self._failed < self._rule.failures:
            return True
        now_s = self._clock()
        if now_s < self._closed_until_s:
            return False
        self._closed_until_s = now_s + self._rule.reset_s
        return True

    def ended(self, is_well: bool) -> None:
        """A call that ran has."""
        self._failed = 0 if is_well else self._failed + 1
        if self._failed == self._rule.failures:
            self._closed_until_s = self._clock() + self._rule.reset_s


class Runner:
    """For all the sessions of a server, on its event loop; made on it."""

    def __init__(
        self,
        policy: Policy,
        modes: Modes,
        journal: Journal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy, self.modes, self.journal = policy, modes, journal
        self._clock = clock
        self._rates = FixedWindowRateLimiter(MemoryStorage())
        self._breakers: dict[str, Breaker] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    def admit(self, call: Call, rule: Rule) -> None:
        """It is about to run. Raises Refused where its tool has run too often, or fails."""
        if rule.breaker:
            breaker = self._breakers.setdefault(call.tool, Breaker(rule.breaker, self._clock))
            if not breaker.lets_through():
                raise Refused("unavailable", "the tool has failed too often: it is left alone")
        for text in rule.rates:
            for rate in _parsed(text):
                if not self._rates.hit(rate, call.tenant, call.session, call.tool):
                    raise Refused("rate_limited", f"the tool may run {rate} only")

    def ended(self, call: Call, is_well: bool) -> None:
        """It ran, and that is how it went."""
        if breaker := self._breakers.get(call.tool):
            breaker.ended(is_well)

    async def run(
        self,
        source: Runs,
        call: Call,
        rule: Rule,
        check: Callable[[], None],
        begin: Callable[[], None],
    ) -> dict[str, Any]:
        """What the tool brings. That it will run must be in the journal. `check` raises ToolError
        where it may run no more: it is asked before every try with nothing in between, and `begin`
        is called before the first. Raises ToolError, and OSError where the journal can't be
        written."""
        ends_s = asyncio.get_running_loop().time() + rule.timeout_s
        async with self._slot(call, rule):
            async for attempt in stamina.retry_context(
                on=_is_retryable,
                attempts=rule.retries + 1,
                timeout=rule.timeout_s,
                wait_initial=_FIRST_WAIT_S,
                wait_max=_LONGEST_WAIT_S,
                wait_jitter=_JITTER_S,
            ):
                with attempt:
                    if attempt.num > 1:
                        await self._note_retry(call, attempt.num)
                    left_s = max(ends_s - asyncio.get_running_loop().time(), 0.001)
                    run = Run(call.session, call.tenant, call.call_id, call.key, left_s, check)
                    check()
                    if attempt.num == 1:
                        begin()
                    return await source.run(call.tool, call.arguments, run)
        raise AssertionError("the last try returns or raises")

    def _slot(self, call: Call, rule: Rule) -> AbstractAsyncContextManager:
        """One of those that the tool has at once."""
        if rule.concurrency is None:
            return contextlib.nullcontext()
        return self._slots.setdefault(call.tool, asyncio.Semaphore(rule.concurrency))

    async def _note_retry(self, call: Call, number: int) -> None:
        details = {"key": call.key, "attempt": number}
        await self.journal.append(
            Entry(call.tenant, call.session, call.call_id, "retry", "system", details=details)
        )


def _is_retryable(error: Exception) -> bool:
    return isinstance(error, ToolError) and error.is_retryable
