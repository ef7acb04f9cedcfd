"""A WebSocket that neither outlives its client nor lets him have the server for himself.

uvicorn reads 256 KiB at once, which may be 40,000 messages and keep everybody else waiting for a
second; and it closes a connection once all is sent, which to a client who does not read is never.
"""

import asyncio

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_TURN_BYTES = 4096  # of one client, before others have their turn
_LEAVE_S = 15.0  # for what is still to be sent; uvicorn waits 10 s for a goodbye


class Connection(WebSocketsSansIOProtocol):
    """What uvicorn makes one of for every WebSocket."""

    _unread = b""
    _is_due = False  # whether the next turn is
    _leaving: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._unread += data
        if not (self._is_due or self.read_paused):
            self._read()

    def _read(self) -> None:
        """A turn; while there is more, nothing comes from the client."""
        self._is_due = False
        turn, self._unread = self._unread[:_TURN_BYTES], self._unread[_TURN_BYTES:]
        super().data_received(turn)
        if self.transport.is_closing():
            self._unread = b""
        elif self._unread:
            self.transport.pause_reading()
            self._go_on()
        elif not self.read_paused:
            self.transport.resume_reading()

    def _go_on(self) -> None:
        """Another turn, once all messages of the last one have been taken."""
        if self._unread and not (self._is_due or self.read_paused):
            self._is_due = True
            self.loop.call_soon(self._read)

    async def receive(self) -> ASGIReceiveEvent:
        """See ASGI."""
        message = await super().receive()
        if self._unread:
            self.transport.pause_reading()
            self._go_on()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI. What comes after a goodbye is read, for the client's own."""
        await super().send(message)
        self.handshake_complete |= self.close_sent  # else who is refused is logged as a fault
        self._go_on()

    def keepalive_timeout(self) -> None:
        """The client does not answer pings: it is gone, or does not read."""
        super().keepalive_timeout()
        self.transport.abort()

    async def run_asgi(self) -> None:
        """Until nobody here wants anything of the client any more."""
        await super().run_asgi()
        if not self.disconnected:
            self._leaving = self.loop.call_later(_LEAVE_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        if self._leaving:
            self._leaving.cancel()
