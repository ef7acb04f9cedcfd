"""OpenAI's Live protocol, translated: what its SDKs send, and what they insist on being told."""

import base64
import json
from collections.abc import Iterable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from serve.dialects.dialect import Disconnect, Send
from serve.dialects.live import Live
from serve.dialects.live_delegation import DELEGATE
from serve.dialects.live_sideband import USAGE_FRAMES, LiveSideband
from serve.gateway.audio import AudioFormat
from serve.gateway.events import (
    Answer,
    Begin,
    CallCancelled,
    CallMade,
    Configure,
    Configured,
    Ended,
    HangUp,
    Heard,
    Mute,
    Note,
    Problem,
    Say,
    Settings,
    Started,
)

TOOL = {
    "name": "find_room",
    "description": "Finds a room.",
    "parameters": {"type": "object", "properties": {"beds": {"type": "integer"}}},
}
WITH_TOOL = {
    "type": "responses",
    "responses": {"model": "any", "tools": [{"type": "function", **TOOL}, {"type": "web_search"}]},
}
CALL = CallMade("call_1", 9, "find_room", {"beds": 2}, 0.9)
AUDIO = bytes(range(256)) * 15


def messages(outs: Iterable[Any]) -> list[dict[str, Any]]:
    """What is sent; there must be nothing else."""
    events = []
    for out in outs:
        assert isinstance(out, Send)
        assert isinstance(out.data, str)
        events.append(json.loads(out.data))
    return events


def received(dialect: LiveSideband, type: str, **fields: Any) -> list[Any]:
    return list(dialect.received(json.dumps({"type": type, **fields})))


def error_of(outs: Iterable[Any]) -> dict[str, Any]:
    """The error that is sent, and nothing else."""
    [event] = messages(outs)
    assert event["type"] == "error"
    assert event["event_id"]
    error = event["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"]
    assert error["message"]
    assert error.get("client_event_id") == event.get("client_event_id")
    return error


def started(delegation: dict[str, Any] | None = None, **session: Any) -> Live:
    """A session that has begun, delegating so."""
    dialect = Live("duologue", extensions=False, started_at_s=1000, lasts_s=600)
    start = {"model": "gpt-live-1", "delegation": delegation, **session}
    configure, begin = received(dialect, "session.start", session=start)
    assert begin == Begin()
    assert isinstance(configure, Configure)
    assert configure.tools is not None
    sound = configure.output_format or AudioFormat()
    now = Settings("Be kind.", configure.tools, "ada", sound, sound)
    assert messages(dialect.told(Started("sess_1", Settings(), "token"))) == []
    [event] = messages(dialect.told(Configured(now)))
    assert event["type"] == "session.started"
    return dialect


def heard(number: int, agent_text: str = "", user_text: str = "") -> Heard:
    return Heard(number, AUDIO, bool(agent_text), agent_text, user_text, "nobody")


def test_start_configures_a_session():
    dialect = Live("duologue", extensions=False)
    session = {
        "model": "gpt-live-1",
        "instructions": "Be kind.",
        "audio": {"format": {"type": "audio/pcmu", "rate": 8000}, "output": {"voice": {"id": "v"}}},
        "delegation": {
            "type": "responses",
            "responses": {**WITH_TOOL["responses"], "instructions": "Ask first."},
        },
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello."}]}],
        "store": False,
    }
    configure, _ = received(dialect, "session.start", session=session)
    mulaw = AudioFormat("mulaw", 8000)
    role = "Be kind.\n\nAsk first.\n\nWhat was said before this call:\nuser: Hello."
    assert configure == Configure(role, (TOOL,), "v", mulaw, mulaw, "all")


@pytest.mark.parametrize("is_started_first", [False, True])
def test_started_waits_for_both_answers(is_started_first: bool):
    dialect = Live("duologue", extensions=False, started_at_s=1000, lasts_s=600)
    begun = Started("sess_1", Settings(), "token")
    if is_started_first:
        assert messages(dialect.told(begun)) == []
    received(dialect, "session.start", event_id="mine", session={"model": "m"})
    if not is_started_first:
        assert messages(dialect.told(begun)) == []
    assert messages(dialect.told(heard(0, "Hi"))) == []
    [event] = messages(dialect.told(Configured(Settings("Be kind.", (DELEGATE,), "ada"))))
    assert event.pop("event_id")
    assert event == {
        "type": "session.started",
        "client_event_id": "mine",
        "session": {
            "id": "sess_1",
            "model": "duologue",
            "expires_at": 1600,
            "status": "active",
            "instructions": "Be kind.",
            "audio": {"format": {"type": "audio/pcm", "rate": 24000}, "output": {"voice": "ada"}},
            "delegation": {"type": "client"},
        },
    }


