"""What happens in sessions as CloudEvents 1.0: calls of tools that have ended, hand-offs, and the
sessions' ends. Events of a gateway's have nothing in them that policy redacts; so have these.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from serve.gateway.events import Ended, Event, Started, ToolEvent
from serve.gateway.gateway import Line
from serve.tools.call import State
from serve.tools.told import HandoffRequested, ToolChanged

Type = Literal[
    "io.duologue.tool.call.ended", "io.duologue.handoff.requested", "io.duologue.session.ended"
]
_OVER = {
    State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SUPERSEDED, State.COMPENSATED
}  # fmt: skip
_MOST_CALLS = 200  # of a session, that its end tells of: the last ones


class CloudEvent(msgspec.Struct, frozen=True):
    """As its JSON has it. `id` is another for each thing that happens, and the same however often
    that is told; `subject` is the session."""

    id: str
    source: str
    type: Type
    subject: str
    time: str
    data: dict[str, Any]
    specversion: Literal["1.0"] = "1.0"
    datacontenttype: Literal["application/json"] = "application/json"


class Events:
    """Makes them, of all sessions. `clock` gives Unix time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # What the end of a session tells of its calls, by session and call.
        self._calls: dict[str, dict[str, dict[str, Any]]] = {}

    def of(self, line: Line, event: Event) -> CloudEvent | None:
        """What is to be told of something that has happened, if anything is."""
        session = line.session.name
        match event:
            case Started():
                self._calls[session] = {}
            case ToolEvent(told=ToolChanged() as told) if told.tool and session in self._calls:
                return self._changed(line, told)
            case ToolEvent(told=HandoffRequested() as told):
                kind = "io.duologue.handoff.requested"
                return self._made(line, kind, told.handoff_id, asdict(told))
            case Ended(reason) if session in self._calls:
                data = self._summed_up(line, reason)
                return self._made(line, "io.duologue.session.ended", f"session_{session}", data)
        return None

    def _changed(self, line: Line, told: ToolChanged) -> CloudEvent | None:
        call = {
            "call_id": told.call_id,
            "tool": told.tool,
            "arguments": told.arguments,
            "state": told.state,
        }
        calls = self._calls[line.session.name]
        calls[told.call_id] = call
        if len(calls) > _MOST_CALLS:
            del calls[next(iter(calls))]
        if told.state not in _OVER:
            return None
        result = dict(told.result) if told.result is not None else None
        if result and isinstance(result.get("error"), str):
            result["error"] = _cut(result["error"])
        data = call | {
            "result": result,
            "reason": _cut(told.reason),
            "effect": told.effect,
            "is_client_run": told.is_client_run,
            "confidence": told.confidence,
            "revision": told.revision,
            "supersedes": told.supersedes,
        }
        name = f"{told.call_id}_{told.state}"
        return self._made(line, "io.duologue.tool.call.ended", name, data)

    def _summed_up(self, line: Line, reason: str) -> dict[str, Any]:
        calls = [*self._calls.pop(line.session.name).values()]
        succeeded = [call for call in calls if call["state"] is State.SUCCEEDED]
        return {
            "reason": reason,
            "duration_s": round(max(0.0, self._clock() - line.opened_at_s), 1),
            "intent": [call["tool"] for call in succeeded],
            "fields": {k: v for call in succeeded for k, v in call["arguments"].items()},
            "summary": "\n".join(_line_of(call) for call in calls),
            "calls": calls,
        }

    def _made(self, line: Line, kind: Type, name: str, data: dict[str, Any]) -> CloudEvent:
        session, tenant = line.session.name, line.arrival.tenant.name
        whose = {"session_id": session, "tenant": tenant, "dialect": line.arrival.dialect}
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        at = now.replace("+00:00", "Z")
        return CloudEvent(name, f"/duologue/{tenant}", kind, session, at, whose | data)


def _line_of(call: Mapping[str, Any]) -> str:
    said = ", ".join(f"{name} {value}" for name, value in call["arguments"].items())
    return f"{call['tool']}: {said}: {call['state']}"


def _cut(text: str) -> str:
    """An error: what stands behind its colon may quote arguments that are not to be told."""
    return text.partition(":")[0]
