"""What clients send over smallest.ai's Hydra protocol, decoded.

Modelled after the types of smallest.ai's SDK. Fields that mean nothing to us are ignored, except in
`session.update`, where Hydra refuses them too: only tools can be changed in a session.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from serve.dialects.reading import (
    Audio,
    ConfirmResponse,
    Fault,
    Function,
    Id,
    Message,
    ShortText,
    Text,
    read,
)
from serve.dialects.writing import Refusal

_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_Rate = Literal[8000, 16_000, 24_000, 48_000]


class Tool(Function, kw_only=True):
    """A function that the client runs."""

    name: _Name


_Tools = Annotated[list[Tool], Meta(max_length=128)]


class SessionConfig(msgspec.Struct):
    """All that a session begins with. Only the vendor's examples have the rates."""

    instructions: Text | None = None
    voice: _Name | None = None
    tools: _Tools | None = None
    generate_initial_response: bool | None = None
    input_audio_sample_rate: _Rate = 16_000
    output_audio_sample_rate: _Rate = 48_000


class SessionChange(msgspec.Struct, forbid_unknown_fields=True):
    """All that can be changed in a session."""

    tools: _Tools | None = None


class _Content(msgspec.Struct):
    type: _Name = "input_text"
    text: ShortText | None = None


class FunctionCallOutput(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What a call has brought."""

    call_id: Id
    output: Text


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """Something in writing."""

    role: Literal["user", "assistant", "system"] = "user"
    content: Annotated[list[_Content], Meta(max_length=16)] = []

    @property
    def text(self) -> str:
        """The content as one text."""
        return "\n".join(part.text for part in self.content if part.text)


class SessionConfigure(Message, tag="session.configure"):
    """What the session is to be; sent once."""

    session: SessionConfig


class SessionUpdate(Message, tag="session.update"):
    """Other tools."""

    session: SessionChange


class InputAudioAppend(Message, tag="input_audio_buffer.append"):
    """Sound of the caller."""

    audio: Audio

    def __post_init__(self) -> None:
        if len(self.audio) % 2:
            raise ValueError("audio is not PCM16")


class ItemCreate(Message, tag="conversation.item.create"):
    """What a call has brought, or a message."""

    item: FunctionCallOutput | MessageItem


class ResponseCreate(Message, tag="response.create"):
    """The agent is to say something to what calls have brought. Ours does so on its own."""


class ResponseCancel(Message, tag="response.cancel"):
    """The client wants no more of a response: this one, or whichever there is."""

    response_id: Id | None = None


ClientMessage = (
    SessionConfigure
    | SessionUpdate
    | InputAudioAppend
    | ItemCreate
    | ResponseCreate
    | ResponseCancel
    | ConfirmResponse
)


_decoder = msgspec.json.Decoder(ClientMessage)


def decoded(data: str | bytes) -> ClientMessage | Refusal:
    """A client's message, or what is wrong with it."""
    message = read(_decoder, data)
    return _refusal(message) if isinstance(message, Fault) else message


def _refusal(fault: Fault) -> Refusal:
    code, param = "invalid_request_error", fault.param
    if param == "audio" or "audio is not PCM16" in fault.message:
        code, param = "invalid_audio", "audio"
    elif fault.kind in ("json", "depth", "unknown") or (fault.kind, param) == ("value", "type"):
        code = "invalid_frame"
    return Refusal(code, fault.message, param, fault.event_id)
