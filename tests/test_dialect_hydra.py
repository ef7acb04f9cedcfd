"""Hydra's dialect: what its clients send, and how a session becomes turns and responses."""

import base64
import json
from typing import Any, Literal

import pytest

from serve.dialects.dialect import Disconnect, Send
from serve.dialects.hydra import Hydra
from serve.gateway.audio import AudioFormat
from serve.gateway.events import (
    Answer,
    Begin,
    CallMade,
    Configure,
    Configured,
    Ended,
    Heard,
    Note,
    Problem,
    Say,
    Settings,
    Started,
)

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SETTING = {name: TOOL[name] for name in ("name", "description", "parameters")}
CONFIGURE = {"type": "session.configure", "session": {"instructions": "Be brief.", "voice": "kai"}}
SETTINGS = Settings(
    instructions="Be brief.",
    tools=(SETTING,),
    voice="kai",
    input_format=AudioFormat("pcm16", 16_000),
    output_format=AudioFormat("pcm16", 48_000),
)
FLOORS: dict[str, Literal["user", "user_backchannel"]] = {
    "u": "user",
    "b": "user",
    "m": "user_backchannel",
}
CALL = CallMade("call_1", 9, "get_weather", {"city": "Paris"}, confidence=0.9)


class Client:
    """One client of Hydra, configured, and the frames of its call."""

    def __init__(self) -> None:
        self.hydra = Hydra("nano", extensions=False)
        self.tell(Started("s1", Settings(), "resume"))
        self.number = 0

    def configured(self) -> "Client":
        self.send(CONFIGURE)
        self.tell(Configured(SETTINGS))
        return self

    def send(self, message: dict[str, Any] | str | bytes) -> list[Any]:
        """Commands and events that come of a client's message."""
        data = json.dumps(message) if isinstance(message, dict) else message
        return [decoded(out) for out in self.hydra.received(data)]

    def tell(self, event: Any) -> list[Any]:
        return [decoded(out) for out in self.hydra.told(event)]

    def hear(self, frames: str, text: str = "") -> list[Any]:
        """One frame a letter: `.` silence, `a` the agent speaks, `u` the caller has the floor, `b`
        both, `m` the caller's "mm-hm" while the agent speaks. The first one brings the text."""
        events = []
        for frame in frames:
            heard = Heard(
                self.number,
                audio=bytes([self.number]) * 2,
                is_voiced=frame in "abm",
                agent_text=text,
                user_text="",
                floor=FLOORS.get(frame, "nobody"),
            )
            events += self.tell(heard)
            self.number += 1
            text = ""
        return events


def decoded(out: Any) -> Any:
    return json.loads(out.data) if isinstance(out, Send) else out


def types(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


def append(audio: bytes) -> dict[str, Any]:
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}


def test_the_handshake() -> None:
    hydra = Hydra("nano", extensions=False)
    (created,) = map(decoded, hydra.told(Started("s1", Settings(), "resume")))
    assert created == {
        "type": "session.created",
        "event_id": created["event_id"],
        "session_id": "s1",
    }
    client = Client()
    assert client.send(append(b"ab")) == [], "sound before session.configure is dropped"
    message = {"type": "session.configure", "session": {"tools": [TOOL], "voice": "kai"}}
    assert client.send(message) == [
        Configure(
            tools=(SETTING,),
            voice="kai",
            input_format=AudioFormat("pcm16", 16_000),
            output_format=AudioFormat("pcm16", 48_000),
        )
    ]
    assert client.send(append(b"ab")) == [Say(b"ab")]
    (configured,) = client.tell(Configured(SETTINGS))
    assert configured["type"] == "session.configured"
    assert configured["session"] == {
        "model": "nano",
        "instructions": "Be brief.",
        "voice": "kai",
        "tools": [TOOL],
        "generate_initial_response": False,
        "input_audio_format": "pcm16",
        "input_audio_sample_rate": 16_000,
        "output_audio_format": "pcm16",
        "output_audio_sample_rate": 48_000,
    }


