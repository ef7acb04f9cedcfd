"""A call of a Pipecat bot, over the Realtime or the Live API."""

import asyncio
import json

from caller import API_KEY, INSTRUCTIONS, Caller, arguments, websocket_url
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMRunFrame,
    OutputAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.live.llm import OpenAILiveLLMService
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.services.openai.responses.llm import OpenAIResponsesLLMService
from pipecat.workers.runner import WorkerRunner


class Ears(FrameProcessor):
    """Where a bot's transport would be: hears what the model says."""

    def __init__(self, caller: Caller):
        super().__init__()
        self._caller = caller

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Takes what is for the caller; passes all on."""
        await super().process_frame(frame, direction)
        match frame:
            case OutputAudioRawFrame():
                self._caller.hears(frame.audio)
            case TTSTextFrame():
                self._caller.tell("agent_text", text=frame.text)
            case InterruptionFrame():
                self._caller.tell("interrupted")
        await self.push_frame(frame, direction)


def service(dialect: str, url: str) -> OpenAIRealtimeLLMService | OpenAILiveLLMService:
    """Pipecat's own service for OpenAI, at our server."""
    if dialect == "realtime":
        return OpenAIRealtimeLLMService(
            api_key=API_KEY,
            base_url=f"{websocket_url(url)}/v1/realtime",
            settings=OpenAIRealtimeLLMService.Settings(
                model="nano", system_instruction=INSTRUCTIONS
            ),
        )
    return OpenAILiveLLMService(
        api_key=API_KEY,
        base_url=f"{websocket_url(url)}/v1/live/sessions",
        settings=OpenAILiveLLMService.Settings(model="nano", system_instruction=INSTRUCTIONS),
        delegation=OpenAILiveLLMService.ResponsesDelegation(
            settings=OpenAIResponsesLLMService.Settings(model="nano")
        ),
    )


async def main() -> None:
    """Builds the pipeline, talks, listens."""
    dialect, url, recording, heard = arguments("realtime|live")
    caller = Caller(recording, heard)

    async def order_status(params: FunctionCallParams, order_id: str) -> None:
        """Looks up where an order is."""
        await params.result_callback(json.loads(caller.order_status(order_id)))

    model = service(dialect, url)
    memory = LLMContextAggregatorPair(LLMContext([], tools=ToolsSchema([order_status])))
    worker = PipelineWorker(
        Pipeline([memory.user(), model, Ears(caller), memory.assistant()]),
        params=PipelineParams(audio_in_sample_rate=24_000, audio_out_sample_rate=24_000),
    )

    async def speak() -> None:
        caller.tell("connected")
        await worker.queue_frame(LLMRunFrame())
        async for audio in caller.says():
            await worker.queue_frame(InputAudioRawFrame(audio, 24_000, 1))
        await worker.queue_frame(EndFrame())

    @worker.event_handler("on_pipeline_started")
    async def started(worker: PipelineWorker, frame: Frame) -> None:
        speaking.append(asyncio.create_task(speak()))

    @worker.event_handler("on_pipeline_error")
    async def failed(worker: PipelineWorker, frame: ErrorFrame) -> None:
        caller.tell("error", message=frame.error)

    speaking: list[asyncio.Task] = []
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await runner.run()
    caller.hangs_up()


asyncio.run(main())
