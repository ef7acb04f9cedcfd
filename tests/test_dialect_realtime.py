"""OpenAI Realtime: what clients send and are told."""

import base64
import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from serve.dialects.dialect import Disconnect, Send
from serve.dialects.realtime import Realtime
from serve.dialects.realtime_events import ClientError
from serve.gateway.audio import AudioFormat
from serve.gateway.events import (
    Answer,
    Begin,
    CallMade,
    ClearAudio,
    Configure,
    Configured,
    Ended,
    Event,
    Heard,
    Note,
    Problem,
    Say,
    Settings,
    Started,
)

TOOL = {"name": "order_status", "description": "", "parameters": {"type": "object"}}


class Client:
    """A dialect and what came of it, with a clock of frames."""

    def __init__(self, sends_audio: bool = True, **session: Any) -> None:
        self.dialect = Realtime("duologue-nano", session, False, sends_audio)
        self.number = 0
        self.started = self.tell(Started("s1", Settings(instructions="Be brief."), "token"))

    def tell(self, event: Event) -> list[dict[str, Any]]:
        sent = list(self.dialect.told(event))
        assert all(isinstance(each, Send) for each in sent)
        return [json.loads(each.data) for each in sent if isinstance(each, Send)]

    def send(self, type: str, **fields: Any) -> list[Any]:
        """Commands as they are, events as JSON."""
        return self.send_raw(json.dumps({"type": type, **fields}))

    def send_raw(self, data: str | bytes) -> list[Any]:
        return [
            json.loads(each.data) if isinstance(each, Send) else each
            for each in self.dialect.received(data)
        ]

    def hear(
        self, floor: Any, frames: int = 1, voiced: bool = False, agent: str = "", user: str = ""
    ) -> list[dict[str, Any]]:
        """So many frames, the texts in the first."""
        found: list[dict[str, Any]] = []
        for _ in range(frames):
            found += self.tell(Heard(self.number, b"\x01\x02" * 4, voiced, agent, user, floor))
            self.number += 1
            agent = user = ""
        return found

    def call(self, call_id: str = "call_1", supersedes: str = "") -> list[dict[str, Any]]:
        arguments = {"order_id": "48129"}
        return self.tell(CallMade(call_id, self.number, "order_status", arguments, 0.9, supersedes))


def types(events: Iterable[Any]) -> list[str]:
    return [each["type"] if isinstance(each, dict) else type(each).__name__ for each in events]


def only(events: list[Any], type: str) -> Any:
    (found,) = [each for each in events if isinstance(each, dict) and each["type"] == type]
    return found


def error_of(events: list[Any]) -> dict[str, Any]:
    assert types(events) == ["error"]
    return events[0]["error"]


def test_a_session_begins_with_all_it_is_set_to():
    (created,) = Client().started
    session = created["session"]
    assert created["type"] == "session.created"
    assert session["id"] == "s1"
    assert session["object"] == "realtime.session"
    assert session["model"] == "duologue-nano"
    assert session["instructions"] == "Be brief."
    assert session["output_modalities"] == ["audio"]
    assert session["tools"] == []
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert session["audio"]["input"]["turn_detection"]["interrupt_response"] is True
    assert session["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_an_update_configures_and_is_told_back():
    client = Client()
    heard = {
        "format": {"type": "audio/pcmu"},
        "turn_detection": {"type": "server_vad", "threshold": 0.4, "interrupt_response": False},
        "transcription": {"model": "whisper-1"},
    }
    said = {"format": {"type": "audio/pcm", "rate": 16000}, "voice": "anna", "speed": 1.2}
    (configure,) = client.send(
        "session.update",
        session={
            "type": "realtime",
            "instructions": "Help.",
            "tools": [{"type": "function", **TOOL}],
            "audio": {"input": heard, "output": said},
            "tracing": "auto",
            "truncation": "disabled",
            "something_new": [1],
        },
    )
    mulaw, pcm = AudioFormat("mulaw", 8000), AudioFormat("pcm16", 16000)
    assert configure == Configure("Help.", (TOOL,), "anna", mulaw, pcm, "all")
    (updated,) = client.tell(Configured(Settings("Help.", (TOOL,), "anna", mulaw, pcm)))
    session = updated["session"]
    assert updated["type"] == "session.updated"
    assert session["tools"] == [{"type": "function", **TOOL}]
    assert session["audio"]["input"] == {
        "format": {"type": "audio/pcmu"},
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.4,
            "create_response": True,
            "interrupt_response": True,
        },
        "transcription": {"model": "whisper-1"},
        "noise_reduction": None,
    }
    assert session["audio"]["output"] == said
    assert (session["tracing"], session["truncation"]) == ("auto", "disabled")
    assert "something_new" not in session