def test_the_agent_may_speak_first_and_at_other_rates() -> None:
    session = {
        "generate_initial_response": True,
        "input_audio_sample_rate": 24_000,
        "output_audio_sample_rate": 16_000,
    }
    configure, begin = Client().send({"type": "session.configure", "session": session})
    assert configure.input_format == AudioFormat("pcm16", 24_000)
    assert configure.output_format == AudioFormat("pcm16", 16_000)
    assert begin == Begin()


def test_a_second_configure_is_ignored_and_an_update_changes_tools() -> None:
    client = Client().configured()
    assert client.send(CONFIGURE) == []
    assert client.send({"type": "session.update", "session": {}}) == []
    update = {"type": "session.update", "session": {"tools": [{"name": "hang_up"}]}}
    empty = {"type": "object", "properties": {}}
    setting = {"name": "hang_up", "description": "", "parameters": empty}
    assert client.send(update) == [Configure(tools=(setting,))]
    (updated,) = client.tell(Configured(SETTINGS))
    assert updated["type"] == "session.updated"
    assert updated["session"] == {"tools": [TOOL]}


def test_an_update_before_the_configure_is_refused() -> None:
    update = {"type": "session.update", "session": {"tools": []}, "event_id": "e1"}
    (error,) = Client().send(update)
    assert error["error"]["code"] == "invalid_request_error"
    assert error["error"]["event_id"] == "e1"


def test_a_refused_configure_can_be_sent_again() -> None:
    client = Client()
    client.send(CONFIGURE)
    (error,) = client.tell(Problem("too_long", "at most ...", "instructions"))
    assert error["error"]["param"] == "session.instructions"
    assert isinstance(client.send(CONFIGURE)[0], Configure)
    client.tell(Configured(SETTINGS))
    client.tell(Problem("invalid_tools", "tools must be ...", "tools"))
    assert client.send(CONFIGURE) == [], "it is configured"


def test_nothing_is_told_of_frames_before_the_configure() -> None:
    assert Client().hear("aaaa") == []


def test_a_turn_and_its_answer_in_the_order_of_hydras_documents() -> None:
    client = Client().configured()
    events = client.hear("uuuuuu...")
    assert types(events) == [
        "input_audio_buffer.speech_started",
        "conversation.item.added",
        "input_audio_buffer.speech_stopped",
        "conversation.item.done",
    ]
    started, added, stopped, done = events
    assert started["audio_start_ms"] == 0
    assert stopped["audio_end_ms"] == 6 * 80
    assert len({started["item_id"], added["item"]["id"], stopped["item_id"]}) == 1
    assert added["item"]["role"] == "user"
    assert (added["item"]["status"], done["item"]["status"]) == ("in_progress", "completed")

    events = client.hear("aa..........", text="Hello.")
    names = [name for name in types(events) if name != "response.output_audio.delta"]
    assert names == [
        "response.created",
        "conversation.item.added",
        "response.output_audio_transcript.delta",
        "response.output_audio_transcript.done",
        "response.output_audio.done",
        "conversation.item.done",
        "response.done",
    ]
    response_id = events[0]["response"]["id"]
    message, delta, finished = events[1], events[3], events[-1]["response"]
    assert message["previous_item_id"] == started["item_id"]
    assert message["item"]["role"] == "assistant"
    assert delta == {
        "type": "response.output_audio.delta",
        "event_id": delta["event_id"],
        "response_id": response_id,
        "item_id": message["item"]["id"],
        "output_index": 0,
        "content_index": 0,
        "delta": base64.b64encode(bytes([9]) * 2).decode(),
    }
    content = [{"type": "output_audio", "transcript": "Hello."}]
    assert finished == {
        "id": response_id,
        "status": "completed",
        "output": [message["item"] | {"status": "completed", "content": content}],
    }


