"""A call with OpenAI's Python SDK over the Live API: sound both ways all the time, no turns."""

import asyncio
import base64
import json

from caller import API_KEY, INSTRUCTIONS, ORDER_STATUS, Caller, arguments
from openai import AsyncOpenAI
from openai.resources.live.live import AsyncLiveConnection


async def speak(connection: AsyncLiveConnection, caller: Caller) -> None:
    """Says all of the recording, then asks for the session's end."""
    async for audio in caller.says():
        await connection.session.input_audio.append(audio=base64.b64encode(audio).decode())
    await connection.session.close()


async def answer(connection: AsyncLiveConnection, caller: Caller, call: dict) -> None:
    """Runs a call and gives its result."""
    output = caller.order_status(**json.loads(call["arguments"]))
    item = {"type": "function_call_output", "call_id": call["call_id"], "output": output}
    await connection.response.item.create(item=item)
    await connection.response.create()


async def main() -> None:
    """Connects, talks, listens."""
    url, recording, heard = arguments()
    caller = Caller(recording, heard)
    client = AsyncOpenAI(api_key=API_KEY, base_url=f"{url}/v1")
    session = {
        "model": "nano",
        "instructions": INSTRUCTIONS,
        "audio": {"format": {"type": "audio/pcm", "rate": 24_000}},
        "delegation": {
            "type": "responses",
            "responses": {"model": "nano", "tools": [ORDER_STATUS]},
        },
    }
    async with client.live.connect() as connection, asyncio.TaskGroup() as group:
        await connection.session.start(session=session)
        async for event in connection:
            match event.type:
                case "session.started":
                    caller.tell("connected")
                    group.create_task(speak(connection, caller))
                case "session.output_audio.delta":
                    caller.hears(base64.b64decode(event.delta))
                case "session.output_transcript.delta":
                    caller.tell("agent_text", text=event.delta)
                case "session.input_transcript.delta":
                    caller.tell("user_text", text=event.delta)
                case "response.event" if event.event["type"] == "response.output_item.done":
                    if event.event["item"]["type"] == "function_call":
                        await answer(connection, caller, event.event["item"])
                case "session.closed":
                    break
                case "error":
                    caller.tell("error", message=event.error.message)
    caller.hangs_up()


asyncio.run(main())