def test_a_voice_is_told_back():
    client = Client()
    for voice, name in (("marin", "marin"), ({"id": "voice_7"}, "voice_7")):
        said = {"audio": {"output": {"voice": voice}}}
        assert client.send("session.update", session=said) == [Configure(voice=name)]
    (updated,) = client.tell(Configured(Settings(voice="marin")))
    assert updated["session"]["audio"]["output"]["voice"] == "marin"


def test_formats_change_only_before_audio():
    client = Client()
    client.send("input_audio_buffer.append", audio="AAAA")
    same = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}}
    assert client.send("session.update", session=same) == [Configure()]
    other = {"audio": {"output": {"format": {"type": "audio/pcma"}}}}
    assert error_of(client.send("session.update", session=other))["param"] == "session.audio"


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "transcription"}, "session.type"),
        ({"tools": [{"type": "mcp"}]}, "session.tools[0].server_label"),
        ({"tools": [{"type": "function"}]}, "session.tools[0].name"),
        ({"tools": [{"type": "function", "name": "../x"}]}, "session.tools[0].name"),
        ({"instructions": 5}, "session.instructions"),
        ({"instructions": "x" * 70_000}, "session.instructions"),
        ({"output_modalities": ["text"]}, "session.output_modalities"),
        (
            {"audio": {"input": {"format": {"type": "audio/mp3"}}}},
            "session.audio.input.format.type",
        ),
        (
            {"audio": {"input": {"format": {"type": "audio/pcmu", "rate": 24000}}}},
            "session.audio.input.format",
        ),
        (
            {"audio": {"output": {"format": {"type": "audio/pcm", "rate": 44100}}}},
            "session.audio.output.format",
        ),
        ({"tracing": json.loads("[" * 40 + "]" * 40)}, "session.tracing"),
        ({"prompt": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "session"),
    ],
)
def test_a_session_that_cannot_be_is_refused_by_its_field(session: dict[str, Any], param: str):
    client = Client()
    error = error_of(client.send("session.update", session=session, event_id="mine"))
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["event_id"]) == (param, "mine")
    with pytest.raises(ClientError) as raised:
        Realtime("m", session, extensions=False)
    assert raised.value.param == param


def test_a_session_set_from_elsewhere_is_what_it_opens_with():
    said = {"voice": "anna", "speed": 1.5}
    client = Client(instructions="Hi.", audio={"output": said})
    assert client.dialect.opening == Configure(instructions="Hi.", voice="anna")
    assert client.started[0]["session"]["audio"]["output"]["speed"] == 1.5


def test_sound_is_said():
    client = Client()
    audio = base64.b64encode(b"\x01\x00\x02\x00").decode()
    assert client.send("input_audio_buffer.append", audio=audio) == [Say(b"\x01\x00\x02\x00")]
    assert client.send("input_audio_buffer.append", audio="") == []
    assert error_of(client.send("input_audio_buffer.append", audio="A!=="))["param"] == "audio"
    cleared = client.send("input_audio_buffer.clear")
    assert types(cleared) == ["ClearAudio", "input_audio_buffer.cleared"]
    assert cleared[0] == ClearAudio()


END = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


def test_an_island_is_a_response():
    client = Client()
    found = client.hear("agent", 1, agent="Hello ") + client.hear("agent", 1, agent="there")
    found += client.hear("agent", 3, voiced=True)
    assert types(found) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        *["response.output_audio_transcript.delta"] * 2,
        *["response.output_audio.delta"] * 3,
    ]
    end = client.hear("nobody", 12)
    assert types(end)[-6:] == END
    part = only(found, "response.content_part.added")
    assert part["part"]["type"] == "audio"
    audio = [each for each in found if each["type"] == "response.output_audio.delta"]
    assert base64.b64decode(audio[0]["delta"]) == b"\x01\x02" * 4
    done = only(end, "response.done")["response"]
    assert done["id"] == found[0]["response"]["id"]
    assert (done["status"], done["status_details"]) == ("completed", None)
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": "Hello there"}]
    assert len({each["event_id"] for each in found + end}) == len(found + end)


def test_a_barge_in_cancels_the_response_and_tells_the_turn():
    client = Client()
    client.hear("agent", 5, voiced=True, agent="The weather")
    found = client.hear("user", 3, voiced=True, user="no")
    assert types(found)[-7:] == ["input_audio_buffer.speech_started", *END]
    started = only(found, "input_audio_buffer.speech_started")
    assert started["audio_start_ms"] == 5 * 80
    response = only(found, "response.done")["response"]
    assert response["status"] == "cancelled"
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert response["output"][0]["status"] == "incomplete"
    assert client.dialect.is_hushed
    rest = client.hear("user", 2, voiced=True) + client.hear("nobody", 20)
    assert types(rest) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert {each.get("item_id", started["item_id"]) for each in rest} == {started["item_id"]}
    assert only(rest, "input_audio_buffer.speech_stopped")["audio_end_ms"] == 800
    assert only(rest, "conversation.item.added")["item"]["role"] == "user"
    assert rest[-1]["transcript"] == "no"
    assert rest[-1]["usage"] == {"type": "duration", "seconds": 0.4}


def test_a_backchannel_of_the_callers_is_told_to_nobody():
    client = Client()
    client.hear("agent", 5, voiced=True, agent="The weather")
    found = client.hear("user_backchannel", 6, voiced=True, user="mm-hm")
    assert set(types(found)) == {"response.output_audio.delta"}


def test_no_response_comes_within_320_ms_of_a_turn():
    client = Client()
    client.hear("user", 2)
    assert types(client.hear("agent", 1, voiced=True, agent="Yes"))[-1] == "conversation.item.done"
    assert client.call() == []
    assert client.hear("agent", 2, voiced=True) == []
    found = types(client.hear("agent", 1, voiced=True))
    assert found.count("response.created") == 1
    assert found.count("response.output_audio.delta") == 4
    assert found.count("response.function_call_arguments.done") == 1


def check_call(found: list[Any], output_index: int) -> None:
    added = only(found, "response.output_item.added")
    assert added["item"]["status"] == "in_progress"
    shown = only(found, "conversation.item.added")["item"]
    assert (shown["type"], shown["call_id"]) == ("function_call", "call_1")
    done = only(found, "response.function_call_arguments.done")
    assert json.loads(done["arguments"]) == {"order_id": "48129"}
    assert (done["name"], done["call_id"]) == ("order_status", "call_1")
    assert done["output_index"] == output_index
    item = only(found, "response.output_item.done")["item"]
    assert (item["status"], item["arguments"]) == ("completed", done["arguments"])


CALL = [
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "conversation.item.done",
]


def test_a_call_is_a_response_of_its_own():
    client = Client()
    found = client.call()
    assert types(found) == ["response.created", *CALL, "response.done"]
    check_call(found, 0)
    assert found[-1]["response"]["output"][0]["call_id"] == "call_1"


