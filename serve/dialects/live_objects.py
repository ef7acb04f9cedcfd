"""What servers send over OpenAI's Live protocol: the objects inside of its events."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from serve.dialects.live_delegation import delegates_to_client
from serve.dialects.reading import FORMATS
from serve.dialects.writing import Refusal
from serve.gateway.events import CallMade, Problem, Settings

_SETTINGS = {  # as Live calls them
    "instructions": "session.instructions",
    "tools": "session.delegation.responses.tools",
    "format": "session.audio.format",
}
_PARAMS = {**_SETTINGS, "text": "content", "output": "item.output", "call_id": "item.call_id"}


def session_config(settings: Settings, model: str) -> dict[str, Any]:
    """What a session is set to, as Live's clients are told it."""
    tools = [{"type": "function", **tool} for tool in settings.tools]
    client = {"type": "client"}
    responses = {"type": "responses", "responses": {"model": model, "tools": tools}}
    sound = settings.output_format
    return {
        "instructions": settings.instructions,
        "audio": {
            "format": {"type": FORMATS[sound.encoding], "rate": sound.rate_hz},
            "output": {"voice": settings.voice or None},
        },
        "delegation": client if delegates_to_client(settings) else responses,
    }


def response_events(
    response_id: str, model: str, created_at_s: float, made: Iterable[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A response of the Responses API from its creation to its completion, with the events of what
    is `made` in it. It is reduced as Live's are: what it holds comes in events only."""
    response = {
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
    created = {"type": "response.created", "response": {**response, "status": "in_progress"}}
    completed = {"type": "response.completed", "response": {**response, "status": "completed"}}
    for number, event in enumerate([created, *made, completed]):
        yield {**event, "sequence_number": number}


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