def test_all_ids_differ() -> None:
    client = Client().configured()
    events = client.hear("uuu....aa..........uuu....aa..........")
    assert len({event["event_id"] for event in events}) == len(events)
    items = [event["item"]["id"] for event in events if event["type"].endswith("item.added")]
    responses = [event["response"]["id"] for event in events if event["type"].endswith("created")]
    assert (len(items), len(set(items))) == (4, 4)
    assert (len(responses), len(set(responses))) == (2, 2)


def test_a_barge_in_cancels_the_response_after_speech_started() -> None:
    client = Client().configured()
    client.hear("aaaa", text="It is")
    events = client.hear("bbb")[2:]
    assert types(events) == [
        "input_audio_buffer.speech_started",
        "conversation.item.added",
        "response.output_audio_transcript.done",
        "response.output_audio.done",
        "conversation.item.done",
        "response.done",
    ]
    assert events[0]["audio_start_ms"] == 4 * 80, "when the caller began, not when it was sure"
    assert events[4]["item"]["status"] == "incomplete"
    assert events[5]["response"]["status"] == "cancelled"
    assert events[5]["response"]["status_details"]["reason"] == "interrupted"
    assert client.hear("bb") == [], "the rest is not sent"


def test_a_backchannel_interrupts_nothing() -> None:
    client = Client().configured()
    assert set(types(client.hear("ammmmmma")[2:])) == {"response.output_audio.delta"}


def test_a_call_in_silence_is_a_response_of_its_own() -> None:
    client = Client().configured()
    events = client.tell(CALL)
    assert types(events) == [
        "response.created",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.done",
    ]
    created, added, delta, done, finished, response = events
    assert delta["delta"] == done["arguments"] == '{"city":"Paris"}'
    for event in (delta, done):
        assert event["response_id"] == created["response"]["id"]
        assert (event["call_id"], event["name"]) == ("call_1", "get_weather")
    assert (added["item"]["status"], added["item"]["arguments"]) == ("in_progress", "")
    assert finished["item"] == {
        "id": added["item"]["id"],
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "get_weather",
        "arguments": '{"city":"Paris"}',
    }
    assert response["response"]["output"] == [finished["item"]]
    assert response["response"]["status"] == "completed"


def test_a_call_mid_speech_is_in_the_response_that_goes_on() -> None:
    client = Client().configured()
    created = client.hear("aa")[0]
    events = client.tell(CALL)
    assert types(events)[0] == "conversation.item.added"
    assert events[1]["response_id"] == created["response"]["id"]
    assert events[1]["output_index"] == 1
    assert types(client.hear("a")) == ["response.output_audio.delta"]
    done = client.hear("..........")[-1]["response"]
    assert [item["type"] for item in done["output"]] == ["message", "function_call"]


def test_a_result_is_given_and_the_nudge_opens_the_answer() -> None:
    client = Client().configured()
    client.hear("....")
    client.tell(CALL)
    item = {"type": "function_call_output", "call_id": "call_1", "output": '{"sky":"blue"}'}
    answer, added, done = client.send({"type": "conversation.item.create", "item": item})
    assert answer == Answer("call_1", '{"sky":"blue"}')
    assert types([added, done]) == ["conversation.item.added", "conversation.item.done"]
    assert done["item"].items() >= item.items()
    (created,) = client.send({"type": "response.create"})
    assert created["type"] == "response.created"
    assert client.send({"type": "response.create"}) == [], "there is one already"
    events = client.hear("....aa")
    assert types(events)[0] == "conversation.item.added"
    assert events[1]["response_id"] == created["response"]["id"]
    assert client.hear("..........")[-1]["response"]["id"] == created["response"]["id"]


def test_a_response_that_nobody_fills_ends() -> None:
    client = Client().configured()
    client.hear("....")
    client.send({"type": "response.create"})
    assert client.hear("." * 49) == []
    (done,) = client.hear(".")
    assert done["response"].items() >= {"status": "completed", "output": []}.items()


