"""A session as Hydra's clients are told of it: the caller's turns, responses and their items.

A response is one stretch of the agent's speech, made by `Islands`, with the calls that the agent
makes meanwhile; a call while it is silent is a response of its own.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from serve.dialects.dialect import Send
from serve.dialects.islands import (
    Happening,
    IslandAudio,
    IslandClosed,
    IslandOpened,
    Islands,
    IslandText,
    TurnClosed,
    TurnOpened,
)
from serve.dialects.writing import Writer
from serve.gateway.events import CallMade, Heard

_PATIENCE_FRAMES = 50  # 4 s for the agent to begin the answer that a client asked for


@dataclass
class _Item:
    """One of the conversation's items, as it is sent."""

    fields: dict[str, Any]
    previous_id: str | None


@dataclass
class _Response:
    """The open response. `message` is what the agent says in it, if it says anything."""

    id: str
    opened: int  # the number of the frame
    items: list[_Item] = field(default_factory=list)
    message: _Item | None = None
    text: str = ""

    def part(self, item: _Item) -> dict[str, Any]:
        """Where an item of it stands, as events say it."""
        index = self.items.index(item)
        return {"response_id": self.id, "item_id": item.fields["id"], "output_index": index}


class Conversation:
    """All that is said and called in one session, as events for its client."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._islands = Islands()
        self._response: _Response | None = None
        self._turn: _Item | None = None
        self._last_item_id: str | None = None
        self._number = 0  # of the last frame

    def hear(self, frame: Heard) -> Iterator[Send]:
        """What the client is told of a frame."""
        self._number = frame.number
        for happening in self._islands.heard(frame):
            yield from self._tell(happening)
        response = self._response
        if response is None or response.message:
            return
        if frame.number - response.opened >= _PATIENCE_FRAMES:
            yield from self._close_response("completed")

    def call(self, call: CallMade) -> Iterator[Send]:
        """What the client is told of a call: to run it."""
        was_open = self._response is not None
        response = self._response or (yield from self._open_response())
        arguments = msgspec.json.encode(dict(call.arguments)).decode()
        names = {"call_id": call.call_id, "name": call.tool}
        item = yield from self._add_item(type="function_call", **names, arguments="")
        response.items.append(item)
        where, name = response.part(item) | names, "response.function_call_arguments"
        yield self._writer.event(f"{name}.delta", **where, delta=arguments)
        yield self._writer.event(f"{name}.done", **where, arguments=arguments)
        yield from self._finish_item(item, "completed", arguments=arguments)
        if not was_open:
            yield from self._close_response("completed")

    def created(self, **fields: Any) -> Iterator[Send]:
        """What the client is told of an item of its own."""
        item = yield from self._add_item(**fields)
        yield from self._finish_item(item, "completed")

    def answer(self) -> Iterator[Send]:
        """The client wants a response: where there can be one, the agent's next words are in it."""
        if self._response is None and not self._islands.is_turn_open:
            yield from self._open_response()

    def cancel(self, response_id: str | None) -> Iterator[Send]:
        """The client wants no more of a response, of any that is open if it names none."""
        if self._response and response_id in (None, self._response.id):
            if self._islands.is_island_open:
                self._islands.cancel()
            yield from self._close_response("cancelled", "client_cancelled")

    def _tell(self, happening: Happening) -> Iterator[Send]:
        match happening:
            case IslandOpened():
                response = self._response or (yield from self._open_response())
                role = {"type": "message", "role": "assistant", "content": []}
                response.message = yield from self._add_item(**role)
                response.items.append(response.message)
            case IslandText(text):
                assert self._response
                self._response.text += text
                yield self._say("response.output_audio_transcript.delta", delta=text)
            case IslandAudio(audio):
                yield self._say("response.output_audio.delta", delta=audio)
            case IslandClosed(was_interrupted=False):
                yield from self._close_response("completed")
            case TurnOpened(start_ms):  # behind an island that it interrupts
                yield from self._open_turn(start_ms)
                if self._response:
                    yield from self._close_response("cancelled", "interrupted")
            case TurnClosed(end_ms):
                assert self._turn
                item_id = self._turn.fields["id"]
                name = "input_audio_buffer.speech_stopped"
                yield self._writer.event(name, audio_end_ms=end_ms, item_id=item_id)
                yield from self._finish_item(self._turn, "completed")

    def _open_turn(self, start_ms: int) -> Iterator[Send]:
        item_id = self._writer.new_id("item")
        name = "input_audio_buffer.speech_started"
        yield self._writer.event(name, audio_start_ms=start_ms, item_id=item_id)
        role = {"type": "message", "role": "user", "content": [{"type": "input_audio"}]}
        self._turn = yield from self._add_item(id=item_id, **role)

    def _open_response(self) -> Generator[Send, None, _Response]:
        response = self._response = _Response(self._writer.new_id("resp"), self._number)
        yield self._writer.event(
            "response.created", response={"id": response.id, "status": "in_progress"}
        )
        return response

    def _close_response(self, status: str, reason: str | None = None) -> Iterator[Send]:
        response = self._response
        assert response
        if response.message:
            yield self._say("response.output_audio_transcript.done", transcript=response.text)
            yield self._say("response.output_audio.done")
            content = [{"type": "output_audio", "transcript": response.text}]
            ending = "completed" if status == "completed" else "incomplete"
            yield from self._finish_item(response.message, ending, content=content)
        self._response = None
        details = {"status_details": {"type": status, "reason": reason}} if reason else {}
        output = [item.fields for item in response.items]
        done = {"id": response.id, "status": status, **details, "output": output}
        yield self._writer.event("response.done", response=done)

    def _say(self, name: str, **fields: Any) -> Send:
        """An event of the open response's message."""
        assert self._response
        assert self._response.message
        part = self._response.part(self._response.message)
        return self._writer.event(name, **part, content_index=0, **fields)

    def _add_item(self, **fields: Any) -> Generator[Send, None, _Item]:
        fields = {"id": self._writer.new_id("item"), "status": "in_progress"} | fields
        item = _Item(fields, self._last_item_id)
        self._last_item_id = fields["id"]
        yield self._item_event("added", item)
        return item

    def _finish_item(self, item: _Item, status: str, **fields: Any) -> Iterator[Send]:
        item.fields |= {"status": status, **fields}
        yield self._item_event("done", item)

    def _item_event(self, what: str, item: _Item) -> Send:
        name = f"conversation.item.{what}"
        return self._writer.event(name, previous_item_id=item.previous_id, item=item.fields)
