"""Messages that no client should send, made of those that clients do send."""

import base64
import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

from serve.bench.web_caller import TOOL

_SOUND = base64.b64encode(bytes(320)).decode()
_ITEMS = (
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
    {"type": "function_call", "call_id": "call_1", "name": "order_status", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": '{"state": "sent"}'},
)
_SESSION = {
    "type": "realtime", "instructions": "Be brief.", "tools": [TOOL],
    "output_modalities": ["audio"], "max_output_tokens": "inf", "tool_choice": "auto",
    "audio": {
        "input": {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": None},
        "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "ava", "speed": 1.0},
    },
}  # fmt: skip
_LIVE = {
    "model": "gpt-live", "instructions": "Be brief.",
    "audio": {"format": {"type": "audio/pcm", "rate": 24_000}, "output": {"voice": "ava"}},
    "input": [{"role": "user", "content": [{"text": "hello"}]}],
    "client": {"data_channel": {"allowed_client_events": "all"}},
    "delegation": {"type": "responses", "responses": {"instructions": "Ask.", "tools": [TOOL]}},
}  # fmt: skip
_HYDRA = {
    "instructions": "Be brief.", "voice": "ava", "tools": [TOOL], "generate_initial_response": True,
    "input_audio_sample_rate": 16_000, "output_audio_sample_rate": 48_000,
}  # fmt: skip
_START = {
    "streamSid": "MZ1", "accountSid": "AC1", "tracks": ["inbound"],
    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    "customParameters": {"token": "fuzz", "instructions": "Be brief.", "order": "48192"},
}  # fmt: skip
_ID = {"event_id": "event_1"}

VALID: dict[str, tuple[dict[str, Any], ...]] = {
    "realtime": (
        {"type": "session.update", "session": _SESSION, **_ID},
        {"type": "input_audio_buffer.append", "audio": _SOUND},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.clear"},
        {"type": "output_audio_buffer.clear"},
        *({"type": "conversation.item.create", "item": item} for item in _ITEMS),
        {"type": "conversation.item.create", "previous_item_id": "root", "item": _ITEMS[0]},
        {"type": "conversation.item.retrieve", "item_id": "item_1", **_ID},
        {"type": "conversation.item.delete", "item_id": "item_1"},
        {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0,
         "audio_end_ms": 80},
        {"type": "response.create", "response": {"instructions": "Go on.", "metadata": {"a": "b"}}},
        {"type": "response.cancel", "response_id": "resp_1"},
    ),
    "live": (
        {"type": "session.start", "session": _LIVE, **_ID},
        {"type": "session.update", "session": {"delegation": _LIVE["delegation"]}},
        {"type": "session.input_audio.append", "audio": _SOUND},
        {"type": "session.input_audio.mute"},
        {"type": "session.input_audio.unmute"},
        {"type": "session.instructions.append", "content": "Be brief."},
        {"type": "session.thinking.append", "content": "He is in a hurry."},
        {"type": "session.commentary.append", "content": "Sent.", "delegation_id": "delegation_1"},
        {"type": "response.item.create", "item": _ITEMS[2], **_ID},
        {"type": "response.item.create", "item": _ITEMS[0]},
        {"type": "response.create"},
        {"type": "session.close"},
    ),
    "hydra": (
        {"type": "session.configure", "session": _HYDRA, **_ID},
        {"type": "session.update", "session": {"tools": [TOOL]}},
        {"type": "input_audio_buffer.append", "audio": _SOUND},
        {"type": "conversation.item.create", "item": _ITEMS[0]},
        {"type": "conversation.item.create", "item": _ITEMS[2]},
        {"type": "response.create"},
        {"type": "response.cancel", "response_id": "resp_1"},
    ),
    "twilio": (
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {"event": "start", "sequenceNumber": "1", "start": _START, "streamSid": "MZ1"},
        {"event": "media", "media": {"track": "inbound", "chunk": "1", "payload": _SOUND}},
        {"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": "5"}},
        {"event": "mark", "mark": {"name": "1"}},
        {"event": "stop", "stop": {"callSid": "CA1"}},
    ),
}  # fmt: skip
FIRST = {"realtime": 0, "live": 0, "hydra": 0, "twilio": 1}  # of VALID, that opens a session

_RAW = ("1e999", "-1e999", "NaN", "-Infinity", "1" * 400, "0x10", "01", "1e-400", '"\\ud800"',
        '"\\u0000"', "9223372036854775808", "-0.0", "{", "]", "")  # fmt: skip
_MARK, _MARKED = "<raw %d>", re.compile('"<raw ([0-9]+)>"')
_STRINGS = (
    "", " ", "../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "C:\\windows\\win.ini",
    "/dev/zero", "file:///etc/passwd", "nano/../../x", "$(reboot)",
    "'; DROP TABLE sessions; --", "\x00\x01\x7f", "\r\nX-Evil: 1", "\u202e\u2028\ufeff", "call_0_0",
    "root", "\U0001f600" * 40, "=", "A===", "a" * 77,
)  # fmt: skip


def mutated(protocol: str, rng: random.Random) -> str | bytes:
    """A message of a client's that is wrong in one or several ways; every fourth one is right."""
    event = copy.deepcopy(rng.choice(VALID[protocol]))
    how = rng.random()
    if how < 0.25:
        return json.dumps(event)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _spoil(event, rng)
    text = json.dumps(event)
    text = _MARKED.sub(lambda found: _RAW[int(found[1])], text)
    return text if how < 0.6 else _garbled(text, rng)


def _spoil(event: dict[str, Any], rng: random.Random) -> None:
    """Changes something somewhere in it."""
    holder, key = rng.choice([*_places(event)])
    match rng.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(_STRINGS)] = holder[key]
        case _:
            holder[key] = _junk(rng)
    if not event:
        event["type"] = "?"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All that is in it: what holds it, and where."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in [*inside]:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _junk(rng: random.Random) -> Any:
    deep: Any = []
    match rng.randrange(10):
        case 0:
            return rng.choice(
                (None, True, False, -1, 0, 2**31, 0.1, -(2**63), {}, [], [None], {"": {}})
            )
        case 1 | 2:
            return _MARK % rng.randrange(len(_RAW))
        case 3:
            return rng.choice("ax\x00\u00e9") * rng.choice((100, 1000, 10_000, 100, 1000, 100_000))
        case 4:
            return [copy.deepcopy(rng.choice(_ITEMS)) for _ in range(rng.choice((3, 20, 200)))]
        case 5:
            for _ in range(rng.choice((10, 31, 40))):
                deep = rng.choice(([deep], {"a": deep}))
            return deep
        case 6:
            return {str(number): number for number in range(rng.choice((20, 40, 500)))}
        case _:
            return rng.choice(_STRINGS)


def _garbled(text: str, rng: random.Random) -> str | bytes:
    """Something that may be no JSON any more, or no text."""
    at = rng.randrange(len(text) + 1)
    match rng.randrange(10):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + chr(rng.randrange(1, 0xD800)) + text[at:]
        case 2:
            return text[:at] + text[at + rng.randrange(1, 9) :]
        case 3:
            return text + text
        case 4:
            return f'{{"type": "session.update", {text[1:]}'  # a key twice
        case 5:
            return text[:at] + rng.choice("[{") * rng.choice((1, 100, 1000, 10, 50_000)) + text[at:]
        case 6:
            return text.encode()  # as a binary message
        case 7:
            return text[:at].encode() + rng.randbytes(rng.randrange(1, 9)) + text[at:].encode()
        case 8:
            return rng.randbytes(rng.randrange(2000))
        case _:
            return rng.choice(("", " ", "null", "[]", "0", '"', "\ufeff{}", "{}", "true", "{" * 10))
