"""What clients send over OpenAI's Live protocol, decoded.

Modelled after the types of OpenAI's SDKs; fields that mean nothing to us are ignored.
"""

import re
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from serve.dialects.live_config import (
    Id,
    SessionChange,
    SessionConfig,
    ShortText,
    Text,
    TextPart,
)
from serve.dialects.live_objects import Refusal

_MESSAGE_LENGTH = 500  # of an error's, which quotes what was wrong
_Audio = Annotated[bytes, Meta(max_length=786_432)]  # 8 s at 48 kHz; JSON has it as base64


class _Message(msgspec.Struct, tag_field="type", frozen=True, kw_only=True):
    event_id: Id | None = None

    @property
    def type(self) -> str:
        return str(self.__struct_config__.tag)


class SessionStart(_Message, tag="session.start", frozen=True):
    """The first message of all."""

    session: SessionConfig


class SessionUpdate(_Message, tag="session.update", frozen=True):
    """Other settings of the delegate."""

    session: SessionChange


class InputAudioAppend(_Message, tag="session.input_audio.append", frozen=True):
    """Sound of the caller."""

    audio: _Audio


class InputAudioMute(_Message, tag="session.input_audio.mute", frozen=True):
    """Silence is to be heard from now on."""


class InputAudioUnmute(_Message, tag="session.input_audio.unmute", frozen=True):
    """The caller is to be heard again."""


class _Append(_Message, frozen=True):
    """Something to know; `delegation_id` where it comes of a delegation to the client."""

    content: ShortText
    delegation_id: Id | None = None


class InstructionsAppend(_Append, tag="session.instructions.append", frozen=True):
    """An instruction from now on."""


class ThinkingAppend(_Append, tag="session.thinking.append", frozen=True):
    """Something to know silently."""


class CommentaryAppend(_Append, tag="session.commentary.append", frozen=True):
    """Something to say."""


class FunctionCallOutput(msgspec.Struct, tag_field="type", tag="function_call_output", frozen=True):
    """What a call has brought."""

    call_id: Id
    output: Text | Annotated[list[TextPart], Meta(max_length=16)]

    @property
    def text(self) -> str:
        """The output as one text."""
        return _joined(self.output)


class MessageItem(msgspec.Struct, tag_field="type", tag="message", frozen=True):
    """Something in writing."""

    role: Literal["user", "system", "developer", "assistant"]
    content: ShortText | Annotated[list[TextPart], Meta(max_length=16)]

    @property
    def text(self) -> str:
        """The content as one text."""
        return _joined(self.content)


class ResponseItemCreate(_Message, tag="response.item.create", frozen=True):
    """Something for the delegate: what a call has brought, or a message."""

    item: FunctionCallOutput | MessageItem


class ResponseCreate(_Message, tag="response.create", frozen=True):
    """The delegate is to go on. Ours does so on its own, with every result."""


class SessionClose(_Message, tag="session.close", frozen=True):
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
)


class _Envelope(msgspec.Struct):
    event_id: Id | None = None


_TYPES = ", ".join(str(message.__struct_config__.tag) for message in get_args(ClientMessage))
_decoder = msgspec.json.Decoder(ClientMessage)
_envelope_decoder = msgspec.json.Decoder(_Envelope)


def decoded(data: str | bytes) -> ClientMessage | Refusal:
    """A client's message, or what is wrong with it."""
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        return _refusal(str(error), data)
    except (ValueError, RecursionError):
        return Refusal("invalid_json", "A message must be an object of JSON.")


def _refusal(message: str, data: str | bytes) -> Refusal:
    path = re.search(r" - at `\$\.?(.*)`$", message)
    missing = re.match(r"Object missing required field `(.*?)`", message)
    param = ".".join(found[1] for found in (path, missing) if found and found[1]) or None
    code = "missing_required_parameter" if missing else "invalid_value"
    if param == "type":
        code, message = "unknown_event_type", f"type must be one of {_TYPES}."
    try:
        event_id = _envelope_decoder.decode(data).event_id
    except (ValueError, RecursionError):  # what is behind the first fault may be no JSON at all
        event_id = None
    return Refusal(code, message[:_MESSAGE_LENGTH], param, event_id)


def _joined(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