def test_nothing_goes_before_start_and_start_goes_once():
    dialect = Live("duologue", extensions=False)
    error = error_of(received(dialect, "session.input_audio.append", audio="", event_id="mine"))
    assert error["code"] == "session_not_started"
    assert error["client_event_id"] == "mine"
    error = error_of(received(started(), "session.start", session={"model": "m"}))
    assert error["code"] == "not_allowed"


def test_start_that_is_refused_ends_the_connection():
    dialect = Live("duologue", extensions=False)
    received(dialect, "session.start", event_id="mine", session={"model": "m"})
    error_of(dialect.told(Problem("too_much_audio", "The rest is dropped.", "audio")))
    said, end = dialect.told(Problem("too_long", "Too long.", "instructions"))
    error = error_of([said])
    assert error["param"] == "session.instructions"
    assert error["client_event_id"] == "mine"
    assert end == Disconnect(1008, "too_long")


def test_a_start_that_came_too_fast_can_be_sent_again():
    dialect = Live("duologue", extensions=False)
    [event] = messages(dialect.told(Problem("rate_limit_exceeded", "Too fast.", "", 2.5)))
    assert event["error"]["retry_after_s"] == 2.5
    assert len(received(dialect, "session.start", session={"model": "m"})) == 2


def test_every_frame_is_sent_silence_too():
    dialect = started()
    [event] = messages(dialect.told(heard(0)))
    assert event == {
        "type": "session.output_audio.delta",
        "delta": base64.b64encode(AUDIO).decode(),
    }
    _, user, agent = messages(dialect.told(heard(2, " there", " yes")))
    assert user.pop("event_id") != agent.pop("event_id")
    span = {"start_ms": 160, "end_ms": 240}
    assert user == {"type": "session.input_transcript.delta", "delta": " yes", **span}
    assert agent == {"type": "session.output_transcript.delta", "delta": " there", **span}


def test_usage_is_told_now_and_then():
    dialect = started()
    kinds = [messages(dialect.told(heard(number)))[-1] for number in range(2 * USAGE_FRAMES)]
    usage = [event for event in kinds if event["type"] == "session.usage.updated"]
    assert [event["usage"] for event in usage] == [{"seconds": 16.0}, {"seconds": 32.0}]


def test_sound_mute_and_close():
    dialect = started()
    audio = base64.b64encode(b"abcd").decode()
    assert received(dialect, "session.input_audio.append", audio=audio) == [Say(b"abcd")]
    for kind, is_muted in (("mute", True), ("unmute", False)):
        command, said = received(dialect, f"session.input_audio.{kind}", event_id="mine")
        [event] = messages([said])
        assert command == Mute(is_muted)
        assert event["type"] == f"session.input_audio.{kind}d"
        assert event["client_event_id"] == "mine"
    messages(dialect.told(heard(24)))
    assert received(dialect, "session.close", event_id="bye") == [HangUp()]
    said, end = dialect.told(Ended("hang_up"))
    [event] = messages([said])
    assert event["type"] == "session.closed"
    assert event["client_event_id"] == "bye"
    assert event["reason"] == "close_requested"
    assert event["usage"] == {"seconds": 2.0}
    assert event["session"]["id"] == "sess_1"
    assert event["session"]["status"] == "active"
    assert end == Disconnect(1000, "hang_up")


@pytest.mark.parametrize(
    ("reason", "told", "code"),
    [("too_long", "expired", 1000), ("too_slow", "connection_lost", 1008)],
)
def test_ends_have_reasons(reason: Any, told: str, code: int):
    said, end = started().told(Ended(reason))
    [event] = messages([said])
    assert event["reason"] == told
    assert end == Disconnect(code, reason)
    assert [*Live("m", False).told(Ended(reason))] == [Disconnect(code, reason)]


def test_call_is_a_delegation_with_a_response():
    created, *wrapped = messages(started(WITH_TOOL).told(CALL))
    delegation = created["delegation"]
    assert created["type"] == "session.delegation.created"
    assert created["offset_ms"] == 720
    assert delegation["type"] == "delegation"
    assert delegation["target"] == "responses"
    assert all(event["type"] == "response.event" for event in wrapped)
    assert {event["delegation_id"] for event in wrapped} == {delegation["id"]}
    events = [event["event"] for event in wrapped]
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == [*range(6)]
    for event, status in ((events[0], "in_progress"), (events[-1], "completed")):
        assert event["response"]["id"] == delegation["response_id"]
        assert event["response"]["status"] == status
        assert event["response"]["output"] == []
    item = events[4]["item"]
    assert json.loads(item["arguments"]) == {"beds": 2} == json.loads(events[3]["arguments"])
    assert item["type"] == "function_call"
    assert item["status"] == "completed"
    assert item["call_id"] == "call_1"
    assert item["name"] == "find_room"
    assert {events[1]["item"]["id"], events[2]["item_id"], events[3]["item_id"]} == {item["id"]}


