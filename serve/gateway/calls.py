"""The calls of one session: their ids, whose results are wanted, what became of them."""

from serve.engine.messages import Acted
from serve.gateway.events import (
    CallCancelled,
    CallConfirmed,
    CallMade,
    CallOpened,
    Event,
    HandedOff,
)

_CALLS = ("call", "revise")


class Calls:
    """The engine numbers them; clients know them as `call_SESSION_NUMBER`."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._unanswered: dict[str, int] = {}
        self._standing: set[int] = set()  # neither taken back nor replaced
        self._said: set[tuple[int, str, str, int]] = set()  # what the engine has said of them

    def acted(self, reply: Acted) -> Event | None:
        """What a client is told of it. None where there is nothing to tell: an engine that goes on
        for another one says again what that one had said."""
        key = (reply.number, reply.kind, reply.action, reply.call)
        if key in self._said:
            return None
        self._said.add(key)
        call_id = self._id(reply.call)
        if reply.kind == "opened":
            return CallOpened(call_id, reply.number) if reply.action in _CALLS else None
        if reply.action == "handoff":
            return HandedOff(reply.number, reply.arguments)
        if reply.action == "confirm":
            return CallConfirmed(call_id, reply.number)
        if reply.action == "cancel":
            self._standing.discard(reply.call)
            return CallCancelled(call_id, reply.number)
        self._standing.add(reply.call)
        self._standing.discard(reply.revises)
        self._unanswered[call_id] = reply.call
        replaced = self._id(reply.revises) if reply.revises else ""
        made = (reply.tool, reply.arguments, reply.confidence, replaced)
        return CallMade(call_id, reply.number, *made)

    def answer(self, call_id: str) -> int:
        """A call's number, now that it has its result; 0 where nobody wants that any more. Raises
        KeyError where there is no such call, or it has its result already."""
        number = self._unanswered.pop(call_id)
        return number if number in self._standing else 0

    def _id(self, number: int) -> str:
        return f"call_{self._session}_{number}"
