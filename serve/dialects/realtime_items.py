"""The conversation as Realtime's clients know it: items in order, the last ones only."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serve.dialects.dialect import Send
from serve.dialects.realtime_events import ClientError
from serve.dialects.writing import Writer

_MAX_ITEMS = 512


@dataclass
class Item:
    """An item: `fields` are what it has beside its id. Of the agent's speech, `audio_ms` were sent,
    and the caller heard `heard_ms` of them (None: all)."""

    id: str
    fields: dict[str, Any]
    previous_id: str | None = None
    audio_ms: int = 0
    heard_ms: int | None = None

    def described(self) -> dict[str, Any]:
        """The item as clients read it. What wasn't heard of a transcript is cut off, by the share
        of the sound."""
        item = {"id": self.id, "object": "realtime.item", **self.fields}
        if self.heard_ms is not None:
            words = self.transcript.split(" ")
            heard = " ".join(words[: len(words) * self.heard_ms // max(self.audio_ms, 1)])
            item["content"] = [{"type": "output_audio", "transcript": heard}]
        return item

    @property
    def is_speech(self) -> bool:
        """Whether the agent says it, in this session."""
        content = self.fields.get("content")
        return bool(content) and content[0]["type"] == "output_audio"

    @property
    def transcript(self) -> str:
        return self.fields["content"][0]["transcript"]

    @transcript.setter
    def transcript(self, transcript: str) -> None:
        self.fields["content"][0]["transcript"] = transcript


class Items:
    """All items that are still known. Clients are told of them by the events that these methods
    make; ClientError if an item is not there."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._items: dict[str, Item] = {}
        self._order: list[str] = []
        self._deleted: deque[str] = deque(maxlen=_MAX_ITEMS)

    @property
    def last_id(self) -> str | None:
        return self._order[-1] if self._order else None

    def new_id(self) -> str:
        """An id that no item has: clients give ids too."""
        item_id = self._writer.new_id("item")
        while item_id in self._items:
            item_id = self._writer.new_id("item")
        return item_id

    def was_deleted(self, item_id: str) -> bool:
        """Whether there was such an item, which a client may put there again in other words."""
        return item_id in self._deleted

    def add(self, item: Item, after: str | None = None) -> Iterator[Send]:
        """Puts it behind the item `after` ("root": before all others; None: behind them)."""
        if item.id in self._items:
            code = "item_create_duplicate_item_id"
            raise ClientError(code, f"There is an item {item.id!r} already.", "item.id")
        place = self._place(after)
        item.previous_id = self._order[place - 1] if place else None
        self._order.insert(place, item.id)
        self._items[item.id] = item
        if len(self._order) > _MAX_ITEMS:
            del self._items[self._order.pop(0)]
        yield self._told("added", item)

    def done(self, item: Item) -> Iterator[Send]:
        yield self._told("done", item)

    def retrieve(self, item_id: str) -> Iterator[Send]:
        item = self._find(item_id, "retrieve")
        yield self._writer.event("conversation.item.retrieved", item=item.described())

    def truncate(self, item_id: str, content_index: int, end_ms: int) -> Iterator[Send]:
        """The caller has heard no more than this of what the agent said."""
        item = self._find(item_id, "truncate")
        if not item.is_speech or content_index != 0:
            code = "item_truncate_invalid_content"
            raise ClientError(code, "Only the agent's speech can be truncated.", "content_index")
        item.heard_ms = min(end_ms, item.audio_ms)
        yield self._writer.event(
            "conversation.item.truncated",
            item_id=item_id,
            content_index=content_index,
            audio_end_ms=item.heard_ms,
        )

    def delete(self, item_id: str) -> Iterator[Send]:
        """Clients see it no more; the agent does not forget."""
        del self._items[self._find(item_id, "delete").id]
        self._order.remove(item_id)
        self._deleted.append(item_id)
        yield self._writer.event("conversation.item.deleted", item_id=item_id)

    def _place(self, after: str | None) -> int:
        if after is None:
            return len(self._order)
        if after == "root":
            return 0
        if after not in self._items:
            code = "item_create_invalid_previous_item_id"
            raise ClientError(code, f"There is no item {after!r}.", "previous_item_id")
        return self._order.index(after) + 1

    def _find(self, item_id: str, doing: str) -> Item:
        if item_id not in self._items:
            code = f"item_{doing}_invalid_item_id"
            raise ClientError(code, f"There is no item {item_id!r}.", "item_id")
        return self._items[item_id]

    def _told(self, what: str, item: Item) -> Send:
        return self._writer.event(
            f"conversation.item.{what}",
            previous_item_id=item.previous_id,
            item=item.described(),
        )
