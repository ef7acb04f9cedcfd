"""Where clients wait who have connected and ask for a session, before anything is done for them.

A WebSocket's handshake takes a millisecond: of two hundred clients who come at once to a server
for eight, the last would be told after 0.2 s that there is no room, and whoever speaks meanwhile
would not be heard. So a few of them go on and ask the engine; once it has no room, all others are
told so here until somebody leaves, but for one now and then who asks again. Clients of a protocol
that has its own words for it go on even so, a few at a time, and are told behind the handshake.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.gateway.metrics import Metrics
from serve.gateway.refusal import Refusal

PATHS = (b"/v1/realtime", b"/v1/live/sessions", b"/waves/v1/s2s")  # where sessions are asked for
_TOLD_INSIDE = b"/waves/v1/s2s"

_log = structlog.get_logger()
_MOST_ASKING = 8
_MOST_WAITING = 4096
_ASK_EACH_S = 0.5  # an engine that is full: as long as nobody leaves, it may have become faster
_HEAD_S = 10.0  # in which a client says what it wants
_TICKET, _ASKS_AGAIN = "hall_ticket", "hall_asks_again"


class Hall:
    """Of one gateway, on its event loop."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self._asking = 0
        self._waiting: deque[Door] = deque()
        self._refusal: Refusal | None = None  # what the engine has said, as long as it is full
        self._ask_again_s = 0.0

    def doors(self) -> type["Door"]:
        """What uvicorn makes one of for every connection."""
        return type("HallDoor", (Door,), {"hall": self})

    def come(self, door: "Door") -> None:
        """Somebody asks for a session. He goes on, waits or is refused."""
        door.asks_again = self._refusal is not None and self._clock() >= self._ask_again_s
        if door.asks_again:
            self._ask_again_s = self._clock() + _ASK_EACH_S
        if self._refusal and not (door.asks_again or door.is_told_inside):
            self._refuse([door], self._refusal)
        elif len(self._waiting) == _MOST_WAITING:
            self._refuse([door], Refusal(503, "at_capacity", "too many wait", "", 1))
        else:
            door.transport.pause_reading()
            self._waiting.append(door)
            self._go_on()

    def fill(self, refusal: Refusal) -> None:
        """The engine has no room: nobody who waits need ask it."""
        _log.warning("full", waiting=len(self._waiting))
        self._ask_again_s, self._refusal = self._clock() + _ASK_EACH_S, refusal
        waiting, self._waiting = self._waiting, deque()
        self._waiting.extend(door for door in waiting if door.is_told_inside)
        self._refuse([door for door in waiting if not door.is_told_inside], refusal)

    def check(self, scope: Mapping[str, Any]) -> None:
        """Raises Refusal where the engine need not be asked: it is full. `scope` is the ASGI scope
        of who would."""
        if self._refusal and not scope["state"].get(_ASKS_AGAIN):
            raise self._refusal.with_traceback(None)

    def room(self) -> None:
        """Somebody has left, or has been let in: there may be room."""
        self._refusal = None

    @contextlib.contextmanager
    def asking(self, scope: Mapping[str, Any]) -> Iterator[None]:
        """While a client asks the engine who has gone on; others wait for what comes of it. `scope`
        is the ASGI scope of his connection."""
        try:
            yield
        finally:
            if scope["state"].get(_TICKET):
                self._answered()

    def _answered(self) -> None:
        self._asking -= 1
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._asking < _MOST_ASKING:
            door = self._waiting.popleft()
            self._asking += 1
            door.app_state = {**door.app_state, _TICKET: True, _ASKS_AGAIN: door.asks_again}
            door.enter()
            if door.transport.is_closing():  # it was no handshake after all
                self._asking -= 1

    def _refuse(self, doors: list["Door"], refusal: Refusal) -> None:
        response = refusal.response()
        head = [b"HTTP/1.1 503 Service Unavailable", b"connection: close"]
        head += [name + b": " + value for name, value in response.raw_headers]
        answer = b"\r\n".join([*head, b"", bytes(response.body)])
        for door in doors:
            door.transport.write(answer)
            door.transport.close()
        self._metrics.refused.labels(refusal.code).inc(len(doors))


class Door(HttpToolsProtocol):
    """A connection that has not become a WebSocket. Who does not say in time what it wants is put
    out."""

    hall: Hall
    is_told_inside = False  # how it is refused
    asks_again = False  # whether the engine is still full

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._late = self.loop.call_later(_HEAD_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._late.cancel()
        super().connection_lost(exc)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._late.cancel()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """A client wants a WebSocket."""
        path, _, query = self.url.partition(b"?")
        if path in PATHS and b"resume=" not in query:
            self.is_told_inside = path == _TOLD_INSIDE
            self.hall.come(self)
        else:
            super().handle_websocket_upgrade()

    def enter(self) -> None:
        """It becomes one now."""
        super().handle_websocket_upgrade()
        self.transport.resume_reading()
