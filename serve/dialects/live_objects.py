"""What servers send over OpenAI's Live protocol: the objects inside of its events."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from serve.gateway.events import CallMade, Problem, Settings

# The tool of an agent that delegates to its client. What is wanted is said nowhere in Live:
# applications find it in the transcripts.
DELEGATE = {
    "name": "delegate",
    "description": "Hands what the caller wants over to those who can look it up or do it.",
    "parameters": {"type": "object", "properties": {}},
}
_FORMATS = {"pcm16": "audio/pcm", "mulaw": "audio/pcmu", "alaw": "audio/pcma"}
_SETTINGS = {  # as Live calls them
    "instructions": "session.instructions",
    "tools": "session.delegation.responses.tools",
    "voice": "session.audio.output.voice",
    "input_format": "session.audio.format",
    "output_format": "session.audio.format",
    "format": "session.audio.format",
}
_PARAMS = {
    **_SETTINGS,
    "text": "content",
    "output": "item.output",
    "call_id": "item.call_id",
}


@dataclass(frozen=True)
class Refusal:
    """Why a client's message is not done: `param` is the field that was wrong, `client_event_id`
    the message's own id, if it could be read."""

    code: str
    message: str
    param: str | None = None
    client_event_id: str | None = None


def delegates_to_client(settings: Settings) -> bool:
    """Whether the agent hands work over to the client, instead of making calls of its own."""
    return settings.tools == (DELEGATE,)


def session_config(settings: Settings, model: str) -> dict[str, Any]:
    """What a session is set to, as Live's clients are told it."""
    tools = [{"type": "function", **tool} for tool in settings.tools]
    client = {"type": "client"}
    responses = {"type": "responses", "responses": {"model": model, "tools": tools}}
    sound = settings.output_format
    return {
        "instructions": settings.instructions,
        "audio": {
            "format": {"type": _FORMATS[sound.encoding], "rate": sound.rate_hz},
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
    setting = re.split(r"[.\[]", problem.param)[0]
    param = _PARAMS.get(setting, setting) + problem.param.removeprefix(setting)
    return Refusal(problem.code, problem.message, param or None), setting in _SETTINGS


def error_object(refusal: Refusal, retry_after_s: float) -> dict[str, Any]:
    """What is wrong, as clients are told it; absent is what there is none of."""
    error = {
        "type": "rate_limit_error" if retry_after_s else "invalid_request_error",
        "code": refusal.code,
        "message": refusal.message,
        "param": refusal.param,
        "client_event_id": refusal.client_event_id,
        "retry_after_s": retry_after_s or None,
    }
    return {name: value for name, value in error.items() if value is not None}
