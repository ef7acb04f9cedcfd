"""A tool call of an agent's, and the states that it may be in.

    draft -> speculative -> committed -> awaiting_confirmation -> running
          -> succeeded | failed | cancelled | superseded | compensated

What may follow what is `FOLLOWS`, and nothing else happens to a call.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Of a call."""

    DRAFT = "draft"  # the agent has begun to make it
    SPECULATIVE = "speculative"  # made while the caller still speaks: what only reads may run
    COMMITTED = "committed"  # the caller has left the floor, or his word was enough
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    COMPENSATED = "compensated"  # it had run, and what it did was undone


S = State
FOLLOWS: Mapping[State, frozenset[State]] = {
    S.DRAFT: frozenset({S.SPECULATIVE, S.CANCELLED, S.SUPERSEDED}),
    S.SPECULATIVE: frozenset({S.COMMITTED, S.RUNNING, S.FAILED, S.CANCELLED, S.SUPERSEDED}),
    S.COMMITTED: frozenset(
        {S.AWAITING_CONFIRMATION, S.RUNNING, S.FAILED, S.CANCELLED, S.SUPERSEDED}
    ),
    S.AWAITING_CONFIRMATION: frozenset({S.RUNNING, S.FAILED, S.CANCELLED, S.SUPERSEDED}),
    # A write that runs is never cancelled: a correction is dealt with when it has ended.
    S.RUNNING: frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED, S.SUPERSEDED}),
    S.SUCCEEDED: frozenset({S.SUPERSEDED, S.COMPENSATED}),
    # One that took too long may have happened nevertheless, and is undone where nobody wants it.
    S.FAILED: frozenset({S.COMPENSATED}),
    S.CANCELLED: frozenset({S.COMPENSATED}),
    S.SUPERSEDED: frozenset({S.COMPENSATED}),
    S.COMPENSATED: frozenset(),
}
del S


@dataclass
class Call:
    """One of a session's. `revision` counts the calls for the same task, from 0; `supersedes` is
    the one before it, "" for none. Whatever runs it, once or again, does so under `key`."""

    call_id: str
    session: str
    tenant: str
    number: int
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    confidence: float = 1.0
    revision: int = 0
    supersedes: str = ""
    state: State = State.DRAFT

    @property
    def arguments_hash(self) -> str:
        """SHA-256 of the arguments, whatever their order: what an approval is bound to."""
        written = json.dumps(self.arguments, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(written.encode()).hexdigest()

    @property
    def key(self) -> str:
        """The idempotency key."""
        return f"{self.call_id}:{self.revision}:{self.arguments_hash[:16]}"

    def may_become(self, state: State) -> bool:
        """Whether that may follow."""
        return state in FOLLOWS[self.state]