def test_result_is_an_answer_and_create_goes_on():
    dialect = started(WITH_TOOL)
    delegation = messages(dialect.told(CALL))[0]["delegation"]
    item = {"type": "function_call_output", "call_id": "call_1", "output": '{"room": 7}'}
    assert received(dialect, "response.item.create", item=item) == [Answer("call_1", '{"room": 7}')]
    for expected in (delegation["id"], None):
        created, completed = messages(received(dialect, "response.create"))
        assert created["event"]["type"] == "response.created"
        assert completed["event"]["type"] == "response.completed"
        assert created["delegation_id"] == completed["delegation_id"] == expected
        assert created["event"]["response"]["id"] == completed["event"]["response"]["id"]
        assert created["event"]["response"]["id"] != delegation["response_id"]
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    item = {"type": "function_call_output", "call_id": "call_2", "output": parts}
    assert received(dialect, "response.item.create", item=item) == [Answer("call_2", "ab")]
    item = {"type": "message", "role": "user", "content": "My name is Ann."}
    [note] = received(dialect, "response.item.create", item=item)
    assert note == Note("The caller writes: My name is Ann.")


def test_client_delegation_is_a_tool_that_commentary_answers():
    dialect = started({"type": "client"})
    [created] = messages(dialect.told(CallMade("call_1", 9, "delegate", {}, 0.9)))
    delegation = created["delegation"]
    assert delegation["target"] == "client"
    assert "response_id" not in delegation
    append = {"delegation_id": delegation["id"], "content": "Looking."}
    note, said = received(dialect, "session.thinking.append", **append)
    assert isinstance(note, Note)
    assert "Looking." in note.text
    assert messages([said])[0]["type"] == "session.thinking.appended"
    append["content"] = "Room 7."
    answer, said = received(dialect, "session.commentary.append", event_id="mine", **append)
    assert answer == Answer("call_1", "Room 7.")
    [event] = messages([said])
    assert event["type"] == "session.commentary.appended"
    assert event["client_event_id"] == "mine"
    assert event["start_ms"] == event["end_ms"] == 0
    assert isinstance(received(dialect, "session.commentary.append", **append)[0], Note)
    error = error_of(received(dialect, "response.create"))
    assert error["code"] == "wrong_delegation"


@pytest.mark.parametrize(
    "taken_back",
    [CallCancelled("call_1", 10), CallMade("call_2", 10, "delegate", {}, 0.9, supersedes="call_1")],
)
def test_what_a_recalled_delegation_brings_is_dropped(taken_back: Any):
    dialect = started({"type": "client"})
    [created] = messages(dialect.told(CallMade("call_1", 9, "delegate", {}, 0.9)))
    messages(dialect.told(taken_back))
    append = {"delegation_id": created["delegation"]["id"], "content": "Room 7."}
    [event] = messages(received(dialect, "session.commentary.append", **append))
    assert event["type"] == "session.commentary.appended"


def test_appends_are_notes():
    dialect = started(WITH_TOOL)
    texts = set()
    for kind in ("instructions", "thinking", "commentary"):
        append = {"delegation_id": None, "content": "It {rains}."}
        note, said = received(dialect, f"session.{kind}.append", **append)
        assert note.text.endswith("It {rains}.")
        texts.add(note.text)
        assert messages([said])[0]["type"] == f"session.{kind}.appended"
    assert len(texts) == 3
    append = {"delegation_id": "delegation_call_1", "content": "Room 7."}
    assert error_of(received(dialect, "session.thinking.append", **append))["param"]


