"""What a desk tells clients and the console: one dataclass an event."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.tools.call import State
from serve.tools.policy import Delivery, Effect, Method


@dataclass(frozen=True)
class ToolChanged:
    """A call is in another state, or nobody wants it any more (`is_wanted`) although it runs on.
    Where `is_client_run`, one that is `running` is to be run by the client. `result` is there when
    it has ended, `reason` where that was not by itself. Nothing in it is redacted."""

    call_id: str
    number: int
    revision: int
    supersedes: str
    state: State
    tool: str
    arguments: Mapping[str, Any]
    confidence: float
    effect: Effect
    key: str
    timeout_s: float
    delivery: Delivery
    is_client_run: bool
    is_wanted: bool
    result: Mapping[str, Any] | None = None
    reason: str = ""


@dataclass(frozen=True)
class ConfirmationAsked:
    """A call waits for a human's word, of `method` or stronger, until `expires_at` (Unix time).
    That it waits no longer shows in the call's next state."""

    approval_id: str
    call_id: str
    number: int
    revision: int
    args_sha256: str
    prompt: str
    method: Method
    expires_at: float


@dataclass(frozen=True)
class ResultGiven:
    """The agent has been given what a call brought."""

    call_id: str
    revision: int
    how: Delivery


@dataclass(frozen=True)
class HandoffRequested:
    """A human is to go on: `requested`, `low_confidence`, `repeated_failure`, `policy` or
    `compensation_failed`. `summary` says what the calls have come to, redacted."""

    handoff_id: str
    reason: str
    confidence: float
    summary: str


@dataclass(frozen=True)
class HandoffFailed:
    """The call could not be put through to where it was to go: the agent goes on."""

    handoff_id: str
    reason: str


@dataclass(frozen=True)
class ModeChanged:
    """A mode that holds for the session, or for a tool, is another one. The `running` calls (their
    ids) had begun before, and go on to their end."""

    scope: str
    mode: str
    actor: str
    running: tuple[str, ...] = ()


Told = (
    ToolChanged | ConfirmationAsked | ResultGiven | HandoffRequested | HandoffFailed | ModeChanged
)
