"""The agent's side as Realtime's clients know it: responses, one at a time."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

from serve.dialects.dialect import Send
from serve.dialects.islands import (
    IslandAudio,
    IslandClosed,
    IslandOpened,
    Islands,
    IslandText,
)
from serve.dialects.realtime_events import ClientError
from serve.dialects.realtime_items import Items
from serve.dialects.realtime_response import Response
from serve.dialects.writing import Writer

Part = Callable[[Response], Iterator[Send]]

_NUDGE_FRAMES = 12  # that the agent has to begin an answer to a nudge
_MAX_NUDGES = 8


class AgentTurns:
    """Tells a client of islands and calls as responses. An island is a response; a call is a part
    of the one that is open, else one of its own. A nudge (`response.create`) is answered by the
    next response, or by an empty one if none comes."""

    def __init__(self, writer: Writer, items: Items, islands: Islands, sends_audio: bool) -> None:
        self._writer = writer
        self._items = items
        self._islands = islands
        self._sends_audio = sends_audio
        self._response: Response | None = None
        self._parts: list[Part] = []  # that could not be told yet
        self._nudges: deque[dict[str, str] | None] = deque()  # their metadata
        self._nudged_frames = 0

    def tell(
        self, happening: IslandOpened | IslandText | IslandAudio | IslandClosed
    ) -> Iterator[Send]:
        if isinstance(happening, IslandOpened):
            self._response = self._new_response()
            yield from self._response.open()
            return
        assert self._response
        match happening:
            case IslandText(text):
                yield from self._response.say(text)
            case IslandAudio(audio):
                yield from self._response.play(audio)
            case IslandClosed(was_interrupted):
                yield from self._response.close("turn_detected" if was_interrupted else "")
                self._response = None

    def end_frame(self) -> Iterator[Send]:
        """All that a frame brought has been told: what waited for the time of a response comes."""
        yield from self._tell_parts()
        is_idle = self._response is None and bool(self._nudges)
        self._nudged_frames = self._nudged_frames + 1 if is_idle else 0
        if self._nudged_frames >= _NUDGE_FRAMES and self._islands.may_answer:
            yield from self._answer_nudge("")

    def part(self, part: Part) -> Iterator[Send]:
        """Something that belongs into a response, as soon as there may be one."""
        self._parts.append(part)
        yield from self._tell_parts()

    def nudge(self, metadata: dict[str, str] | None) -> None:
        """The client wants a response, which is to tell back `metadata`. ClientError if too many
        are wanted already."""
        if len(self._nudges) >= _MAX_NUDGES:
            message = "Too many responses were asked for and are not done yet."
            raise ClientError("conversation_already_has_active_response", message)
        self._nudges.append(metadata)

    def cancel(self, response_id: str | None) -> Iterator[Send]:
        """The client wants no more of the open response, or of those it asked for. ClientError if
        there is none."""
        if self._response and response_id in (None, self._response.id):
            self._islands.cancel()
            yield from self._response.close("client_cancelled")
            self._response = None
        elif self._nudges and response_id is None:
            while self._nudges:
                yield from self._answer_nudge("client_cancelled")
        else:
            message = "Cancellation failed: no active response found"
            raise ClientError("response_cancel_not_active", message)

    def clear(self) -> Iterator[Send]:
        """The client wants no more of the sound (WebRTC)."""
        if self._response:
            yield from self.cancel(None)

    def _tell_parts(self) -> Iterator[Send]:
        while self._parts and (self._response or self._islands.may_answer):
            part = self._parts.pop(0)
            if self._response:
                yield from part(self._response)
                continue
            response = self._new_response()
            yield from response.open()
            yield from part(response)
            yield from response.close()

    def _answer_nudge(self, cancelled_by: Literal["client_cancelled", ""]) -> Iterator[Send]:
        response = self._new_response()
        yield from response.open()
        yield from response.close(cancelled_by)
        self._nudged_frames = 0

    def _new_response(self) -> Response:
        metadata = self._nudges.popleft() if self._nudges else None
        return Response(self._writer, self._items, self._sends_audio, metadata)