def test_update_changes_tools_until_the_session_answers():
    dialect = started(WITH_TOOL)
    other = {**TOOL, "name": "book_room"}
    responses = {"tools": [{"type": "function", **other}]}
    update = {"delegation": {"type": "responses", "responses": responses}}
    assert received(dialect, "session.update", event_id="mine", session=update) == [
        Configure(tools=(other,), server_tools="all")
    ]
    [event] = messages(dialect.told(Configured(Settings("Be kind.", (other,)))))
    assert event["type"] == "session.updated"
    assert event["client_event_id"] == "mine"
    tools = event["session"]["delegation"]["responses"]["tools"]
    assert [tool["name"] for tool in tools] == ["book_room"]
    for choice, offered in (("none", ()), ("auto", (other,))):
        update["delegation"]["responses"] = {"tool_choice": choice}
        configure = Configure(tools=offered, server_tools="all")
        assert received(dialect, "session.update", session=update) == [configure]
        messages(dialect.told(Configured(Settings("Be kind.", offered))))
    update["delegation"]["responses"] = {"instructions": "Be brief."}
    note, configure = received(dialect, "session.update", session=update)
    assert "Be brief." in note.text
    assert configure == Configure()


def test_update_that_is_refused_is_told_to_whom_it_was():
    dialect = started(WITH_TOOL)
    received(dialect, "session.update", event_id="mine", session={})
    error = error_of(dialect.told(Problem("unknown_call", "No such call.", "call_id")))
    assert error["param"] == "item.call_id"
    assert "client_event_id" not in error
    error = error_of(dialect.told(Problem("invalid_tools", "No.", "tools")))
    assert error["client_event_id"] == "mine"
    assert error["param"] == "session.delegation.responses.tools"


def test_updates_keep_the_delegation_and_are_bounded():
    dialect = started(WITH_TOOL)
    update = {"delegation": {"type": "client"}}
    error = error_of(received(dialect, "session.update", session=update))
    assert error["param"] == "session.delegation.type"
    for _ in range(32):
        assert received(dialect, "session.update", session={}) == [Configure()]
    assert error_of(received(dialect, "session.update", session={}))["code"] == "too_many_updates"


def test_webrtc_has_its_own_sound_and_narrow_channels():
    dialect = Live("duologue", extensions=False, sends_audio=False)
    channel = {
        "allowed_client_events": ["session.close"],
        "allowed_server_events": [
            {"type": "error"},
            {"type": "response.event", "response_event": "response.completed"},
        ],
    }
    session = {
        "model": "m",
        "client": {"data_channel": channel},
        "audio": {"format": {"type": "audio/pcm", "rate": 16000}},
        "delegation": WITH_TOOL,
    }
    configure, _ = received(dialect, "session.start", session=session)
    assert configure.input_format is None
    assert configure.output_format is None
    messages(dialect.told(Started("sess_1", Settings(), "token")))
    assert messages(dialect.told(Configured(Settings(tools=(TOOL,))))) == []
    assert messages(dialect.told(heard(0, "Hi", "Hi"))) == []
    [event] = messages(dialect.told(CALL))
    assert event["event"]["type"] == "response.completed"
    append = {"content": "Say yes.", "delegation_id": None}
    error = error_of(received(dialect, "session.instructions.append", **append))
    assert error["code"] == "not_allowed"
    assert received(dialect, "session.close") == [HangUp()]


def test_webrtc_takes_no_sound_in_messages():
    dialect = Live("duologue", extensions=False, sends_audio=False)
    received(dialect, "session.start", session={"model": "m"})
    error = error_of(received(dialect, "session.input_audio.append", audio="AAAA"))
    assert error["code"] == "not_allowed"


def test_sideband_hears_what_is_said_and_does_what_owners_do():
    dialect = LiveSideband("duologue", extensions=False)
    assert messages(dialect.told(Started("sess_1", Settings(tools=(TOOL,)), "token"))) == []
    sound, transcript = messages(dialect.told(heard(1, "Hi")))
    assert sound["type"] == "session.output_audio.delta"
    assert transcript["delta"] == "Hi"
    assert (sound["start_ms"], sound["end_ms"]) == (80, 160)
    assert messages(dialect.told(CALL))[0]["type"] == "session.delegation.created"
    item = {"type": "function_call_output", "call_id": "call_1", "output": "{}"}
    assert received(dialect, "response.item.create", item=item) == [Answer("call_1", "{}")]
    for fields in (
        {"type": "session.start", "session": {"model": "m"}},
        {"type": "session.input_audio.append", "audio": "AAAA"},
    ):
        assert error_of(received(dialect, **fields))["code"] == "not_allowed"
    [event] = messages(dialect.told(Configured(Settings(tools=(TOOL,)))))
    assert event["type"] == "session.updated"
    said, end = dialect.told(Ended("too_long"))
    assert messages([said])[0]["type"] == "session.closed"
    assert end == Disconnect(1000, "too_long")


