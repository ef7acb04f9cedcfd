"""What clients send over OpenAI Realtime, decoded."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serve.dialects.reading import (
    ConfirmResponse,
    Fault,
    Format,
    Function,
    Message,
    Text,
    check_depth,
    fault_of,
    read,
)
from serve.dialects.server_tools import ApprovalResponse, McpTools
from serve.dialects.writing import Refusal

ItemId = Annotated[str, Meta(min_length=1, max_length=256)]
Metadata = Annotated[dict[str, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]
_Audio = Annotated[bytes, Meta(max_length=4 * 2**20)]  # JSON has it as base64


class ClientError(ValueError):
    """What a client has sent cannot be done: an error's `code`, message and the field `param`."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class FunctionTool(Function, tag_field="type", tag="function", kw_only=True):
    """A tool that the client runs."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class McpTool(McpTools, tag_field="type", tag="mcp"):
    """Tools that this server runs."""


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
    tools: Annotated[list[FunctionTool | McpTool], Meta(max_length=128)] | UnsetType | None = UNSET
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

    def __post_init__(self) -> None:
        check_depth(msgspec.to_builtins(self))  # it is told back


class ContentPart(msgspec.Struct, omit_defaults=True):
    """A part of a message: something written, or what was said as far as it is known in writing."""

    type: Literal["input_text", "output_text", "text", "input_audio", "output_audio", "audio"]
    text: Text | None = None
    transcript: Text | None = None


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """Something that somebody has written, or said in an earlier conversation."""

    role: Literal["user", "system", "assistant"]
    content: Annotated[list[ContentPart], Meta(max_length=64)]
    id: ItemId | None = None


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """A call of an earlier conversation."""

    call_id: ItemId
    name: Annotated[str, Meta(max_length=64)]
    arguments: Text
    id: ItemId | None = None


class FunctionOutputItem(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What a call has brought."""

    call_id: ItemId
    output: Text = ""
    id: ItemId | None = None


class ApprovalItem(ApprovalResponse):
    """The same as an item of the conversation."""

    reason: Text | None = None
    id: ItemId | None = None


class ResponseWish(msgspec.Struct):
    """What a response is to be. `metadata` is told back with it."""

    instructions: Text | None = None
    metadata: Metadata | None = None
    output_modalities: list[Literal["audio", "text"]] | None = None
    conversation: str | None = None
    input: list[Any] | None = None


class SessionUpdate(Message, tag="session.update"):
    """The session is to be different."""

    session: SessionChange


class BufferAppend(Message, tag="input_audio_buffer.append"):
    """More sound of the caller."""

    audio: _Audio


class BufferCommit(Message, tag="input_audio_buffer.commit"):
    """The caller's turn is over, says the client."""


class BufferClear(Message, tag="input_audio_buffer.clear"):
    """What has not been heard yet is not to be heard."""


class OutputClear(Message, tag="output_audio_buffer.clear"):
    """WebRTC alone has it."""


class ItemCreate(Message, tag="conversation.item.create"):
    """An item from the client, behind another one ("root": before all; None: behind all)."""

    item: MessageItem | FunctionCallItem | FunctionOutputItem | ApprovalItem
    previous_item_id: ItemId | None = None


class ItemRetrieve(Message, tag="conversation.item.retrieve"):
    """What is in an item?"""

    item_id: ItemId


class ItemTruncate(Message, tag="conversation.item.truncate"):
    """The caller has heard no more than this of an item."""

    item_id: ItemId
    content_index: int
    audio_end_ms: Annotated[int, Meta(ge=0)]


class ItemDelete(Message, tag="conversation.item.delete"):
    """An item is to be forgotten."""

    item_id: ItemId


class ResponseCreate(Message, tag="response.create"):
    """The agent is to say something."""

    response: ResponseWish | None = None


class ResponseCancel(Message, tag="response.cancel"):
    """The agent is to say no more of a response (None: of the open one)."""

    response_id: ItemId | None = None


ClientMessage = (
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
    | ConfirmResponse
)


class _Opening(msgspec.Struct):
    session: SessionChange


_decoder = msgspec.json.Decoder(ClientMessage)


def decoded(data: str | bytes) -> ClientMessage | Refusal:
    """A client's message, or what is wrong with it."""
    message = read(_decoder, data)
    return _refusal(message) if isinstance(message, Fault) else message


def session_of(session: dict[str, Any]) -> SessionChange:
    """What a client secret, or whoever opens a call, says of its session: parsed JSON. ClientError
    says what is wrong with it."""
    try:
        return msgspec.convert({"session": session}, _Opening).session
    except (msgspec.ValidationError, RecursionError) as error:
        refusal = _refusal(fault_of(error))
        raise ClientError(refusal.code, refusal.message, refusal.param) from None


def _refusal(fault: Fault) -> Refusal:
    code = "invalid_json" if fault.kind == "json" else "invalid_value"
    return Refusal(code, fault.message, fault.param, fault.event_id)