def test_a_call_while_the_agent_speaks_is_a_part_of_that_response():
    client = Client()
    opened = client.hear("agent", 2, voiced=True, agent="Let me see")
    found = client.call()
    assert types(found) == CALL
    check_call(found, 1)
    assert found[0]["response_id"] == opened[0]["response"]["id"]
    response = only(client.hear("nobody", 12), "response.done")["response"]
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]


def test_a_result_is_an_answer():
    client = Client()
    client.call()
    item = {"type": "function_call_output", "call_id": "call_1", "output": '{"a":1}', "id": "out"}
    found = client.send("conversation.item.create", item=item)
    assert types(found) == ["conversation.item.added", "conversation.item.done", "Answer"]
    assert found[0]["item"]["id"] == "out"
    assert found[-1] == Answer("call_1", '{"a":1}')
    wrong = {"type": "function_call_output", "call_id": "call_2", "output": ""}
    assert error_of(client.send("conversation.item.create", item=wrong))["param"] == "item.call_id"


def test_a_nudge_is_answered_by_the_next_island():
    client = Client()
    wish = {"metadata": {"client_event_id": "e1"}, "instructions": "Be brief.\nGreet him."}
    assert client.send("response.create", response=wish) == [Begin(), Note("Greet him.")]
    assert client.hear("nobody", 5) == []
    (created, *_) = client.hear("agent", 1, voiced=True)
    assert created["response"]["metadata"] == {"client_event_id": "e1"}
    assert "response.created" not in types(client.hear("nobody", 40))


def test_a_nudge_while_the_agent_speaks_is_no_error_and_answered_behind():
    client = Client()
    client.hear("agent", 3, voiced=True)
    assert client.send("response.create", response={"metadata": {"a": "b"}}) == [Begin()]
    assert types(client.hear("nobody", 12))[-1] == "response.done"
    found = client.hear("nobody", 12)
    assert types(found) == ["response.created", "response.done"]
    assert found[1]["response"]["status"] == "completed"
    assert found[1]["response"]["output"] == []
    assert found[1]["response"]["metadata"] == {"a": "b"}


def test_nudges_are_bounded_and_what_we_cannot_do_is_refused():
    client = Client()
    for _ in range(8):
        assert client.send("response.create") == [Begin()]
    error = error_of(client.send("response.create", event_id="e9"))
    assert error["code"] == "conversation_already_has_active_response"
    assert error["event_id"] == "e9"
    assert types(client.hear("nobody", 8 * 12)) == ["response.created", "response.done"] * 8
    for wish in ({"conversation": "none"}, {"input": [1]}, {"output_modalities": ["text"]}):
        assert (
            error_of(client.send("response.create", response=wish))["code"] == "unsupported_value"
        )


def test_a_client_cancels():
    client = Client()
    error = error_of(client.send("response.cancel"))
    assert error["code"] == "response_cancel_not_active"
    assert error["message"].startswith("Cancellation failed")
    opened = client.hear("agent", 3, voiced=True, agent="It is")
    assert types(client.send("response.cancel", response_id="resp_other")) == ["error"]
    found = client.send("response.cancel", response_id=opened[0]["response"]["id"])
    response = only(found, "response.done")["response"]
    assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert client.hear("agent", 5, voiced=True, agent="late") == []
    client.hear("nobody", 6)
    assert types(client.hear("agent", 1, voiced=True))[0] == "response.created"


def test_a_client_cancels_what_it_asked_for_and_nobody_has_begun():
    client = Client()
    client.send("response.create", response={"metadata": {"a": "b"}})
    found = client.send("response.cancel")
    assert types(found) == ["response.created", "response.done"]
    assert found[1]["response"]["status"] == "cancelled"
    assert client.hear("nobody", 30) == []


