"""Twilio Media Streams (`<Connect><Stream>`): a telephone call, as mu-law at 8 kHz in JSON.

Twilio plays what it is sent, in order and at its own pace. So it gets sound and no silence: from
the agent's first voiced frame to the end of the pause behind its last one, its backchannels too. A
mark stands at the end of each such stretch; Twilio sends it back once all before it is played. When
the caller takes the floor, what Twilio has not played yet is cleared.

Twilio takes nothing but `media`, `mark` and `clear` and ends streams that bring anything else: so
nobody is told of errors here; a message that Twilio does not send closes the socket, with a reason.
Calls of tools are not Twilio's to run, so it isn't told of them.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from serve.dialects.dialect import CLOSE_CODES, Disconnect, Send
from serve.dialects.reading import Fault, read
from serve.dialects.writing import sent
from serve.gateway.audio import AudioFormat
from serve.gateway.events import (
    Command,
    Configure,
    Ended,
    Event,
    HangUp,
    Heard,
    Note,
    PressKey,
    Say,
)

TELEPHONE = AudioFormat("mulaw", 8000)

_QUIET_FRAMES = 6  # without voice end a stretch of sound; a shorter pause is sent with it
_SURE_FRAMES = 3  # with the caller's floor in a row clear what is not played; a cough is shorter

_Name = Annotated[str, Meta(max_length=256)]
_ParameterText = Annotated[str, Meta(max_length=4096)]


class _Format(msgspec.Struct, rename="camel", frozen=True):
    encoding: _Name = "audio/x-mulaw"
    sample_rate: int = 8000
    channels: int = 1


class _Stream(msgspec.Struct, rename="camel"):
    stream_sid: _Name
    call_sid: _Name = ""
    media_format: _Format = _Format()
    custom_parameters: Annotated[dict[_Name, _ParameterText], Meta(max_length=32)] = {}


class _Media(msgspec.Struct):
    payload: Annotated[bytes, Meta(max_length=64_000)]  # 8 s; JSON has it as base64
    track: _Name = "inbound"


class _Key(msgspec.Struct):
    digit: Annotated[str, Meta(pattern=r"^[0-9A-D*#]\Z")]


class _Mark(msgspec.Struct):
    name: _Name


class StartMessage(msgspec.Struct, tag_field="event", tag="start"):
    """What the stream is: the first message but for `connected`."""

    start: _Stream


class MediaMessage(msgspec.Struct, tag_field="event", tag="media"):
    """Sound of the caller, mostly 20 ms."""

    media: _Media


class KeyMessage(msgspec.Struct, tag_field="event", tag="dtmf"):
    """The caller has pressed a key."""

    dtmf: _Key


class MarkMessage(msgspec.Struct, tag_field="event", tag="mark"):
    """All sound before a mark of ours is played, or was cleared."""

    mark: _Mark


class StopMessage(msgspec.Struct, tag_field="event", tag="stop"):
    """The call is over."""


_Message = StartMessage | MediaMessage | KeyMessage | MarkMessage | StopMessage
_decoder = msgspec.json.Decoder(_Message)


class Twilio:
    """A telephone call. `parameters` are the `<Parameter>`s of the TwiML, and None until Twilio has
    sent them: `token` says who calls, `instructions` and `voice` set the session, and whatever else
    there is the agent is told of. `call_sid` is the call's name at Twilio."""

    opening = Configure(input_format=TELEPHONE, output_format=TELEPHONE)

    def __init__(self) -> None:
        self.parameters: Mapping[str, str] | None = None
        self.call_sid = ""
        self._stream_sid = ""
        self._is_sending = False
        self._is_cleared = False  # the rest of what was cleared is still being said
        self._quiet_frames = 0
        self._users_frames = 0  # with the caller's floor in a row, while there is sound to clear
        self._marks = 0
        self._open_mark = ""  # the last mark that was sent, until it comes back

    def received(self, data: str | bytes) -> Iterator[Command | Send | Disconnect]:
        """See Dialect."""
        message = read(_decoder, data)
        if isinstance(message, Fault):
            if (message.kind, message.param) != ("value", "event"):  # others may come some day
                yield Disconnect(1007, message.message[:120])
            return
        if isinstance(message, StartMessage) != (self.parameters is None):
            yield Disconnect(1002, "`start` comes first and once")
            return
        match message:
            case StartMessage():
                yield from self._start(message.start)
            case MediaMessage(media) if media.track == "inbound":
                yield Say(media.payload)
            case KeyMessage(dtmf):
                yield PressKey(dtmf.digit)
            case MarkMessage(mark) if mark.name == self._open_mark:
                self._open_mark = ""
            case StopMessage():
                yield HangUp()

    def told(self, event: Event) -> Iterator[Send | Disconnect]:
        """See Dialect."""
        match event:
            case Heard():
                yield from self._play(event)
            case Ended():
                yield Disconnect(CLOSE_CODES[event.reason], event.reason)

    def _start(self, stream: _Stream) -> Iterator[Command | Disconnect]:
        if stream.media_format != _Format():
            yield Disconnect(1003, "start.mediaFormat is not audio/x-mulaw, 8000 Hz, 1 channel")
            return
        self._stream_sid, self.call_sid = stream.stream_sid, stream.call_sid
        self.parameters = stream.custom_parameters
        yield Configure(
            instructions=self.parameters.get("instructions"),
            voice=self.parameters.get("voice"),
        )
        known = ("token", "instructions", "voice")
        others = {name: text for name, text in self.parameters.items() if name not in known}
        if others:
            yield Note(f"About this call: {msgspec.json.encode(others).decode()}")

    def _play(self, frame: Heard) -> Iterator[Send]:
        is_users = frame.floor == "user"
        has_sound = self._is_sending or self._open_mark
        self._users_frames = self._users_frames + 1 if is_users and has_sound else 0
        if self._users_frames >= _SURE_FRAMES:
            self._is_cleared = self._is_sending
            self._is_sending = False
            self._open_mark = ""
            yield self._message("clear")
        self._is_cleared = self._is_cleared and is_users and frame.is_voiced
        if frame.is_voiced and not self._is_cleared:
            self._is_sending = True
            self._quiet_frames = 0
        elif self._is_sending:
            self._quiet_frames += 1
        if self._is_sending:
            yield self._message("media", media={"payload": frame.audio})
        if self._is_sending and self._quiet_frames == _QUIET_FRAMES:
            self._is_sending = False
            self._marks += 1
            self._open_mark = str(self._marks)
            yield self._message("mark", mark={"name": self._open_mark})

    def _message(self, event: str, **content: dict[str, Any]) -> Send:
        return sent({"event": event, "streamSid": self._stream_sid, **content})
