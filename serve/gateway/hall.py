"""Where clients wait who have connected and ask for a session, before anything is done for them.

A WebSocket's handshake takes a millisecond: of two hundred clients who come at once to a server
for eight, the last would be told after 0.2 s that there is no room, and whoever speaks meanwhile
would not be heard. So a few of them go on and ask the engine; once it has no room, all others are
told so here. Clients of a protocol that has its own words for it go on even so, a few at a time,
and are told behind the handshake.
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
_FULL_S = 0.5  # as long as nobody leaves, the engine is taken at its word for so long
_HEAD_S = 10.0  # in which a client says what it wants
_TICKET = "hall_ticket"


class Hall:
    """Of one gateway, on its event loop."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self._asking = 0
        self._waiting: deque[Door] = deque()
        self._full_until_s, self._refusal = 0.0, Refusal(503, "at_capacity", "too many wait", "", 1)

    def doors(self) -> type["Door"]:
        """What uvicorn makes one of for every connection."""
        return type("HallDoor", (Door,), {"hall": self})

    def come(self, door: "Door") -> None:
        """Somebody asks for a session. He goes on, waits or is refused."""
        is_refused = self._is_full and not door.is_told_inside
        if is_refused or len(self._waiting) == _MOST_WAITING:
            self._refuse([door])
        else:
            door.transport.pause_reading()
            self._waiting.append(door)
            self._go_on()

    def fill(self, refusal: Refusal) -> None:
        """The engine has no room: nobody who waits need ask it."""
        _log.warning("full", waiting=len(self._waiting))
        self._full_until_s, self._refusal = self._clock() + _FULL_S, refusal
        waiting, self._waiting = self._waiting, deque()
        self._waiting.extend(door for door in waiting if door.is_told_inside)
        self._refuse([door for door in waiting if not door.is_told_inside])

    def check(self) -> None:
        """Raises Refusal where the engine need not be asked: it has just said that it is full."""
        if self._is_full:
            raise self._refusal.with_traceback(None)

    def room(self) -> None:
        """Somebody has left: there may be room."""
        self._full_until_s = 0.0

    @contextlib.contextmanager
    def asking(self, scope: Mapping[str, Any]) -> Iterator[None]:
        """While a client asks the engine who has gone on; others wait for what comes of it. `scope`
        is the ASGI scope of his connection."""
        try:
            yield
        finally:
            if scope["state"].get(_TICKET):
                self._answered()

    @property
    def _is_full(self) -> bool:
        return self._clock() < self._full_until_s

    def _answered(self) -> None:
        self._asking -= 1
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._asking < _MOST_ASKING:
            door = self._waiting.popleft()
            self._asking += 1
            door.app_state = {**door.app_state, _TICKET: True}
            door.enter()
            if door.transport.is_closing():  # it was no handshake after all
                self._asking -= 1

    def _refuse(self, doors: list["Door"]) -> None:
        response = self._refusal.response()
        head = [b"HTTP/1.1 503 Service Unavailable", b"connection: close"]
        head += [name + b": " + value for name, value in response.raw_headers]
        answer = b"\r\n".join([*head, b"", bytes(response.body)])
        for door in doors:
            door.transport.write(answer)
            door.transport.close()
        self._metrics.refused.labels(self._refusal.code).inc(len(doors))


class Door(HttpToolsProtocol):
    """A connection that has not become a WebSocket. Who does not say in time what it wants is put
    out."""

    hall: Hall
    is_told_inside = False  # how it is refused

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