def test_messages_are_notes():
    client = Client()
    for role, text in (
        ("user", "The caller writes: hi there"),
        ("system", "hi there"),
        ("assistant", "You have said before: hi there"),
    ):
        content = [{"type": "input_text", "text": "hi"}, {"type": "text", "text": "there"}]
        item = {"type": "message", "role": role, "content": content}
        found = client.send("conversation.item.create", item=item)
        assert types(found) == ["conversation.item.added", "conversation.item.done", "Note"]
        assert found[-1] == Note(text)
        side = "output" if role == "assistant" else "input"
        assert {part["type"] for part in found[0]["item"]["content"]} == {f"{side}_text"}
    picture = [{"type": "input_image", "image_url": "data:"}]
    item = {"type": "message", "role": "user", "content": picture}
    assert error_of(client.send("conversation.item.create", item=item))["param"] == (
        "item.content[0].type"
    )


def test_a_call_of_an_earlier_conversation_is_known_but_not_ours():
    client = Client()
    call = {"type": "function_call", "call_id": "old", "name": "f", "arguments": "{}"}
    assert client.send("conversation.item.create", item=call)[-1] == Note(
        "You have called before: f {}"
    )
    output = {"type": "function_call_output", "call_id": "old", "output": "7"}
    assert client.send("conversation.item.create", item=output)[-1] == Note(
        "The call before has brought: 7"
    )


def message(item_id: str, text: str = "hi") -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "id": item_id, "content": content}


def test_items_have_an_order_and_one_id_each():
    client = Client()
    create = "conversation.item.create"
    assert client.send(create, item=message("a"))[0]["previous_item_id"] is None
    assert client.send(create, item=message("b"))[0]["previous_item_id"] == "a"
    found = client.send(create, item=message("c"), previous_item_id="a")
    assert found[0]["previous_item_id"] == "a"
    assert client.send(create, item=message("d"))[0]["previous_item_id"] == "b"
    found = client.send(create, item=message("e"), previous_item_id="root")
    assert found[0]["previous_item_id"] is None
    twice = error_of(client.send(create, item=message("a")))
    assert twice["code"] == "item_create_duplicate_item_id"
    lost = client.send(create, item=message("f"), previous_item_id="nowhere")
    assert error_of(lost)["param"] == "previous_item_id"


def test_items_are_retrieved_and_deleted():
    client = Client()
    client.send("conversation.item.create", item=message("a"))
    (found,) = client.send("conversation.item.retrieve", item_id="a")
    assert found["type"] == "conversation.item.retrieved"
    assert found["item"]["content"] == [{"type": "input_text", "text": "hi"}]
    (deleted,) = client.send("conversation.item.delete", item_id="a")
    assert (deleted["type"], deleted["item_id"]) == ("conversation.item.deleted", "a")
    error = error_of(client.send("conversation.item.retrieve", item_id="a", event_id="rci_a"))
    assert (error["code"], error["event_id"]) == ("item_retrieve_invalid_item_id", "rci_a")
    assert types(client.send("conversation.item.delete", item_id="a")) == ["error"]
    # What a client corrects after it was deleted is no news to the agent.
    again = client.send("conversation.item.create", item=message("a", "hello"))
    assert types(again) == ["conversation.item.added", "conversation.item.done"]


def test_a_client_cannot_take_our_ids():
    client = Client()
    for number in range(400):
        client.send("conversation.item.create", item=message(f"item_s1_{number + 900}"))
    names: set[str] = set()
    for _ in range(60):
        found = client.call()
        names.add(only(found, "conversation.item.added")["item"]["id"])
    assert len(names) == 60


def test_only_the_last_items_are_kept():
    client = Client()
    for number in range(600):
        client.send("conversation.item.create", item=message(f"m{number}"))
    assert types(client.send("conversation.item.retrieve", item_id="m88")) == [
        "conversation.item.retrieved"
    ]
    assert types(client.send("conversation.item.retrieve", item_id="m87")) == ["error"]


