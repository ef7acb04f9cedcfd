"""A call of an agent of OpenAI's Agents SDK over the Realtime API."""

import asyncio

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from caller import API_KEY, INSTRUCTIONS, Caller, arguments, websocket_url


async def speak(session: RealtimeSession, caller: Caller) -> None:
    """Says all of the recording, then hangs up."""
    async for audio in caller.says():
        await session.send_audio(audio)
    await session.close()


async def main() -> None:
    """Connects, talks, listens."""
    url, recording, heard = arguments()
    caller = Caller(recording, heard)
    agent = RealtimeAgent(
        name="shop", instructions=INSTRUCTIONS, tools=[function_tool(caller.order_status)]
    )
    config = {"url": f"{websocket_url(url)}/v1/realtime?model=nano", "api_key": API_KEY}
    session = await RealtimeRunner(agent).run(model_config=config)
    async with session, asyncio.TaskGroup() as group:
        caller.tell("connected")
        group.create_task(speak(session, caller))
        async for event in session:
            match event.type:
                case "audio":
                    caller.hears(event.audio.data)
                case "audio_interrupted":
                    caller.tell("interrupted")
                case "raw_model_event" if event.data.type == "transcript_delta":
                    caller.tell("agent_text", text=event.data.delta)
                case "error":
                    caller.tell("error", message=str(event.error))
    caller.hangs_up()


asyncio.run(main())
