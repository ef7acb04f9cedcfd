"""What Realtime, Live and Hydra say alike: our own events, errors, what can't be read."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from serve.dialects.dialect import Dialect, Send
from serve.dialects.hydra import Hydra
from serve.dialects.live import Live
from serve.dialects.realtime import Realtime
from serve.gateway.events import (
    Approve,
    Configured,
    HandedBack,
    Problem,
    Refuse,
    Settings,
    Started,
    TakenOver,
    ToolEvent,
)
from serve.tools.call import State
from serve.tools.told import ConfirmationAsked, HandoffRequested, ToolChanged

OPENINGS = {
    Realtime: {"type": "session.update", "session": {"type": "realtime"}},
    Live: {"type": "session.start", "session": {"model": "nano"}},
    Hydra: {"type": "session.configure", "session": {}},
}


def messages(items: Iterable[Any]) -> list[dict[str, Any]]:
    return [json.loads(item.data) for item in items if isinstance(item, Send)]


def begun(protocol: Any, extensions: bool) -> tuple[Dialect, list[dict[str, Any]]]:
    """A client that is through with settings, and what it was told."""
    is_realtime = protocol is Realtime
    dialect = Realtime("nano", None, extensions) if is_realtime else protocol("nano", extensions)
    told = messages(dialect.told(Started("s1", Settings(), "token")))
    assert list(dialect.received(json.dumps(OPENINGS[protocol])))
    return dialect, told + messages(dialect.told(Configured(Settings())))


@pytest.fixture(params=OPENINGS)
def protocol(request: pytest.FixtureRequest) -> Any:
    return request.param


def error_of(items: Iterable[Any]) -> dict[str, Any]:
    [message] = messages(items)
    assert message["type"] == "error"
    return message["error"]


@pytest.mark.parametrize("extensions", [False, True])
def test_events_that_only_we_have_go_to_who_asked(protocol: Any, extensions: bool) -> None:
    dialect, _ = begun(protocol, extensions)
    call = ToolChanged(
        "call_2", 2, 1, "call_1", State.RUNNING, "find_room", {"beds": 2}, 0.8, "read", "key", 5.0,
        "interrupt", False, True,
    )  # fmt: skip
    prompt = "find_room: beds 2"
    asked = ConfirmationAsked("approval_2", "call_2", 2, 1, "abc", prompt, "voice", 9.0)
    events = [
        ToolEvent(1, call),
        ToolEvent(2, asked),
        ToolEvent(3, HandoffRequested("handoff_1", "requested", 0.9, "nothing")),
        TakenOver(4, "ann"),
        HandedBack(5, "ann"),
    ]
    told = [message for event in events for message in messages(dialect.told(event))]
    assert len({message["event_id"] for message in told}) == len(told)
    ours = [message for message in told if message["type"].startswith("duologue.")]
    for message in ours:
        del message["event_id"]
    assert ours == extensions * [
        {
            "type": "duologue.tool.call", "at_ms": 80, "call_id": "call_2", "revision": 1,
            "supersedes": "call_1", "state": "running", "tool": "find_room",
            "arguments": {"beds": 2}, "confidence": 0.8, "effect": "read",
            "idempotency_key": "key", "deadline_ms": 5000, "delivery": "interrupt",
            "is_client_run": False, "is_wanted": True, "result": None, "reason": "",
        },
        {
            "type": "duologue.tool.confirm.request", "at_ms": 160, "approval_id": "approval_2",
            "call_id": "call_2", "revision": 1, "args_sha256": "abc",
            "prompt": "find_room: beds 2", "method": "voice", "expires_at": 9.0,
        },
        {
            "type": "duologue.handoff.requested", "at_ms": 240, "handoff_id": "handoff_1",
            "reason": "requested", "confidence": 0.9, "summary": "nothing",
        },
        {"type": "duologue.handoff.accepted", "at_ms": 320, "operator": "ann"},
        {"type": "duologue.handoff.ended", "at_ms": 400, "operator": "ann"},
    ]  # fmt: skip


@pytest.mark.parametrize("is_yes", [True, False])
def test_a_callers_word_is_taken(protocol: Any, is_yes: bool) -> None:
    dialect, _ = begun(protocol, extensions=True)
    word = {"type": "duologue.tool.confirm.response", "approval_id": "a1", "approve": is_yes}
    assert [*dialect.received(json.dumps(word))] == [Approve("a1") if is_yes else Refuse("a1")]
    error = error_of(dialect.received(json.dumps({**word, "approve": "perhaps"})))
    assert error["param"] == "approve"


def test_who_asked_may_come_back(protocol: Any) -> None:
    _, [first, *others] = begun(protocol, extensions=False)
    assert not any("resume_token" in each for each in (first, *others))
    dialect, [first, *others] = begun(protocol, extensions=True)
    assert first["resume_token"] == "token"
    assert not any("resume_token" in each for each in others)
    [again] = messages(dialect.told(Started("s1", Settings(), "token")))
    assert again["type"] == first["type"]
    assert again["resume_token"] == "token"


@pytest.mark.parametrize(
    ("code", "type"),
    [
        ("rate_limit_exceeded", "rate_limit_error"),
        ("not_taken", "server_error"),
        ("too_much_audio", "invalid_request_error"),
        ("too_long", "invalid_request_error"),
        ("format_is_fixed", "invalid_request_error"),
        ("invalid_tools", "invalid_request_error"),
        ("unknown_call", "invalid_request_error"),
        ("unknown_approval", "invalid_request_error"),
        ("not_approved", "invalid_request_error"),
    ],
)
def test_a_problem_is_of_a_type(protocol: Any, code: str, type: str) -> None:
    dialect, _ = begun(protocol, extensions=False)
    error = error_of(dialect.told(Problem(code, "Why not.")))
    assert (error["type"], error["code"], error["message"]) == (type, code, "Why not.")
    assert "retry_after_s" not in error


def test_a_problem_says_when_to_try_again(protocol: Any) -> None:
    dialect, _ = begun(protocol, extensions=False)
    late = Problem("rate_limit_exceeded", "Too fast.", retry_after_s=1.5)
    assert error_of(dialect.told(late))["retry_after_s"] == 1.5


@pytest.mark.parametrize(
    ("data", "event_id"),
    [
        ('{"type":"no.such","event_id":"mine"}', "mine"),
        ('{"type":"session.update","event_id":"mine"}', "mine"),
        ('{"type":"no.such","event_id":7}', None),
        ('{"type":"no.such","event_id":"' + "x" * 513 + '"}', None),
        ('{"type":"no.such","event_id":"mine"', None),
        ('{"type":"no.such","event_id":"mine","x":' + "[" * 5000, None),
    ],
)
def test_an_error_names_the_message(protocol: Any, data: str, event_id: str | None) -> None:
    dialect, _ = begun(protocol, extensions=False)
    error = error_of(dialect.received(data))
    assert error.get("client_event_id" if protocol is Live else "event_id") == event_id


def test_a_field_is_named_whatever_its_value_says(protocol: Any) -> None:
    dialect, _ = begun(protocol, extensions=False)
    error = error_of(dialect.received('{"type":"x - at `$.session`"}'))
    assert error["param"] == "type"
