"""The gateway's line to the engines: one that serves, and those that stand by.

ZeroMQ carries the messages of serve/engine/messages.py. Where the engine that serves is gone, the
next one is told what each session remembers (serve/engine/remembered.py), and goes on.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import structlog
import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from serve.engine.messages import VERSION, Close, Command, Hello, Refused, Reply
from serve.gateway.metrics import Metrics

_log = structlog.get_logger()
_WAITING = 4096  # messages each way
_GREETING_S = 2.0  # in which an engine must answer
_REST_S = 0.25  # between two rounds of asking all of them


class Linked(Protocol):
    """A session as the link sees it."""

    name: str

    def replied(self, reply: Reply) -> None:
        """What the engine says of it."""
        ...

    def moved(self) -> None:
        """Another engine serves now, and has to be told everything."""
        ...


class Link:
    """`addresses` of engines of one model, the first of which is asked first."""

    def __init__(
        self,
        addresses: Sequence[str],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sessions: dict[str, Linked] = {}
        self.lost_s: float | None = clock()  # since when no engine has served; None: one does
        self._addresses, self._metrics, self._clock = addresses, metrics, clock
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Reply)
        self._context = zmq.asyncio.Context.instance()
        self._socket: zmq.asyncio.Socket | None = None

    @property
    def is_up(self) -> bool:
        """Whether an engine serves."""
        return self.lost_s is None

    def send(self, *commands: Command) -> None:
        """In this order. While there is no engine they are lost, and the next one is told anew."""
        if self._socket is None:
            return
        for command in commands:
            sending = asyncio.ensure_future(
                self._socket.send(self._encoder.encode(command), zmq.NOBLOCK)
            )
            if sending.done() and sending.exception():
                self._metrics.unsent.inc()

    def join(self, session: Linked) -> None:
        """It hears what the engine says of it from now on."""
        self.sessions[session.name] = session

    def leave(self, session: Linked) -> None:
        """It is over, here and there."""
        if self.sessions.pop(session.name, None):
            self.send(Close(session.name))

    async def run(self) -> None:
        """Until it is cancelled."""
        turn, has_served = 0, False
        while True:
            address = self._addresses[turn % len(self._addresses)]
            turn += 1
            with self._context.socket(zmq.DEALER) as socket:
                socket.set_hwm(_WAITING)
                socket.linger = 0
                lost = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
                socket.connect(address)
                if await self._greeted(socket, address):
                    _log.info("engine", address=address, sessions=len(self.sessions))
                    self._metrics.engines.inc(has_served)
                    has_served = True
                    await self._served(socket, lost)
                    _log.warning("engine_lost", address=address, sessions=len(self.sessions))
                socket.disable_monitor()
            if turn % len(self._addresses) == 0 and not self.is_up:
                await asyncio.sleep(_REST_S)

    async def _greeted(self, socket: zmq.asyncio.Socket, address: str) -> bool:
        await socket.send(self._encoder.encode(Hello(VERSION)))
        if not await socket.poll(int(1000 * _GREETING_S)):
            return False
        reply = self._decoder.decode(await socket.recv())
        if isinstance(reply, Refused):
            _log.error("engine_refused", address=address, why=reply.message)
        return not isinstance(reply, Refused)

    async def _served(self, socket: zmq.asyncio.Socket, lost: zmq.asyncio.Socket) -> None:
        """Until the engine is gone."""
        self._socket, self.lost_s = socket, None
        for session in [*self.sessions.values()]:
            session.moved()
        receiving = asyncio.create_task(self._receive(socket))
        losing = asyncio.ensure_future(recv_monitor_message(lost))
        try:
            await asyncio.wait([receiving, losing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._socket, self.lost_s = None, self._clock()
            for task in (receiving, losing):
                task.cancel()
        if receiving.done() and not receiving.cancelled():
            receiving.result()  # a fault of ours

    async def _receive(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            reply = self._decoder.decode(await socket.recv())
            if isinstance(reply, Hello):
                continue
            if session := self.sessions.get(reply.session):
                session.replied(reply)