def test_a_truncated_item_is_what_was_heard():
    client = Client()
    opened = client.hear("agent", 10, voiced=True, agent="one two three four")
    item_id = only(opened, "conversation.item.added")["item"]["id"]
    client.hear("user", 3)  # makes 13 frames of sound
    truncate = {"item_id": item_id, "content_index": 0}
    (found,) = client.send("conversation.item.truncate", **truncate, audio_end_ms=520)
    assert found["type"] == "conversation.item.truncated"
    assert found["audio_end_ms"] == 520
    (found,) = client.send("conversation.item.retrieve", item_id=item_id)
    assert found["item"]["content"][0]["transcript"] == "one two"
    (found,) = client.send("conversation.item.truncate", **truncate, audio_end_ms=99_999)
    assert found["audio_end_ms"] == 12 * 80  # the third frame of the caller's ended it
    client.send("conversation.item.create", item=message("a"))
    for wrong in ({"item_id": "a"}, {"item_id": "none"}, {**truncate, "content_index": 1}):
        fields = {**truncate, **wrong, "audio_end_ms": 0}
        assert types(client.send("conversation.item.truncate", **fields)) == ["error"]


def test_push_to_talk_is_committed_by_the_client():
    client = Client()
    update = {"audio": {"input": {"turn_detection": None}}}
    client.send("session.update", session=update)
    (updated,) = client.tell(Configured(Settings()))
    assert updated["session"]["audio"]["input"]["turn_detection"] is None
    error = error_of(client.send("input_audio_buffer.commit"))
    assert error["code"] == "input_audio_buffer_commit_empty"
    client.send("input_audio_buffer.append", audio="AAAA")
    assert client.hear("user", 5, user="hello") + client.hear("nobody", 9) == []
    found = client.send("input_audio_buffer.commit")
    assert types(found) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert found[-1]["transcript"] == "hello"
    client.hear("nobody")
    assert types(client.send("input_audio_buffer.commit")) == ["error"]


def test_what_is_heard_over_webrtc_can_be_committed():
    """Its sound does not come in messages."""
    push_to_talk = {"audio": {"input": {"turn_detection": None}}}
    client = Client(sends_audio=False, **push_to_talk)
    for _ in range(2):
        error = error_of(client.send("input_audio_buffer.commit"))
        assert error["code"] == "input_audio_buffer_commit_empty"
        assert client.hear("user", 5, user="hello") + client.hear("nobody", 9) == []
        found = client.send("input_audio_buffer.commit")
        assert types(found)[0] == "input_audio_buffer.committed"
        assert found[-1]["transcript"] == "hello"
    client.hear("nobody")
    client.send("input_audio_buffer.clear")
    assert types(client.send("input_audio_buffer.commit")) == ["error"]


def test_a_commit_before_the_turn_was_heard_names_its_item():
    client = Client()
    client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    client.send("input_audio_buffer.append", audio="AAAA")
    committed, added, done = client.send("input_audio_buffer.commit")
    assert committed["item_id"] == added["item"]["id"] == done["item"]["id"]
    found = client.hear("user", 5, user="hello") + client.hear("nobody", 9)
    assert types(found) == [
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert found[1]["item_id"] == committed["item_id"]


def test_over_webrtc_sound_goes_another_way():
    client = Client(sends_audio=False)
    found = client.hear("agent", 3, voiced=True, agent="Hello")
    assert types(found).count("output_audio_buffer.started") == 1
    assert types(client.hear("nobody", 12))[-2:] == ["response.done", "output_audio_buffer.stopped"]
    client.hear("agent", 3, voiced=True)
    found = client.send("output_audio_buffer.clear")
    assert types(found)[-2:] == ["response.done", "output_audio_buffer.cleared"]
    assert client.dialect.is_hushed
    assert client.send("output_audio_buffer.clear") == []


def test_problems_and_the_end():
    client = Client()
    error = error_of(client.tell(Problem("too_much_audio", "Too fast.", "audio")))
    assert (error["param"], error["event_id"]) == ("audio", None)
    codes = {"hang_up": 1000, "server_ends": 1012, "too_slow": 1008, "engine_lost": 1011}
    for reason, code in codes.items():
        assert list(client.dialect.told(Ended(reason))) == [Disconnect(code, reason)]  # type: ignore


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        (b"\xff\x00", "invalid_json", None),
        ('{"type":"response.create","x":"\\ud800"}', "invalid_json", None),
        ("[]", "invalid_value", None),
        ("{}", "invalid_value", "type"),
        ('{"type":"no.such"}', "invalid_value", "type"),
        ('{"type":5}', "invalid_value", "type"),
        ('{"type":"input_audio_buffer.append"}', "invalid_value", "audio"),
        ('{"type":"response.create","x":' + "[" * 5000, "invalid_value", None),
        ('{"type":"conversation.item.create","item":{"type":"mcp"}}', "invalid_value", "item.type"),
    ],
)
def test_what_is_no_event_is_answered_by_an_error(data: str | bytes, code: str, param: str | None):
    error = error_of(Client().send_raw(data))
    assert (error["code"], error["param"]) == (code, param)