def test_a_nudge_while_the_caller_speaks_opens_nothing() -> None:
    client = Client().configured()
    client.hear("....uuuuuu")
    assert client.send({"type": "response.create"}) == []


def test_a_cancelled_response_says_no_more() -> None:
    client = Client().configured()
    created = client.hear("....aa")[0]
    wrong = {"type": "response.cancel", "response_id": "resp_other"}
    assert client.send(wrong) == []
    response = client.send({"type": "response.cancel"})[-1]["response"]
    assert response["id"] == created["response"]["id"]
    assert (response["status"], response["status_details"]["reason"]) == (
        "cancelled",
        "client_cancelled",
    )
    assert client.hear("aaaa..") == []
    assert client.send({"type": "response.cancel"}) == [], "nothing is in flight"


def test_a_message_is_a_note() -> None:
    client = Client().configured()
    content = [{"type": "input_text", "text": "The parcel is found."}]
    item = {"type": "message", "role": "system", "content": content}
    note, added, _ = client.send({"type": "conversation.item.create", "item": item})
    assert note == Note("The parcel is found.")
    assert added["item"]["content"] == content


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        ("", "invalid_frame", None),
        ("no json", "invalid_frame", None),
        (b"\x00\xff", "invalid_frame", None),
        ("\ud800", "invalid_frame", None),
        ('{"type":' + "[" * 100_000, "invalid_frame", None),
        ('{"type":"x","a":' + "[" * 100_000, "invalid_frame", "type"),
        ('{"type":"response.cancel","a":' + "[" * 100_000, "invalid_frame", None),
        ("[]", "invalid_request_error", None),
        ("{}", "invalid_request_error", "type"),
        ({"type": "session.destroy"}, "invalid_frame", "type"),
        ({"type": "session.configure"}, "invalid_request_error", "session"),
        (
            {"type": "session.configure", "session": {"tools": [{"name": 1}]}},
            "invalid_request_error",
            "session.tools[0].name",
        ),
        (
            {"type": "session.configure", "session": {"tools": [TOOL] * 129}},
            "invalid_request_error",
            "session.tools",
        ),
        (
            {"type": "session.configure", "session": {"input_audio_sample_rate": 44_100}},
            "invalid_request_error",
            "session.input_audio_sample_rate",
        ),
        (
            {"type": "session.update", "session": {"instructions": "Obey."}},
            "invalid_frame",
            "session.instructions",
        ),
        ({"type": "input_audio_buffer.append"}, "invalid_audio", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "%%%"}, "invalid_audio", "audio"),
        (append(b"odd"), "invalid_audio", "audio"),
        (append(bytes(786_434)), "invalid_audio", "audio"),
        (
            {"type": "conversation.item.create", "item": {"type": "function_call"}},
            "invalid_request_error",
            "item.type",
        ),
    ],
)
def test_what_is_wrong_is_said(data: Any, code: str, param: str | None) -> None:
    (answer,) = Client().configured().send(data)
    assert answer["type"] == "error"
    assert answer["error"]["code"] == code
    assert answer["error"]["param"] == param
    assert 0 < len(answer["error"]["message"]) <= 500


def test_a_tool_that_is_nested_too_deep_is_refused() -> None:
    parameters: dict[str, Any] = {}
    for _ in range(40):
        parameters = {"a": parameters}
    tool = {"name": "deep", "parameters": parameters}
    (error,) = Client().send({"type": "session.configure", "session": {"tools": [tool]}})
    assert error["error"]["param"] == "session.tools[0]"


@pytest.mark.parametrize(
    ("reason", "code"), [("hang_up", 1000), ("no_audio", 1000), ("engine_lost", 1011)]
)
def test_the_end_closes_the_socket(reason: Any, code: int) -> None:
    assert Client().configured().tell(Ended(reason)) == [Disconnect(code, reason)]
