"""OpenAI's Live protocol (`/v1/live/sessions`): full duplex, as our agent is.

Every frame's sound is sent, silence too, and what both say as it comes. The first message sets the
session; all else is as for who is attached to it (`serve/dialects/live_sideband.py`).
"""

from collections.abc import Iterator
from dataclasses import replace

from serve.dialects.live_delegation import DELEGATE
from serve.dialects.live_events import ClientMessage, InputAudioAppend, SessionStart
from serve.dialects.live_sideband import LiveSideband, Out
from serve.dialects.writing import Refusal
from serve.gateway.events import Begin, Configure, Event, Heard, Say, Started


class Live(LiveSideband):
    """The client whose session it is. `sends_audio` is whether sound goes both ways in messages;
    over WebRTC it has its own way, and messages come over a data channel that a session may narrow
    (`session.client`). There `session.start` is made of the request that opened the session."""

    def __init__(
        self,
        model: str,
        extensions: bool,
        sends_audio: bool = True,
        started_at_s: int = 0,
        lasts_s: int = 0,
    ):
        super().__init__(model, extensions, started_at_s, lasts_s)
        self._sends_audio = sends_audio
        self._is_asked_for = False  # whether session.start has come
        self._is_started = False
        self._resumption: dict[str, str] = {}

    def _do(self, message: ClientMessage | Refusal) -> Iterator[Out]:
        match message:
            case Refusal():
                yield self._error(message)
            case SessionStart() if not self._is_asked_for:
                self._is_asked_for = True
                yield from self._start(message)
            case _ if not self._is_asked_for:
                reason = "The first message must be session.start."
                yield self._refuse(message, "session_not_started", reason, "type")
            case _ if not self._permissions.may_send(message.type):
                reason = "session.client.data_channel does not allow it."
                yield self._refuse(message, "not_allowed", reason, "type")
            case InputAudioAppend() if self._sends_audio:
                yield Say(message.audio)
            case _:
                yield from super()._do(message)

    def _start(self, message: SessionStart) -> Iterator[Out]:
        session = message.session
        self._pending.append(message.event_id)
        if session.client and not self._sends_audio:
            self._permissions = session.client.data_channel
        sound = session.audio.format if session.audio and self._sends_audio else None
        sound = sound and sound.as_audio_format()
        offered = Configure(tools=(DELEGATE,))
        if session.responses:
            offered = self._offered(session.responses)
        about = {"instructions": session.role, "voice": session.voice}
        yield replace(offered, **about, input_format=sound, output_format=sound)
        yield Begin()

    def _tell(self, event: Event) -> Iterator[Out]:
        yield from super()._tell(event)
        if isinstance(event, Started):
            self._resumption = self._writer.resumption(event)
            if self._is_started:  # the client is back, on another socket
                yield self._tell_start(None)

    def _tell_settings(self, client_event_id: str | None) -> Out:
        if self._is_started:
            return super()._tell_settings(client_event_id)
        self._is_started = True
        return self._tell_start(client_event_id)

    def _tell_start(self, client_event_id: str | None) -> Out:
        session = self._session()
        return self._event("session.started", client_event_id, session=session, **self._resumption)

    def _play(self, frame: Heard) -> Iterator[Out]:
        if self._sends_audio:
            yield {"type": "session.output_audio.delta", "delta": frame.audio}
