"""A call with OpenAI's Python SDK over the Realtime API."""

import asyncio
import base64
import json

from caller import API_KEY, INSTRUCTIONS, ORDER_STATUS, Caller, arguments
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection


async def speak(connection: AsyncRealtimeConnection, caller: Caller) -> None:
    """Says all of the recording, then hangs up."""
    async for audio in caller.says():
        await connection.input_audio_buffer.append(audio=base64.b64encode(audio).decode())
    await connection.close()


async def answer(connection: AsyncRealtimeConnection, caller: Caller, call) -> None:
    """Runs a call and gives its result."""
    output = caller.order_status(**json.loads(call.arguments))
    item = {"type": "function_call_output", "call_id": call.call_id, "output": output}
    await connection.conversation.item.create(item=item)
    await connection.response.create()


async def main() -> None:
    """Connects, talks, listens."""
    url, recording, heard = arguments()
    caller = Caller(recording, heard)
    client = AsyncOpenAI(api_key=API_KEY, base_url=f"{url}/v1")
    session = {"type": "realtime", "instructions": INSTRUCTIONS, "tools": [ORDER_STATUS]}
    async with client.realtime.connect(model="nano") as connection, asyncio.TaskGroup() as group:
        await connection.session.update(session=session)
        async for event in connection:
            match event.type:
                case "session.updated":
                    caller.tell("connected")
                    group.create_task(speak(connection, caller))
                case "response.output_audio.delta":
                    caller.hears(base64.b64decode(event.delta))
                case "response.output_audio_transcript.delta":
                    caller.tell("agent_text", text=event.delta)
                case "conversation.item.input_audio_transcription.delta":
                    caller.tell("user_text", text=event.delta)
                case "response.function_call_arguments.done":
                    await answer(connection, caller, event)
                case "response.done" if event.response.status == "cancelled":
                    caller.tell("interrupted")
                case "error":
                    caller.tell("error", message=event.error.message)
    caller.hangs_up()


asyncio.run(main())
