"""A call with smallest.ai's Python SDK over its Hydra protocol: 16 kHz in, 48 kHz out."""

import asyncio
import base64
import json

from caller import API_KEY, INSTRUCTIONS, ORDER_STATUS, Caller, arguments, websocket_url
from smallestai import AsyncSmallestAI, SmallestAIEnvironment
from smallestai.waves import (
    ConversationItemCreate,
    InputAudioBufferAppend,
    ResponseCreate,
    SessionConfigure,
)
from smallestai.waves.speech_to_speech.socket_client import AsyncSpeechToSpeechSocketClient


async def speak(socket: AsyncSpeechToSpeechSocketClient, caller: Caller) -> None:
    """Says all of the recording."""
    async for audio in caller.says():
        text = base64.b64encode(audio).decode()
        message = InputAudioBufferAppend(type="input_audio_buffer.append", audio=text)
        await socket.send_input_audio_buffer_append(message)


async def answer(socket: AsyncSpeechToSpeechSocketClient, caller: Caller, call) -> None:
    """Runs a call and gives its result."""
    output = caller.order_status(**json.loads(call.arguments))
    item = {"type": "function_call_output", "call_id": call.call_id, "output": output}
    await socket.send_conversation_item_create(
        ConversationItemCreate(type="conversation.item.create", item=item)
    )
    await socket.send_response_create(ResponseCreate(type="response.create"))


async def listen(socket: AsyncSpeechToSpeechSocketClient, caller: Caller) -> None:
    """Takes what comes. The SDK makes attributes of an event's fields and leaves those inside as
    they came."""
    async for event in socket:
        match event.type:
            case "response.output_audio.delta":
                caller.hears(base64.b64decode(event.delta))
            case "response.function_call_arguments.done":
                await answer(socket, caller, event)
            case "response.done" if event.response["status"] == "cancelled":
                caller.tell("interrupted")
            case "error":
                caller.tell("error", message=event.error["message"])


async def main() -> None:
    """Connects, talks, listens."""
    url, recording, heard = arguments()
    caller = Caller(recording, heard, says_hz=16_000, hears_hz=48_000)
    websocket = websocket_url(url)
    places = SmallestAIEnvironment(atoms=url, waves=url, waves_ws=websocket, payment=url)
    client = AsyncSmallestAI(environment=places, api_key=API_KEY)
    options = {"additional_query_parameters": {"model": "hydra"}}
    session = {"instructions": INSTRUCTIONS, "tools": [ORDER_STATUS]}
    async with client.waves.speech_to_speech.connect(request_options=options) as socket:
        await socket.recv()  # session.created
        configure = SessionConfigure(type="session.configure", session=session)
        await socket.send_session_configure(configure)
        await socket.recv()  # session.configured
        caller.tell("connected")
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(listen(socket, caller))
            await speak(socket, caller)
            listening.cancel()
    caller.hangs_up()


asyncio.run(main())
