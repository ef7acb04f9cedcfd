"""A Realtime response: what the agent says and the calls it makes meanwhile, as one sequence of
events that every client accepts."""

from collections.abc import Generator, Iterator
from typing import Any, Literal

import msgspec

from model.frame import FRAME_MS
from serve.dialects.dialect import Send
from serve.dialects.realtime_items import Item, Items
from serve.dialects.writing import Writer
from serve.gateway.events import CallMade

Status = Literal["in_progress", "completed", "cancelled"]


class Response:
    """The open response. Its message opens with the first word or sound. Without `sends_audio` the
    sound goes another way and only its beginning and end are told."""

    def __init__(
        self, writer: Writer, items: Items, sends_audio: bool, metadata: dict[str, str] | None
    ) -> None:
        self.id = writer.new_id("resp")
        self._writer = writer
        self._items = items
        self._sends_audio = sends_audio
        self._metadata = metadata
        self._output: list[Item] = []
        self._message: Item | None = None
        self._message_index = 0

    def open(self) -> Iterator[Send]:
        yield self._writer.event("response.created", response=self._described("in_progress"))

    def say(self, text: str) -> Iterator[Send]:
        """More of the transcript."""
        yield from self._open_message()
        assert self._message
        self._message.transcript += text
        yield self._part_event("response.output_audio_transcript.delta", delta=text)

    def play(self, audio: bytes) -> Iterator[Send]:
        """A frame of sound."""
        yield from self._open_message()
        assert self._message
        if self._sends_audio:
            yield self._part_event("response.output_audio.delta", delta=audio)
        elif not self._message.audio_ms:
            yield self._writer.event("output_audio_buffer.started", response_id=self.id)
        self._message.audio_ms += FRAME_MS

    def call(self, call: CallMade) -> Iterator[Send]:
        """A whole call. Agents and LiveKit run it at `output_item.done`, Pipecat at
        `arguments.done` if `conversation.item.added` has shown it the call."""
        arguments = msgspec.json.encode(call.arguments).decode()
        fields = {"type": "function_call", "status": "in_progress", "call_id": call.call_id}
        fields |= {"name": call.tool, "arguments": ""}
        item = Item(self._items.new_id(), fields)
        index = yield from self.add(item)
        ids: dict[str, Any] = {"response_id": self.id, "item_id": item.id, "output_index": index}
        ids["call_id"] = call.call_id
        event = "response.function_call_arguments"
        yield self._writer.event(f"{event}.delta", **ids, delta=arguments)
        yield self._writer.event(f"{event}.done", **ids, name=call.tool, arguments=arguments)
        item.fields |= {"status": "completed", "arguments": arguments}
        yield from self.finish(item, index)

    def close(
        self, cancelled_by: Literal["turn_detected", "client_cancelled", ""] = ""
    ) -> Iterator[Send]:
        """It has been said; or not all of it, and why."""
        if self._message:
            yield from self._close_message(self._message, bool(cancelled_by))
        status = "cancelled" if cancelled_by else "completed"
        response = self._described(status)
        if cancelled_by:
            response["status_details"] = {"type": "cancelled", "reason": cancelled_by}
        yield self._writer.event("response.done", response=response)
        if self._message and self._message.audio_ms and not self._sends_audio:
            what = "cleared" if cancelled_by else "stopped"
            yield self._writer.event(f"output_audio_buffer.{what}", response_id=self.id)

    def add(self, item: Item) -> Generator[Send, None, int]:
        """The item's index in the output, behind its events."""
        self._output.append(item)
        index = len(self._output) - 1
        yield self._item_event("added", item, index)
        yield from self._items.add(item)
        return index

    def finish(self, item: Item, index: int) -> Iterator[Send]:
        """An item of it is whole, whether it is open or not."""
        yield self._item_event("done", item, index)
        yield from self._items.done(item)

    def _open_message(self) -> Iterator[Send]:
        if self._message:
            return
        fields = {"type": "message", "status": "in_progress", "role": "assistant", "content": []}
        self._message = Item(self._items.new_id(), fields)
        self._message_index = yield from self.add(self._message)
        fields["content"] = [{"type": "output_audio", "transcript": ""}]
        yield self._part_event(
            "response.content_part.added", part={"type": "audio", "transcript": ""}
        )

    def _close_message(self, message: Item, is_cut: bool) -> Iterator[Send]:
        transcript = message.transcript
        message.fields["status"] = "incomplete" if is_cut else "completed"
        yield self._part_event("response.output_audio.done")
        yield self._part_event("response.output_audio_transcript.done", transcript=transcript)
        part = {"type": "audio", "transcript": transcript}
        yield self._part_event("response.content_part.done", part=part)
        yield from self.finish(message, self._message_index)

    def _item_event(self, what: str, item: Item, index: int) -> Send:
        return self._writer.event(
            f"response.output_item.{what}",
            response_id=self.id,
            output_index=index,
            item=item.described(),
        )

    def _part_event(self, type: str, **fields: Any) -> Send:
        assert self._message
        return self._writer.event(
            type,
            response_id=self.id,
            item_id=self._message.id,
            output_index=self._message_index,
            content_index=0,
            **fields,
        )

    def _described(self, status: Status) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "output": [item.described() for item in self._output],
            "output_modalities": ["audio"],
            "metadata": self._metadata,
            "usage": None,
        }
