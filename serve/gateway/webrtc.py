"""A client that calls over WebRTC: sound as RTP both ways, messages on a data channel.

The session has 24 kHz mono both ways, as any other; Opus has 48 kHz, in packets of 20 ms.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import numpy as np
import structlog
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket
from aiortc.utils import uint16_add
from av import AudioFrame, AudioResampler

from model.frame import SAMPLE_RATE_HZ
from serve.dialects.dialect import Disconnect, Send
from serve.dialects.live import Live
from serve.dialects.realtime import Realtime
from serve.gateway.audio import AudioFormat, Outgoing
from serve.gateway.events import Command, Configure, Ended, Event, Heard, Say
from serve.gateway.refusal import Refusal

_log = structlog.get_logger()
_LABEL = "oai-events"  # of the data channel
_OPEN_S = 15.0  # in which it must be open
_MOST_SDP = 2**16
_MOST_UNREAD = 512  # messages of a client's
_MOST_UNSENT = 2**18  # bytes for a client that does not read
_NAP_S = 0.02
_MOST_LATE = 100  # packets; one that is later is the first of a sender that has begun anew
_WIRE = AudioFormat("pcm16", 48_000)
_PACKET_SAMPLES = _WIRE.rate_hz // 50
_PACKET_S = _PACKET_SAMPLES / _WIRE.rate_hz
_MOST_BEHIND_S = 0.1  # a sender that is later than that begins anew
_MOST_HELD = 5 * _WIRE.frame_bytes  # of the agent's sound


class Voice(MediaStreamTrack):
    """What the agent says, at the pace of speech: 48 kHz stereo in packets of 20 ms, silence where
    there is nothing."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._outgoing = Outgoing(_WIRE)
        self._held = bytearray()
        self._samples = 0
        self._due_s: float | None = None

    def play(self, audio: bytes, is_voiced: bool) -> None:
        """80 ms, 24 kHz. While more than a frame waits, silence is left out; of what can't wait the
        oldest is."""
        encoded = self._outgoing.encode(audio)
        if is_voiced or len(self._held) < len(encoded):
            self._held += encoded
        del self._held[: max(0, len(self._held) - _MOST_HELD)]

    def hush(self) -> None:
        """Forgets what waits."""
        self._held.clear()

    async def recv(self) -> AudioFrame:
        """The next packet, when it is due."""
        if self.readyState != "live":
            raise MediaStreamError
        now_s = time.monotonic()
        if self._due_s is None or now_s - self._due_s > _MOST_BEHIND_S:
            self._due_s = now_s
        await asyncio.sleep(self._due_s - now_s)
        self._due_s += _PACKET_S
        return self._packet()

    def _packet(self) -> AudioFrame:
        size = _PACKET_SAMPLES * _WIRE.sample_bytes
        pcm = bytes(self._held[:size]).ljust(size, b"\0")
        del self._held[:size]
        # Both channels as loud as the one: libswresample would make them quieter.
        stereo = np.repeat(np.frombuffer(pcm, np.int16), 2)
        frame = AudioFrame.from_ndarray(stereo[None], "s16", "stereo")
        frame.sample_rate, frame.time_base = _WIRE.rate_hz, Fraction(1, _WIRE.rate_hz)
        frame.pts, self._samples = self._samples, self._samples + _PACKET_SAMPLES
        return frame


class SoundApart:
    """A dialect whose client has his sound another way: the agent's goes to `voice`, unless it was
    interrupted. The client's does not come in messages, and formats are none of his business."""

    def __init__(self, dialect: Realtime | Live, voice: Voice) -> None:
        self._dialect, self._voice = dialect, voice

    @property
    def opening(self) -> Configure:
        """See Dialect."""
        return _without_formats(self._dialect.opening)

    def received(self, data: str | bytes) -> Iterator[Command | Send | Disconnect]:
        """See Dialect."""
        for item in self._dialect.received(data):
            if isinstance(item, Configure):
                yield _without_formats(item)
            elif not isinstance(item, Say):
                yield item
        if self._is_hushed:
            self._voice.hush()

    def told(self, event: Event) -> Iterator[Send | Disconnect]:
        """See Dialect."""
        yield from self._dialect.told(event)
        if self._is_hushed:
            self._voice.hush()
        elif isinstance(event, Heard):
            self._voice.play(event.audio, event.is_voiced)

    @property
    def _is_hushed(self) -> bool:
        return isinstance(self._dialect, Realtime) and self._dialect.is_hushed


