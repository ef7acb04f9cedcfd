"""Clients of a gateway's, who speak one of its protocols at the pace of speech."""

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from websockets.asyncio.client import ClientConnection, connect

from model.frame import FRAME_S
from serve.gateway.audio import AudioFormat

Protocol = Literal["realtime", "live", "hydra", "twilio"]
PATHS: dict[Protocol, str] = {
    "realtime": "/v1/realtime",
    "live": "/v1/live/sessions",
    "hydra": "/waves/v1/s2s",
    "twilio": "/twilio",
}
TOOL = {"type": "function", "name": "order_status", "description": "Where an order is."}
TOOL |= {"parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}}}
_TYPES = {"pcm16": "audio/pcm", "mulaw": "audio/pcmu", "alaw": "audio/pcma"}
_READY = {"realtime": "session.updated", "live": "session.started", "hydra": "session.configured"}
_WAIT_S = 10.0


def opening(protocol: Protocol, heard: AudioFormat, said: AudioFormat, key: str) -> list[Any]:
    """What a client says first, to say things in one format and hear them in another."""

    def described(sound: AudioFormat) -> dict[str, Any]:
        return {"type": _TYPES[sound.encoding], "rate": sound.rate_hz}

    match protocol:
        case "realtime":
            audio = {"input": {"format": described(said)}, "output": {"format": described(heard)}}
            session = {"type": "realtime", "audio": audio, "tools": [TOOL]}
            return [{"type": "session.update", "session": session}]
        case "live":
            delegation = {"type": "responses", "responses": {"tools": [TOOL]}}
            session = {"model": "gpt-live", "audio": {"format": described(said)}}
            session["delegation"] = delegation
            return [{"type": "session.start", "session": session}]
        case "hydra":
            session = {"input_audio_sample_rate": said.rate_hz, "tools": [TOOL]}
            session["output_audio_sample_rate"] = heard.rate_hz
            return [{"type": "session.configure", "session": session}]
        case "twilio":
            about = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
            start = {"streamSid": "MZ1", "mediaFormat": about, "customParameters": {"token": key}}
            return [{"event": "connected"}, {"event": "start", "start": start}]


def saying(protocol: Protocol, audio: bytes) -> str:
    """A message with sound."""
    encoded = base64.b64encode(audio).decode()
    if protocol == "twilio":
        return json.dumps({"event": "media", "media": {"payload": encoded}})
    kind = "session.input_audio.append" if protocol == "live" else "input_audio_buffer.append"
    return json.dumps({"type": kind, "audio": encoded})


def sound_of(message: str | bytes) -> bytes | None:
    """The sound in a message of the server's, if there is any."""
    event = json.loads(message)
    if event.get("event") == "media":
        return base64.b64decode(event["media"]["payload"])
    is_sound = str(event.get("type")).endswith("output_audio.delta")
    return base64.b64decode(event["delta"]) if is_sound else None


@dataclass
class WebCaller:
    """In while it is entered. What he `said` at (`time.monotonic`) is by frame, as soon as it is
    whole; `had` is the sound of every message that came, and when. Errors and calls of tools are
    passed over."""

    port: int
    protocol: Protocol
    heard: AudioFormat = field(default_factory=AudioFormat)
    spoken: AudioFormat = field(default_factory=AudioFormat)
    key: str = ""
    said: list[float] = field(default_factory=list)
    had: list[tuple[bytes, float]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        url = f"ws://127.0.0.1:{self.port}{PATHS[self.protocol]}"
        headers = {"Authorization": f"Bearer {self.key}"}
        options: dict[str, Any] = {"compression": None, "ping_interval": None}
        self._socket: ClientConnection = await connect(url, additional_headers=headers, **options)
        for message in opening(self.protocol, self.heard, self.spoken, self.key):
            await self._socket.send(json.dumps(message))
        if ready := _READY.get(self.protocol):
            async with asyncio.timeout(_WAIT_S):
                while json.loads(await self._socket.recv())["type"] != ready:
                    pass
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.cancel()
        await self._socket.close()

    async def say(self, sound: bytes, piece_s: float) -> None:
        """All of it, in pieces of so long, each when it has been spoken; and waits for what was
        answered to its last frame."""
        size = round(piece_s * self.spoken.rate_hz) * self.spoken.sample_bytes
        begun_s = time.monotonic()
        for number, at in enumerate(range(0, len(sound), size)):
            piece = saying(self.protocol, sound[at : at + size])
            await asyncio.sleep(max(0.0, begun_s + piece_s * number - time.monotonic()))
            whole = min(at + size, len(sound)) // self.spoken.frame_bytes
            self.said += [time.monotonic()] * (whole - len(self.said))
            await self._socket.send(piece)
        await asyncio.sleep(5 * FRAME_S)

    async def _listen(self) -> None:
        async for message in self._socket:
            had_s = time.monotonic()
            if sound := sound_of(message):
                self.had.append((sound, had_s))
