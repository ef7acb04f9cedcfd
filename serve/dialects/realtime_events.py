"""OpenAI Realtime's events: what clients send, as structs, and how what they are sent is written.

Fields that are not named here are ignored, as OpenAI's SDKs send more of them every month.
"""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serve.dialects.dialect import Send

_MAX_DEPTH = 32  # of what a client may nest
_MAX_AUDIO_BYTES = 4 * 2**20

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=65_536)]
Metadata = Annotated[dict[str, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]


class ClientError(ValueError):
    """What a client has sent cannot be done: an error's `code`, message and the field `param`."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class Format(msgspec.Struct, omit_defaults=True):
    """How sound is sent. Only `audio/pcm` has a rate; the others are 8 kHz."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: Literal[8_000, 16_000, 24_000, 48_000] | None = None


class FunctionTool(msgspec.Struct):
    """A tool that the client runs; `parameters` is a JSON Schema."""

    type: Literal["function"]
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, Meta(max_length=8192)] = ""
    parameters: dict[str, Any] = msgspec.field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )


class InputChange(msgspec.Struct):
    """What is to be heard. All but the format is told back and does nothing."""

    format: Format | UnsetType | None = UNSET
    turn_detection: dict[str, Any] | UnsetType | None = UNSET
    transcription: dict[str, Any] | UnsetType | None = UNSET
    noise_reduction: dict[str, Any] | UnsetType | None = UNSET


class VoiceId(msgspec.Struct):
    """A voice in the way of OpenAI's custom voices."""

    id: Annotated[str, Meta(max_length=64)]


class OutputChange(msgspec.Struct):
    """How the agent is to sound. The speed is told back and does nothing."""

    format: Format | UnsetType | None = UNSET
    voice: Annotated[str, Meta(max_length=64)] | VoiceId | UnsetType | None = UNSET
    speed: float | UnsetType | None = UNSET


class AudioChange(msgspec.Struct):
    """Sound both ways."""

    input: InputChange | None = None
    output: OutputChange | None = None


class SessionChange(msgspec.Struct):
    """What a client wants a session to be. What is UNSET stays; what is None is OpenAI's default.
    From `tool_choice` on, all is told back and does nothing."""

    type: Literal["realtime"] = "realtime"
    instructions: Text | UnsetType | None = UNSET
    tools: Annotated[list[FunctionTool], Meta(max_length=128)] | UnsetType | None = UNSET
    output_modalities: list[Literal["audio", "text"]] | UnsetType | None = UNSET
    audio: AudioChange | None = None
    tool_choice: str | dict[str, Any] | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    max_output_tokens: int | Literal["inf"] | UnsetType | None = UNSET
    tracing: str | dict[str, Any] | UnsetType | None = UNSET
    truncation: str | dict[str, Any] | UnsetType | None = UNSET
    reasoning: dict[str, Any] | UnsetType | None = UNSET
    prompt: dict[str, Any] | UnsetType | None = UNSET
    include: list[str] | UnsetType | None = UNSET


class ContentPart(msgspec.Struct, omit_defaults=True):
    """A part of a message: something written, or what was said as far as it is known in writing."""

    type: Literal["input_text", "output_text", "text", "input_audio", "output_audio", "audio"]
    text: Text | None = None
    transcript: Text | None = None


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """Something that somebody has written, or said in an earlier conversation."""

    role: Literal["user", "system", "assistant"]
    content: Annotated[list[ContentPart], Meta(max_length=64)]
    id: Id | None = None


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """A call of an earlier conversation."""

    call_id: Id
    name: Annotated[str, Meta(max_length=64)]
    arguments: Text
    id: Id | None = None


