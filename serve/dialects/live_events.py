"""What clients send over OpenAI's Live protocol, decoded.

Modelled after the types of OpenAI's SDKs; fields that mean nothing to us are ignored.
"""

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from serve.dialects.live_config import SessionChange, SessionConfig, TextPart
from serve.dialects.reading import (
    Audio,
    ConfirmResponse,
    Fault,
    Id,
    Message,
    ShortText,
    Text,
    read,
)
from serve.dialects.server_tools import ApprovalResponse
from serve.dialects.writing import Refusal


class SessionStart(Message, tag="session.start"):
    """The first message of all."""

    session: SessionConfig


class SessionUpdate(Message, tag="session.update"):
    """Other settings of the delegate."""

    session: SessionChange


class InputAudioAppend(Message, tag="session.input_audio.append"):
    """Sound of the caller."""

    audio: Audio


class InputAudioMute(Message, tag="session.input_audio.mute"):
    """Silence is to be heard from now on."""


class InputAudioUnmute(Message, tag="session.input_audio.unmute"):
    """The caller is to be heard again."""


class Append(Message):
    """Something to know; `delegation_id` where it comes of a delegation to the client."""

    content: ShortText
    delegation_id: Id | None = None


class InstructionsAppend(Append, tag="session.instructions.append"):
    """An instruction from now on."""


class ThinkingAppend(Append, tag="session.thinking.append"):
    """Something to know silently."""


class CommentaryAppend(Append, tag="session.commentary.append"):
    """Something to say."""


class FunctionCallOutput(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What a call has brought."""

    call_id: Id
    output: Text | Annotated[list[TextPart], Meta(max_length=16)]

    @property
    def text(self) -> str:
        """The output as one text."""
        return _joined(self.output)


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """Something in writing."""

    role: Literal["user", "system", "developer", "assistant"]
    content: ShortText | Annotated[list[TextPart], Meta(max_length=16)]

    @property
    def text(self) -> str:
        """The content as one text."""
        return _joined(self.content)


class ResponseItemCreate(Message, tag="response.item.create"):
    """Something for the delegate: what a call has brought, a word on one, or a message."""

    item: FunctionCallOutput | ApprovalResponse | MessageItem


class ResponseCreate(Message, tag="response.create"):
    """The delegate is to go on. Ours does so on its own, with every result."""


class SessionClose(Message, tag="session.close"):
    """The client wants no more."""


ClientMessage = (
    SessionStart
    | SessionUpdate
    | InputAudioAppend
    | InputAudioMute
    | InputAudioUnmute
    | InstructionsAppend
    | ThinkingAppend
    | CommentaryAppend
    | ResponseItemCreate
    | ResponseCreate
    | SessionClose
    | ConfirmResponse
)


_TYPES = ", ".join(str(message.__struct_config__.tag) for message in get_args(ClientMessage))
_decoder = msgspec.json.Decoder(ClientMessage)


def decoded(data: str | bytes) -> ClientMessage | Refusal:
    """A client's message, or what is wrong with it."""
    message = read(_decoder, data)
    return _refusal(message) if isinstance(message, Fault) else message


def _refusal(fault: Fault) -> Refusal:
    code, message = "invalid_value", fault.message
    if fault.kind in ("json", "depth"):
        code = "invalid_json"
    elif fault.param == "type":
        code, message = "unknown_event_type", f"type must be one of {_TYPES}."
    elif fault.kind == "missing":
        code = "missing_required_parameter"
    return Refusal(code, message, fault.param, fault.event_id)


def _joined(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
