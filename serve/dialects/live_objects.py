"""What servers send over OpenAI's Live protocol: the objects inside of its events."""

import itertools
from typing import Any

import msgspec

from model.frame import FRAME_MS
from serve.dialects.live_delegation import DELEGATION, delegates_to_client
from serve.dialects.reading import FORMATS
from serve.dialects.server_tools import told_back
from serve.dialects.writing import Refusal, Writer
from serve.gateway.events import CallMade, Problem, Settings

_SETTINGS = {  # as Live calls them
    "instructions": "session.instructions",
    "tools": "session.delegation.responses.tools",
    "format": "session.audio.format",
}
_PARAMS = {**_SETTINGS, "text": "content", "output": "item.output", "call_id": "item.call_id"}


def session_config(settings: Settings, model: str) -> dict[str, Any]:
    """What a session is set to, as Live's clients are told it."""
    client = {"type": "client"}
    responses = {"type": "responses", "responses": {"model": model, "tools": told_back(settings)}}
    sound = settings.output_format
    return {
        "instructions": settings.instructions,
        "audio": {
            "format": {"type": FORMATS[sound.encoding], "rate": sound.rate_hz},
            "output": {"voice": settings.voice or None},
        },
        "delegation": client if delegates_to_client(settings) else responses,
    }


def delegation_created(call_id: str, number: int, response_id: str | None) -> dict[str, Any]:
    """The fields that tell of a call, made at frame `number`: work that is delegated to whoever
    makes a response of it, or to the client (None)."""
    delegation = {"id": DELEGATION + call_id, "type": "delegation"}
    if response_id:
        delegation |= {"target": "responses", "response_id": response_id}
    else:
        delegation |= {"target": "client"}
    return {"offset_ms": number * FRAME_MS, "delegation": delegation}


class DelegateResponse:
    """A response of the Responses API, event by event. It is reduced as Live's are: what it holds
    comes in events only."""

    def __init__(
        self,
        writer: Writer,
        delegation_id: str | None,
        response_id: str,
        model: str,
        created_at_s: float,
    ) -> None:
        self._writer, self._delegation_id = writer, delegation_id
        self._numbers = itertools.count()
        self._response = {
            "id": response_id,
            "object": "response",
            "created_at": created_at_s,
            "model": model,
            "output": [],
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }

    def open(self) -> dict[str, Any]:
        """Its first event."""
        response = {**self._response, "status": "in_progress"}
        return self.tell({"type": "response.created", "response": response})

    def tell(self, event: dict[str, Any]) -> dict[str, Any]:
        """An event of what it holds, as clients get it."""
        event = {**event, "sequence_number": next(self._numbers)}
        return self._writer.message(
            "response.event", delegation_id=self._delegation_id, event=event
        )

    def close(self) -> dict[str, Any]:
        """Its last event."""
        response = {**self._response, "status": "completed"}
        return self.tell({"type": "response.completed", "response": response})


def function_call_events(call: CallMade) -> list[dict[str, Any]]:
    """A call as events of the Responses API."""
    arguments = msgspec.json.encode(dict(call.arguments)).decode()
    item_id = f"fc_{call.call_id}"
    item = {"id": item_id, "type": "function_call", "call_id": call.call_id, "name": call.tool}
    begun = {**item, "status": "in_progress", "arguments": ""}
    done = {**item, "status": "completed", "arguments": arguments}
    place = {"item_id": item_id, "output_index": 0}
    whole = {"name": call.tool, "arguments": arguments}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.function_call_arguments.delta", **place, "delta": arguments},
        {"type": "response.function_call_arguments.done", **place, **whole},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
    ]


def refusal_of(problem: Problem) -> tuple[Refusal, bool]:
    """A session's problem in Live's words, and whether it is that settings were not taken."""
    param = _PARAMS.get(problem.param, problem.param) or None
    retry_after_s = problem.retry_after_s
    refusal = Refusal(problem.code, problem.message, param, retry_after_s=retry_after_s)
    return refusal, problem.param in _SETTINGS


def error_object(refusal: Refusal) -> dict[str, Any]:
    """What is wrong, as clients are told it; absent is what there is none of."""
    error = {
        "type": refusal.type,
        "code": refusal.code,
        "message": refusal.message,
        "param": refusal.param,
        "client_event_id": refusal.event_id,
        "retry_after_s": refusal.retry_after_s or None,
    }
    return {name: value for name, value in error.items() if value is not None}