class FunctionOutputItem(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What a call has brought."""

    call_id: Id
    output: Text = ""
    id: Id | None = None


class ResponseWish(msgspec.Struct):
    """What a response is to be. `metadata` is told back with it."""

    instructions: Text | None = None
    metadata: Metadata | None = None
    output_modalities: list[Literal["audio", "text"]] | None = None
    conversation: str | None = None
    input: list[Any] | None = None


class ClientEvent(msgspec.Struct, tag_field="type"):
    """What all events of a client have; errors name the `event_id` of what was wrong."""

    event_id: Annotated[str, Meta(max_length=512)] | None = None


class SessionUpdate(ClientEvent, tag="session.update", kw_only=True):
    """The session is to be different."""

    session: SessionChange


class BufferAppend(ClientEvent, tag="input_audio_buffer.append", kw_only=True):
    """More sound of the caller, base64 on the wire."""

    audio: Annotated[bytes, Meta(max_length=_MAX_AUDIO_BYTES)]


class BufferCommit(ClientEvent, tag="input_audio_buffer.commit"):
    """The caller's turn is over, says the client."""


class BufferClear(ClientEvent, tag="input_audio_buffer.clear"):
    """What has not been heard yet is not to be heard."""


class OutputClear(ClientEvent, tag="output_audio_buffer.clear"):
    """WebRTC alone has it."""


class ItemCreate(ClientEvent, tag="conversation.item.create", kw_only=True):
    """An item from the client, behind another one ("root": before all; None: behind all)."""

    item: MessageItem | FunctionCallItem | FunctionOutputItem
    previous_item_id: Id | None = None


class ItemRetrieve(ClientEvent, tag="conversation.item.retrieve", kw_only=True):
    """What is in an item?"""

    item_id: Id


class ItemTruncate(ClientEvent, tag="conversation.item.truncate", kw_only=True):
    """The caller has heard no more than this of an item."""

    item_id: Id
    content_index: int
    audio_end_ms: Annotated[int, Meta(ge=0)]


class ItemDelete(ClientEvent, tag="conversation.item.delete", kw_only=True):
    """An item is to be forgotten."""

    item_id: Id


class ResponseCreate(ClientEvent, tag="response.create", kw_only=True):
    """The agent is to say something."""

    response: ResponseWish | None = None


class ResponseCancel(ClientEvent, tag="response.cancel", kw_only=True):
    """The agent is to say no more of a response (None: of the open one)."""

    response_id: Id | None = None


AnyEvent = (
    SessionUpdate
    | BufferAppend
    | BufferCommit
    | BufferClear
    | OutputClear
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | ResponseCreate
    | ResponseCancel
)


class _Named(msgspec.Struct):
    """As much of an event as its error needs."""

    event_id: Any = None


_EVENTS = msgspec.json.Decoder(AnyEvent)
_NAMED = msgspec.json.Decoder(_Named)


def decode(data: str | bytes) -> AnyEvent:
    """An event of a client's. ClientError says what is wrong with it."""
    try:
        event = _EVENTS.decode(data)
        if isinstance(event, SessionUpdate):
            _assert_shallow(event.session)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _client_error(error) from None
    except (msgspec.DecodeError, UnicodeError):
        raise ClientError("invalid_json", "The message is not JSON.") from None
    return event


def event_id_of(data: str | bytes) -> str | None:
    """The `event_id` of a message that was wrong, if it has one."""
    try:
        name = _NAMED.decode(data).event_id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return name[:512] if isinstance(name, str) else None


def read_session(session: Any) -> SessionChange:
    """What a client secret, or whoever opens a call, says of its session: parsed JSON. ClientError
    says what is wrong with it."""
    try:
        change = msgspec.convert(session, SessionChange)
        _assert_shallow(change)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _client_error(error, "session") from None
    return change


def _client_error(error: Exception, within: str = "") -> ClientError:
    if isinstance(error, RecursionError):
        return ClientError("invalid_value", "The message is nested too deeply.", within or None)
    message = str(error)
    path = re.search(r"`\$\.?(.*?)`$", message)
    missing = re.search(r"missing required field `(.+?)`", message)
    fields = [within, path[1] if path else "", missing[1] if missing else ""]
    return ClientError("invalid_value", message, ".".join(filter(None, fields)) or None)


def _assert_shallow(change: SessionChange) -> None:
    """What is told back, or goes on as a tool's schema, has to be written again."""
    if _is_deeper(msgspec.to_builtins(change), _MAX_DEPTH):
        raise ClientError("invalid_value", "The session is nested too deeply.", "session")


def _is_deeper(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return depth == 0 or any(_is_deeper(part, depth - 1) for part in value)


class Wire:
    """Names things and writes events. What it makes depends on nothing but the session's id and
    what came before."""

    def __init__(self) -> None:
        self.session_id = ""
        self._count = 0

    def new_id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self.session_id}_{self._count}"

    def event(self, type: str, **fields: Any) -> Send:
        event = {"type": type, "event_id": self.new_id("event"), **fields}
        return Send(msgspec.json.encode(event).decode())

    def error(self, type: str, problem: ClientError, event_id: str | None, **more: Any) -> Send:
        error = {"type": type, "code": problem.code, "message": problem.message}
        error |= {"param": problem.param, "event_id": event_id}
        return self.event("error", error=error | more)