class Peer:
    """The other end of a call. `answer` it, `listen` to it; its messages are a Channel's, the first
    of which may have come with the offer."""

    def __init__(self, first: str | None = None) -> None:
        self.voice = Voice()
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._channel: RTCDataChannel | None = None
        self._ears: MediaStreamTrack | None = None
        self._is_settled = asyncio.Event()  # open, or lost
        self._unread: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        if first is not None:
            self._unread.put_nowait(first)
        self._connection.on("connectionstatechange", self._changed)
        self._connection.on("datachannel", self._open)
        self._connection.on("track", self._hear)

    async def take(self, sdp: str) -> None:
        """Its offer. Raises Refusal."""
        kinds = sorted(line[2:].split(" ")[0] for line in sdp.splitlines() if line[:2] == "m=")
        if len(sdp) > _MOST_SDP or kinds != ["application", "audio"]:
            raise _refusal(f"must have one audio, one data channel, at most {_MOST_SDP} letters")
        transceiver = self._connection.addTransceiver(self.voice)
        codecs = RTCRtpSender.getCapabilities("audio").codecs
        transceiver.setCodecPreferences([one for one in codecs if one.mimeType == "audio/opus"])
        # aiortc's own waits for four packets, and after a loss for sixteen, for ever.
        transceiver.receiver._RTCRtpReceiver__jitter_buffer = _InOrder()  # pyright: ignore
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except Exception as error:  # its parser raises whatever there is
            raise _refusal("is no SDP offer of audio as Opus and a data channel") from error

    async def answer(self) -> str:
        """The answer's SDP. From now on it may connect."""
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        return self._connection.localDescription.sdp

    async def listen(self, say: Callable[[bytes], object]) -> None:
        """Its sound, 24 kHz mono, from the time on when it is open."""
        resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        with suppress(MediaStreamError):
            while self._ears:
                heard = await self._ears.recv()
                assert isinstance(heard, AudioFrame)
                if self._channel:
                    for frame in resampler.resample(heard):
                        say(frame.to_ndarray().tobytes())

    async def open(self) -> bool:
        """Waits until it is; False: it never will be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_OPEN_S):
                await self._is_settled.wait()
        return self._channel is not None

    def told(self, event: Event) -> None:
        """What happens in its session: nobody waits for it where that has ended."""
        if isinstance(event, Ended):
            self._is_settled.set()

    # A channel.

    async def receive(self) -> str | bytes | None:
        """See Channel."""
        return await self._unread.get()

    async def send(self, data: str | bytes) -> bool:
        """See Channel. A message that is larger than the client takes is left out."""
        assert self._channel
        while self._channel.readyState == "open" and self._channel.bufferedAmount > _MOST_UNSENT:
            await asyncio.sleep(_NAP_S)
        if self._channel.readyState != "open":
            return False
        try:
            self._channel.send(data)
        except ValueError:
            _log.warning("unsendable", size=len(data))
        return True

    async def close(self, code: int, reason: str) -> None:
        """See Channel. There is no code for data channels: the last event has to say why."""
        assert self._channel
        self._channel.close()
        while self._channel.readyState != "closed":
            await asyncio.sleep(_NAP_S)

    async def end(self) -> None:
        """Lets go of everything."""
        await self._connection.close()

    # What happens there.

    def _lose(self) -> None:
        self._is_settled.set()
        self._unread.put_nowait(None)

    def _changed(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._lose()

    def _hear(self, track: MediaStreamTrack) -> None:
        self._ears = track

    def _open(self, channel: RTCDataChannel) -> None:
        if channel.label != _LABEL or self._channel:
            return
        self._channel = channel
        channel.on("message", self._read)
        channel.on("close", self._lose)
        self._is_settled.set()

    def _read(self, data: str | bytes) -> None:
        if self._unread.qsize() < _MOST_UNREAD:
            self._unread.put_nowait(data)
        else:
            self._lose()


def _without_formats(command: Configure) -> Configure:
    return replace(command, input_format=None, output_format=None)


def _refusal(why: str) -> Refusal:
    return Refusal(400, "invalid_offer", f"the offer {why}", "sdp")


class _InOrder:
    """Gives every packet on as it comes, but for one that a later one has overtaken. That sound
    comes when it should is what serve/gateway/pace.py is for."""

    def __init__(self) -> None:
        self._newest: int | None = None

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Whether to ask for a new picture: never. What is to be decoded now."""
        number = packet.sequence_number
        if self._newest is not None and uint16_add(self._newest, -number) < _MOST_LATE:
            return False, None
        self._newest = number
        return False, JitterFrame(packet._data, packet.timestamp)  # pyright: ignore
