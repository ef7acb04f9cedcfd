"""A call over WebRTC with aiortc: sound as Opus, events of the Realtime API on the data channel."""

import asyncio
import fractions
import json
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, AudioResampler
from caller import API_KEY, INSTRUCTIONS, ORDER_STATUS, Caller, arguments

RATE_HZ = 48_000


class Microphone(MediaStreamTrack):
    """Says the recording."""

    kind = "audio"

    def __init__(self, audio: AsyncIterator[bytes]):
        super().__init__()
        self._audio = audio
        self._samples = 0

    async def recv(self) -> AudioFrame:
        """The next 20 ms."""
        audio = await anext(self._audio, None)
        if audio is None:
            self.stop()
            raise MediaStreamError
        both = np.repeat(np.frombuffer(audio, "<i2"), 2)  # aiortc makes mono 3 dB quieter
        frame = AudioFrame(format="s16", layout="stereo", samples=len(audio) // 2)
        frame.planes[0].update(both.tobytes())
        frame.sample_rate, frame.time_base = RATE_HZ, fractions.Fraction(1, RATE_HZ)
        frame.pts = self._samples
        self._samples += frame.samples
        return frame


async def listen(track: MediaStreamTrack, caller: Caller) -> None:
    """Takes the agent's sound: 48 kHz, stereo."""
    mono = AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        for part in mono.resample(frame):
            caller.hears(part.to_ndarray().tobytes())


def take(event: dict, channel: RTCDataChannel, caller: Caller) -> None:
    """Takes an event of the server's; runs calls and gives their results."""
    match event["type"]:
        case "session.created":
            session = {"type": "realtime", "instructions": INSTRUCTIONS, "tools": [ORDER_STATUS]}
            channel.send(json.dumps({"type": "session.update", "session": session}))
        case "session.updated":
            caller.tell("connected")
        case "response.output_audio_transcript.delta":
            caller.tell("agent_text", text=event["delta"])
        case "response.function_call_arguments.done":
            output = caller.order_status(**json.loads(event["arguments"]))
            item = {"type": "function_call_output", "call_id": event["call_id"], "output": output}
            channel.send(json.dumps({"type": "conversation.item.create", "item": item}))
            channel.send(json.dumps({"type": "response.create"}))
        case "response.done" if event["response"]["status"] == "cancelled":
            caller.tell("interrupted")
        case "error":
            caller.tell("error", message=event["error"]["message"])


async def call(connection: RTCPeerConnection, url: str) -> None:
    """Exchanges descriptions with the server, as a browser would."""
    await connection.setLocalDescription(await connection.createOffer())
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/sdp"}
    offer = connection.localDescription.sdp
    async with (
        aiohttp.ClientSession(raise_for_status=True) as client,
        client.post(f"{url}/v1/realtime/calls", data=offer, headers=headers) as response,
    ):
        answer = RTCSessionDescription(await response.text(), "answer")
    await connection.setRemoteDescription(answer)


async def main() -> None:
    """Connects, talks, listens."""
    url, recording, heard = arguments()
    caller = Caller(recording, heard, says_hz=RATE_HZ, hears_hz=RATE_HZ)
    connection = RTCPeerConnection()
    channel = connection.createDataChannel("oai-events")
    channel.on("message", lambda message: take(json.loads(message), channel, caller))
    microphone = Microphone(caller.says())
    connection.addTrack(microphone)
    said = asyncio.Event()
    microphone.on("ended", said.set)
    async with asyncio.TaskGroup() as group:
        connection.on("track", lambda track: group.create_task(listen(track, caller)))
        await call(connection, url)
        await said.wait()
        await connection.close()
    caller.hangs_up()


asyncio.run(main())