def test_sideband_hears_no_sound_in_other_formats():
    dialect = LiveSideband("duologue", extensions=False)
    sound = AudioFormat("mulaw", 8000)
    messages(dialect.told(Started("s", Settings(input_format=sound, output_format=sound), "t")))
    assert messages(dialect.told(heard(0))) == []


def nested(levels: int) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for _ in range(levels):
        parameters = {"a": parameters}
    return parameters


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({}, "session.model"),
        ({"model": 7}, "session.model"),
        ({"model": "m", "instructions": "a" * 65_537}, "session.instructions"),
        (
            {"model": "m", "audio": {"format": {"type": "audio/pcm", "rate": 44100}}},
            "session.audio.format",
        ),
        (
            {"model": "m", "audio": {"format": {"type": "audio/pcmu", "rate": 16000}}},
            "session.audio.format",
        ),
        ({"model": "m", "delegation": {"type": "decisions"}}, "session.delegation.type"),
        ({"model": "m", "input": 129 * [{"role": "user", "content": []}]}, "session.input"),
        (
            {
                "model": "m",
                "delegation": {"type": "responses", "responses": {"tools": [{"type": "function"}]}},
            },
            "session.delegation.responses.tools[0]",
        ),
        (
            {
                "model": "m",
                "delegation": {
                    "type": "responses",
                    "responses": {
                        "tools": [{"type": "function", "name": "f", "parameters": nested(40)}]
                    },
                },
            },
            "session.delegation.responses.tools[0]",
        ),
        (
            {
                "model": "m",
                "delegation": {
                    "type": "responses",
                    "responses": {"tools": 129 * [{"type": "web_search"}]},
                },
            },
            "session.delegation.responses.tools",
        ),
    ],
)
def test_errors_name_the_field(session: dict[str, Any], param: str):
    dialect = Live("duologue", extensions=False)
    error = error_of(received(dialect, "session.start", event_id="mine", session=session))
    assert error["param"] == param
    assert error["client_event_id"] == "mine"
    assert len(received(dialect, "session.start", session={"model": "m"})) == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        (b"\xff\x00\x01", "invalid_json"),
        ("\ud800", "invalid_json"),
        ('{"a":' * 100_000, "invalid_json"),
        ('{"type":"session.start","session":{"model":NaN}}', "invalid_json"),
        ("[]", "invalid_value"),
        ("{}", "unknown_event_type"),
        ('{"type":"transport.dtmf.send","event":"1"}', "unknown_event_type"),
        ('{"type":"' + "a" * 10_000 + '"}', "unknown_event_type"),
        ('{"type":"session.input_audio.append","audio":"?"}', "invalid_value"),
        ('{"type":"session.input_audio.append"}', "missing_required_parameter"),
    ],
)
def test_what_is_no_message_is_an_error(data: str | bytes, code: str):
    error = error_of(started().received(data))
    assert error["code"] == code
    assert len(error["message"]) <= 500


VALID = [
    {"type": "session.start", "session": {"model": "m", "delegation": WITH_TOOL}},
    {"type": "session.update", "session": {"delegation": WITH_TOOL}},
    {"type": "session.input_audio.append", "audio": "AAAA"},
    {"type": "session.commentary.append", "content": "a", "delegation_id": "delegation_call_1"},
    {
        "type": "response.item.create",
        "item": {"type": "function_call_output", "call_id": "call_1", "output": "{}"},
    },
    {"type": "response.create"},
    {"type": "session.close", "event_id": "mine"},
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@st.composite
def spoiled(draw: st.DrawFn) -> str | bytes:
    """A valid message in which one field, somewhere, is something else, or bytes of it are."""
    message = json.loads(json.dumps(draw(st.sampled_from(VALID))))
    part = message
    while True:
        field = draw(st.sampled_from(sorted(part)))
        if not isinstance(part[field], dict) or draw(st.booleans()):
            break
        part = part[field]
    part[field] = draw(JSON)
    data = json.dumps(message).encode()
    if draw(st.booleans()):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=4)) + data[place + draw(st.integers(0, 4)) :]
    return data if draw(st.booleans()) else data.decode(errors="surrogateescape")


@settings(max_examples=100, deadline=None)
@given(st.lists(spoiled(), max_size=6), st.booleans())
def test_nothing_that_clients_send_breaks_it(data: list[str | bytes], is_attached: bool):
    dialect = LiveSideband("m", False) if is_attached else started(WITH_TOOL)
    for message in data:
        for out in dialect.received(message):
            if isinstance(out, Send):
                assert json.loads(out.data)["type"]
    assert messages(dialect.told(heard(0)))
