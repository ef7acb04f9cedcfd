"""What clients' messages have in common, whichever protocol they speak, and what is wrong with
those that can't be read.

Fields that a struct does not name are ignored, as clients send more of them every month.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from serve.gateway.audio import AudioFormat
from serve.gateway.events import Approve, Note, Refuse

_LEVELS = 32  # of what a client may nest
_QUOTE_LENGTH = 500  # of a fault's message, which quotes what was wrong
_BY = {"user": "The caller writes: ", "assistant": "You have said before: "}

Id = Annotated[str, Meta(max_length=512)]
Text = Annotated[str, Meta(max_length=65_536)]
ShortText = Annotated[str, Meta(max_length=8192)]
Audio = Annotated[bytes, Meta(max_length=786_432)]  # 8 s at 48 kHz; JSON has it as base64

FORMATS = {"pcm16": "audio/pcm", "mulaw": "audio/pcmu", "alaw": "audio/pcma"}
_ENCODINGS: dict[str, Any] = {name: encoding for encoding, name in FORMATS.items()}


class Message(msgspec.Struct, tag_field="type", kw_only=True):
    """Any message; what answers it names its `event_id`."""

    event_id: Id | None = None

    @property
    def type(self) -> str:
        """What kind of message it is."""
        return str(self.__struct_config__.tag)


class ConfirmResponse(Message, tag="duologue.tool.confirm.response"):
    """A caller's word on what waits for it, in any protocol."""

    approval_id: Id
    approve: bool

    @property
    def as_command(self) -> Approve | Refuse:
        """The same as the gateway has it."""
        return (Approve if self.approve else Refuse)(self.approval_id)


class Function(msgspec.Struct):
    """A tool that the client runs; `parameters` are JSON Schema. Protocols differ in its name."""

    name: str
    description: ShortText | None = None
    parameters: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_depth(self.parameters)

    def as_setting(self) -> dict[str, Any]:
        """The same as the gateway has it."""
        return {
            "name": self.name,
            "description": self.description or "",
            "parameters": self.parameters or {"type": "object", "properties": {}},
        }


class Format(msgspec.Struct, frozen=True):
    """Sound as OpenAI's protocols name it. PCM has 24 kHz where it does not say."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: int | None = None

    def __post_init__(self) -> None:
        self.as_audio_format()  # raises ValueError on what there is no such sound of

    def as_audio_format(self) -> AudioFormat:
        """The same as the gateway has it."""
        usual_hz = 24_000 if self.type == "audio/pcm" else 8_000
        return AudioFormat(_ENCODINGS[self.type], usual_hz if self.rate is None else self.rate)


def check_depth(value: Any, levels: int = _LEVELS) -> None:
    """ValueError if JSON is nested too deep to be written again."""
    if levels == 0:
        raise ValueError(f"nested deeper than {_LEVELS} levels")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            check_depth(inner, levels - 1)


def note_of(role: str, text: str) -> Note:
    """What the agent is to know of a message in writing: by the user, the assistant, or whoever
    else instructs it."""
    return Note(_BY.get(role, "") + text)


@dataclass(frozen=True)
class Fault:
    """Why a message can't be read: `param` is the field that was wrong, `event_id` the message's
    own, where they are known."""

    kind: Literal["json", "depth", "missing", "unknown", "value"]
    message: str
    param: str | None = None
    event_id: str | None = None


class _Envelope(msgspec.Struct):
    event_id: Id | None = None


_Read = TypeVar("_Read")
_envelope_decoder = msgspec.json.Decoder(_Envelope)


def read(decoder: msgspec.json.Decoder[_Read], data: str | bytes) -> _Read | Fault:
    """A client's message, or what is wrong with it."""
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError) as error:
        return fault_of(error, data)


def fault_of(error: Exception, data: str | bytes = b"") -> Fault:
    """What msgspec says is wrong, with a message or with parsed JSON."""
    if isinstance(error, RecursionError):
        return Fault("depth", "The message is nested too deeply.")
    if not isinstance(error, msgspec.ValidationError):
        return Fault("json", "The message is not JSON.")
    text = str(error)
    path = re.search(r" - at `\$\.?([^`]*)`$", text)
    missing = re.match(r"Object missing required field `(.*?)`", text)
    unknown = re.match(r"Object contains unknown field `(.*?)`", text)
    kind = "missing" if missing else "unknown" if unknown else "value"
    names = [found[1] for found in (path, missing, unknown) if found and found[1]]
    return Fault(kind, text[:_QUOTE_LENGTH], ".".join(names) or None, _event_id_of(data))


def _event_id_of(data: str | bytes) -> str | None:
    try:
        return _envelope_decoder.decode(data).event_id
    except (ValueError, RecursionError):  # what is behind the first fault may be anything
        return None
