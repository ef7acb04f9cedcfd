"""A client's messages: what it sends goes to the session, what happens there goes to it.

One task receives, one emits. Both end with the other; whichever way the socket is lost, the state
says so, and nobody writes to it any more.
"""

import asyncio
import enum
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from serve.dialects.dialect import Dialect, Disconnect, Send
from serve.gateway.events import Command, Ended, Event, Problem
from serve.gateway.metrics import Metrics
from serve.gateway.session import Session

_MOST_WAITING = 512  # messages and events for a client who does not read: some 20 s
_CLOSE_S = 2.0  # to say goodbye in
_NONSENSE_S = 0.005  # that a message waits behind one of which nothing came


class State(enum.Enum):
    """Of a socket, from its acceptance on."""

    OPEN = "open"
    CLOSING = "closing"  # what is still to be sent is being sent
    CLOSED = "closed"


class Channel(Protocol):
    """What carries messages to and from a client."""

    async def receive(self) -> str | bytes | None:
        """The next one; None: the client is gone."""
        ...

    async def send(self, data: str | bytes) -> bool:
        """Whether the client is still there."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Once all that was sent has arrived; `code` is a WebSocket's."""
        ...


class WebSocketChannel:
    """An accepted `websocket`."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> str | bytes | None:
        """See Channel."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        data = message.get("text")
        return message["bytes"] if data is None else data

    async def send(self, data: str | bytes) -> bool:
        """See Channel."""
        try:
            if isinstance(data, str):
                await self._websocket.send_text(data)
            else:
                await self._websocket.send_bytes(data)
        except (WebSocketDisconnect, RuntimeError):
            return False
        return True

    async def close(self, code: int, reason: str) -> None:
        """See Channel."""
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(code, reason)


class ClientSocket:
    """A client on a `channel`, which speaks `dialect` for a `session`. `spend` is asked for each of
    its messages, by its size in bytes, and says for how many seconds too much has come.
    `missed` is what the client is sent first, when it knows where it is."""

    def __init__(
        self,
        channel: Channel,
        dialect: Dialect,
        session: Session,
        spend: Callable[[int], float],
        metrics: Metrics,
        missed: Iterable[Send] = (),
    ) -> None:
        self.state = State.OPEN
        self._channel, self._dialect, self._session = channel, dialect, session
        self._spend, self._metrics, self._missed = spend, metrics, missed
        self._waiting: asyncio.Queue[tuple[Event | Send | Disconnect, float]] = asyncio.Queue(
            _MOST_WAITING
        )

    async def run(self) -> None:
        """Until the client is gone or the session has ended. The session may outlive it."""
        for item in (self._session.started, *self._missed):
            self._put(item)
        leave = self._session.subscribe(self._put)
        if self._session.ended:  # before anybody listened
            self._put(self._session.ended)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._receive()), group.create_task(self._emit())]
                for task, other in zip(tasks, reversed(tasks), strict=True):
                    task.add_done_callback(lambda _, other=other: other.cancel())
        finally:
            self.state = State.CLOSED
            leave()

    def _put(self, item: Event | Send | Disconnect) -> None:
        if self.state is not State.OPEN:
            return
        if isinstance(item, Disconnect | Ended):
            self.state = State.CLOSING
        if self._waiting.full():  # too slow: what waits is of no use to anybody any more
            while not self._waiting.empty():
                self._waiting.get_nowait()
            if not isinstance(item, Ended):
                self._session.end("too_slow")
                return
        self._waiting.put_nowait((item, time.monotonic()))

    async def _receive(self) -> None:
        while (data := await self._channel.receive()) is not None:
            is_of_use = self.state is State.OPEN and self._take(data)
            # Others have their turn, and the more of it where somebody talks nonsense.
            await asyncio.sleep(0 if is_of_use else _NONSENSE_S)

    def _take(self, data: str | bytes) -> bool:
        """Whether the session was told something that it has done."""
        if retry_after_s := self._spend(len(data)):
            why = "more messages or bytes than this tenant may send: this one was dropped"
            self._put(Problem("rate_limit_exceeded", why, retry_after_s=retry_after_s))
            return False
        is_of_use = False
        for item in self._dialect.received(data):
            if isinstance(item, Command):
                problem = self._session.take(item)
                is_of_use = is_of_use or not problem
                if problem:
                    self._put(problem)
            else:
                self._put(item)
        return is_of_use

    async def _emit(self) -> None:
        while True:
            item, since_s = await self._waiting.get()
            is_event = not isinstance(item, Send | Disconnect)
            for message in self._messages(item):
                if isinstance(message, Disconnect):
                    await self._close(message)
                    return
                if not await self._channel.send(message.data):
                    return
            if is_event:
                self._metrics.out_s.observe(time.monotonic() - since_s)

    def _messages(self, item: Event | Send | Disconnect) -> list[Send | Disconnect]:
        """All at once: what the client says while they are sent must not find the dialect in the
        middle of an event."""
        return [item] if isinstance(item, Send | Disconnect) else [*self._dialect.told(item)]

    async def _close(self, message: Disconnect) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._channel.close(message.code, message.reason)
