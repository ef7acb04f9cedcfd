"""What clients are told alike in all protocols: names, errors, and the events that only we have."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from model.frame import FRAME_MS
from serve.dialects.dialect import Send
from serve.gateway.events import Event, HandedBack, Started, TakenOver, ToolEvent
from serve.tools.told import (
    ConfirmationAsked,
    HandoffFailed,
    HandoffRequested,
    ModeChanged,
    ResultGiven,
    Told,
    ToolChanged,
)

_TOOL_FIELDS = (
    "call_id", "revision", "supersedes", "state", "tool", "arguments", "confidence", "effect",
    "delivery", "is_client_run", "is_wanted", "result", "reason",
)  # fmt: skip
_ERROR_TYPES = {
    "rate_limit_exceeded": "rate_limit_error",
    "not_taken": "server_error",
    "server_full": "server_error",
}


@dataclass(frozen=True)
class Refusal:
    """Why what a client asked for is not done, under its protocol's own code or a Problem's:
    `param` is the field that was wrong, `event_id` the client's message, if it is known."""

    code: str
    message: str
    param: str | None = None
    event_id: str | None = None
    retry_after_s: float = 0.0

    @property
    def type(self) -> str:
        """The class of errors it belongs to."""
        return _ERROR_TYPES.get(self.code, "invalid_request_error")


class Writer:
    """Names things and makes messages for one client. What it makes depends on nothing but the
    session's id and what came before. With `has_extensions` it has more to say than the client's
    protocol has words for."""

    def __init__(self, has_extensions: bool) -> None:
        self.session_id = ""
        self._has_extensions = has_extensions
        self._count = 0

    def new_id(self, kind: str) -> str:
        """A name that nothing else has in the session."""
        self._count += 1
        return f"{kind}_{self.session_id}_{self._count}"

    def message(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """A message that is not sent yet."""
        return {"type": kind, "event_id": self.new_id("event"), **fields}

    def event(self, kind: str, /, **fields: Any) -> Send:
        """A message."""
        return sent(self.message(kind, **fields))

    def error(self, refusal: Refusal) -> Send:
        """What was not done, as Realtime and Hydra say it."""
        error = {
            "type": refusal.type,
            "code": refusal.code,
            "message": refusal.message,
            "param": refusal.param,
            "event_id": refusal.event_id,
        }
        if refusal.retry_after_s:
            error["retry_after_s"] = refusal.retry_after_s
        return self.event("error", error=error)

    def resumption(self, started: Started) -> dict[str, str]:
        """By what a client may come back: a field of what it is told first."""
        return {"resume_token": started.resume_token} if self._has_extensions else {}

    def extensions(self, event: Event) -> Iterator[dict[str, Any]]:
        """The messages that only we have of an event."""
        if self._has_extensions:
            for what, number, fields in _extensions_of(event):
                at = {"at_ms": max(number, 0) * FRAME_MS}
                yield self.message(f"duologue.{what}", **at, **fields)


def sent(message: dict[str, Any]) -> Send:
    """A message as JSON; bytes go as base64."""
    return Send(msgspec.json.encode(message).decode())


def _extensions_of(event: Event) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Each one's type, frame and fields."""
    match event:
        case ToolEvent(number, told):
            kind, fields = fields_of(told)
            yield kind, number, fields
        case TakenOver(number, operator):
            yield "handoff.accepted", number, {"operator": operator}
        case HandedBack(number, operator):
            yield "handoff.ended", number, {"operator": operator}


def fields_of(told: Told) -> tuple[str, dict[str, Any]]:
    """What a desk tells, as a message's kind and fields."""
    match told:
        case ToolChanged():
            fields = {name: getattr(told, name) for name in _TOOL_FIELDS}
            deadline_ms = round(1000 * told.timeout_s)
            return "tool.call", {**fields, "idempotency_key": told.key, "deadline_ms": deadline_ms}
        case ConfirmationAsked():
            fields = {name: value for name, value in vars(told).items() if name != "number"}
            return "tool.confirm.request", fields
        case ResultGiven():
            return "tool.result", {**vars(told)}
        case HandoffRequested():
            return "handoff.requested", {**vars(told)}
        case HandoffFailed():
            return "handoff.failed", {**vars(told)}
        case ModeChanged():
            return "mode.changed", {**vars(told)}