VALID = [
    {"type": "session.update", "session": {"tools": [{"type": "function", **TOOL}]}},
    {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
    {"type": "input_audio_buffer.append", "audio": "AAAA"},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "conversation.item.create", "item": message("item_s1_7"), "previous_item_id": "root"},
    {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c"}},
    {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 1},
    {"type": "conversation.item.retrieve", "item_id": "item_s1_7"},
    {"type": "conversation.item.delete", "item_id": "item_s1_7"},
    {"type": "response.create", "response": {"metadata": {"a": "b"}}},
    {"type": "response.cancel"},
    {"type": "output_audio_buffer.clear"},
]  # fmt: skip
JUNK = [None, -1, 10**30, "", "x" * 300, [], {}, [None], {"type": "x"}, True, 0.5]


def mutated(value: Any, random_: random.Random) -> Any:
    """The value with something in it that is not what it was."""
    if random_.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return random_.choice(JUNK)
    if isinstance(value, list):
        return [mutated(value[0], random_), *value[1:]]
    name = random_.choice(list(value))
    return {**value, name: mutated(value[name], random_)}


class Reader:
    """Holds the order against what SDKs insist on: one response at a time, nothing outside it."""

    def __init__(self) -> None:
        self.response = ""
        self.items: set[str] = set()

    def read(self, event: dict[str, Any]) -> None:
        type = event["type"]
        if type == "response.created":
            assert not self.response
            self.response = event["response"]["id"]
        elif type == "response.done":
            assert event["response"]["id"] == self.response
            self.response = ""
        elif type.startswith("response."):
            assert event["response_id"] == self.response
        if type == "response.output_item.added":
            self.items.add(event["item"]["id"])
        if type.startswith("response.") and "item_id" in event:
            assert event["item_id"] in self.items


@pytest.mark.parametrize("seed", range(10))
def test_nothing_that_is_sent_or_said_breaks_it(seed: int):
    random_ = random.Random(seed)
    client, reader = Client(), Reader()
    floors = ["nobody", "agent", "user", "user_backchannel", "agent_backchannel"]
    for _ in range(250):
        event: Any = random_.choice(VALID)
        if random_.random() < 0.5:
            event = mutated(event, random_)
        text = json.dumps(event)
        if random_.random() < 0.1:
            text = text[: random_.randrange(len(text) + 1)]
        found = client.send_raw(text)
        if random_.random() < 0.1:
            found += client.call(random_.choice(["c", "d"]))
        voiced, says = random_.random() < 0.5, random_.choice(["", "a"])
        found += client.hear(random_.choice(floors), random_.randint(1, 8), voiced, says, says)
        for each in found:
            if isinstance(each, dict):
                reader.read(each)
    assert len(reader.items) > 10
