"""What clients send over smallest.ai's Hydra protocol, decoded.

Modelled after the types of smallest.ai's SDK. Fields that mean nothing to us are ignored, except in
`session.update`, where Hydra refuses them too: only tools can be changed in a session.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

_MESSAGE_LENGTH = 500  # of an error's, which quotes what was wrong
_DEPTH = 32  # of a tool's parameters

_Id = Annotated[str, Meta(max_length=512)]
_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_ShortText = Annotated[str, Meta(max_length=8192)]
_Text = Annotated[str, Meta(max_length=65_536)]
_Audio = Annotated[bytes, Meta(max_length=786_432)]  # 8 s at 48 kHz; JSON has it as base64
_Rate = Literal[8000, 16_000, 24_000, 48_000]


def _check_depth(value: Any, levels: int) -> None:
    if levels == 0:
        raise ValueError(f"nested deeper than {_DEPTH} levels")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, levels - 1)


class Tool(msgspec.Struct):
    """A function that the client runs; `parameters` are JSON Schema."""

    name: _Name
    description: _ShortText | None = None
    parameters: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_depth(self.parameters, _DEPTH)

    def as_setting(self) -> dict[str, Any]:
        """The same as the gateway has it."""
        return {
            "name": self.name,
            "description": self.description or "",
            "parameters": self.parameters or {"type": "object", "properties": {}},
        }


_Tools = Annotated[list[Tool], Meta(max_length=128)]


class SessionConfig(msgspec.Struct):
    """All that a session begins with. Only the vendor's examples have the rates."""

    instructions: _Text | None = None
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
    text: _ShortText | None = None


class FunctionCallOutput(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What a call has brought."""

    call_id: _Id
    output: _Text


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """Something in writing."""

    role: Literal["user", "assistant", "system"] = "user"
    content: Annotated[list[_Content], Meta(max_length=16)] = []

    @property
    def text(self) -> str:
        """The content as one text."""
        return "\n".join(part.text for part in self.content if part.text)


class _Message(msgspec.Struct, tag_field="type", kw_only=True):
    event_id: _Id | None = None


class SessionConfigure(_Message, tag="session.configure"):
    """What the session is to be; sent once."""

    session: SessionConfig


class SessionUpdate(_Message, tag="session.update"):
    """Other tools."""

    session: SessionChange


class InputAudioAppend(_Message, tag="input_audio_buffer.append"):
    """Sound of the caller."""

    audio: _Audio

    def __post_init__(self) -> None:
        if len(self.audio) % 2:
            raise ValueError("audio is not PCM16")


class ItemCreate(_Message, tag="conversation.item.create"):
    """What a call has brought, or a message."""

    item: FunctionCallOutput | MessageItem


class ResponseCreate(_Message, tag="response.create"):
    """The agent is to say something to what calls have brought. Ours does so on its own."""


class ResponseCancel(_Message, tag="response.cancel"):
    """The client wants no more of a response: this one, or whichever there is."""

    response_id: _Id | None = None


ClientMessage = (
    SessionConfigure
    | SessionUpdate
    | InputAudioAppend
    | ItemCreate
    | ResponseCreate
    | ResponseCancel
)


@dataclass(frozen=True)
class Refusal:
    """Why a client's message is not done, under Hydra's own codes: `param` is the field that was
    wrong, `client_event_id` the message's own id, if it could be read."""

    code: str
    message: str
    param: str | None = None
    client_event_id: str | None = None


class _Envelope(msgspec.Struct):
    event_id: _Id | None = None


_decoder = msgspec.json.Decoder(ClientMessage)
_envelope_decoder = msgspec.json.Decoder(_Envelope)


def decoded(data: str | bytes) -> ClientMessage | Refusal:
    """A client's message, or what is wrong with it."""
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        return _refusal(str(error), data)
    except (ValueError, RecursionError):
        return Refusal("invalid_frame", "A message must be an object of JSON.")


def _refusal(message: str, data: str | bytes) -> Refusal:
    path = re.search(r" - at `\$\.?(.*)`$", message)
    field = re.match(r"Object (?:missing required|contains unknown) field `(.*?)`", message)
    param = ".".join(found[1] for found in (path, field) if found and found[1]) or None
    if param == "audio" or "audio is not PCM16" in message:
        code, param = "invalid_audio", "audio"
    elif (param == "type" and path) or "unknown field" in message:
        code = "invalid_frame"
    else:
        code = "invalid_request_error"
    try:
        event_id = _envelope_decoder.decode(data).event_id
    except (ValueError, RecursionError):  # what follows the first error may be anything
        event_id = None
    return Refusal(code, message[:_MESSAGE_LENGTH], param, event_id)
