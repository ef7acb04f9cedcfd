"""A call of a LiveKit agent, over the Realtime or the Live API, without a room: the recording is
its audio input, and what it says goes to a file."""

import asyncio
import time
from collections.abc import AsyncIterator

from caller import API_KEY, INSTRUCTIONS, Caller, arguments, websocket_url
from livekit import rtc
from livekit.agents import (
    Agent,
    AgentSession,
    ChatMessage,
    CloseEvent,
    ConversationItemAddedEvent,
    ErrorEvent,
    UserInputTranscribedEvent,
    function_tool,
    io,
)
from livekit.plugins.openai.realtime import GPTLiveModel, RealtimeModel


class Microphone(io.AudioInput):
    """Says the recording; `is_over` once all of it is said."""

    def __init__(self, audio: AsyncIterator[bytes]):
        super().__init__(label="recording")
        self._audio = audio
        self.is_over = asyncio.Event()

    async def __anext__(self) -> rtc.AudioFrame:
        try:
            audio = await anext(self._audio)
        except StopAsyncIteration:
            self.is_over.set()
            raise
        return rtc.AudioFrame(audio, 24_000, 1, len(audio) // 2)


class Speaker(io.AudioOutput):
    """Hands what the agent says to the caller. The server speaks at the pace of speech, so all
    that has come has been heard."""

    def __init__(self, caller: Caller):
        super().__init__(
            label="file",
            capabilities=io.AudioOutputCapabilities(pause=False),
            sample_rate=24_000,
        )
        self._caller, self._played_s = caller, 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Takes sound as it comes."""
        await super().capture_frame(frame)
        if not self._played_s:
            self.on_playback_started(created_at=time.time())
        self._played_s += frame.duration
        self._caller.hears(bytes(frame.data))

    def flush(self) -> None:
        """The agent has said what it had to say."""
        super().flush()
        self._end(interrupted=False)

    def clear_buffer(self) -> None:
        """The caller has spoken over the agent."""
        self._caller.tell("interrupted")
        self._end(interrupted=True)

    def _end(self, interrupted: bool) -> None:
        if self._played_s:
            self.on_playback_finished(playback_position=self._played_s, interrupted=interrupted)
        self._played_s = 0.0


async def main() -> None:
    """Starts the agent, talks, listens."""
    dialect, url, recording, heard = arguments("realtime|live")
    caller = Caller(recording, heard)

    @function_tool
    async def order_status(order_id: str) -> str:
        """Looks up where an order is."""
        return caller.order_status(order_id)

    make = RealtimeModel if dialect == "realtime" else GPTLiveModel
    model = make(api_key=API_KEY, base_url=f"{websocket_url(url)}/v1", model="nano")
    # Or the agent would hear nothing of the caller during its own first three seconds.
    session = AgentSession(llm=model, aec_warmup_duration=None)

    @session.on("user_input_transcribed")
    def transcribed(event: UserInputTranscribedEvent) -> None:
        caller.tell("user_text", text=event.transcript)

    @session.on("conversation_item_added")
    def added(event: ConversationItemAddedEvent) -> None:
        if isinstance(event.item, ChatMessage) and event.item.role == "assistant":
            caller.tell("agent_text", text=event.item.text_content)

    @session.on("error")
    def failed(event: ErrorEvent) -> None:
        caller.tell("error", message=str(event.error))

    @session.on("close")
    def closed(event: CloseEvent) -> None:
        microphone.is_over.set()

    microphone = Microphone(caller.says())
    session.input.audio, session.output.audio = microphone, Speaker(caller)
    await session.start(Agent(instructions=INSTRUCTIONS, tools=[order_status]), record=False)
    caller.tell("connected")
    await microphone.is_over.wait()
    await session.aclose()
    await model.aclose()
    caller.hangs_up()


asyncio.run(main())
