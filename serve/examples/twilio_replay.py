"""A telephone call as Twilio's Media Streams bring it. Pipecat's serializer, written by others for
the other side of the same wire, makes and reads the frames. Twilio runs no tools."""

import asyncio
import json

from caller import API_KEY, Caller, arguments, websocket_url
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.serializers.twilio import TwilioFrameSerializer
from websockets.asyncio.client import ClientConnection, connect

STREAM = "MZ0001"
START = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": STREAM,
    "start": {
        "accountSid": "AC0001",
        "streamSid": STREAM,
        "callSid": "CA0001",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": API_KEY},
    },
}


async def speak(
    socket: ClientConnection, serializer: TwilioFrameSerializer, caller: Caller
) -> None:
    """Says all of the recording, then hangs up."""
    async for audio in caller.says():
        message = await serializer.serialize(OutputAudioRawFrame(audio, 8000, 1))
        if message:
            await socket.send(message)
    await socket.send(json.dumps({"event": "stop", "streamSid": STREAM, "stop": {}}))
    await socket.close()


async def main() -> None:
    """Connects, talks, listens."""
    url, recording, heard = arguments()
    caller = Caller(recording, heard, says_hz=8000, hears_hz=8000)
    parameters = TwilioFrameSerializer.InputParams(auto_hang_up=False)
    serializer = TwilioFrameSerializer(STREAM, params=parameters)
    await serializer.setup(FrameProcessorSetup(None, None, None, audio_in_sample_rate=8000))
    async with connect(f"{websocket_url(url)}/twilio") as socket, asyncio.TaskGroup() as group:
        await socket.send(
            json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        )
        await socket.send(json.dumps(START))
        caller.tell("connected")
        group.create_task(speak(socket, serializer, caller))
        async for message in socket:
            match json.loads(message)["event"]:
                case "clear":
                    caller.tell("interrupted")
                case "mark":  # all before it is played, as the server sends no faster than speech
                    caller.tell("mark")
                    await socket.send(message)
            frame = await serializer.deserialize(message)
            if isinstance(frame, InputAudioRawFrame):
                caller.hears(frame.audio)
    caller.hangs_up()


asyncio.run(main())
