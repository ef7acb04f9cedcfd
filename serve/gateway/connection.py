"""A WebSocket that neither outlives its client nor lets him have the server for himself.

uvicorn reads 256 KiB at once, which may be 40,000 messages and keep everybody else waiting for a
second; and it closes a connection once all is sent, which to a client who does not read is never.
"""

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_TURN_BYTES = 4096  # of one client, before others have their turn
_LEAVE_S = 15.0  # for what is still to be sent; uvicorn waits 10 s for a goodbye


class Connection(WebSocketsSansIOProtocol):
    """What uvicorn makes one of for every WebSocket."""

    _unread = b""

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        is_waiting, self._unread = bool(self._unread), self._unread + data
        if not is_waiting:
            self._read()

    def _read(self) -> None:
        """A turn; while there is more, nothing comes from the client."""
        turn, self._unread = self._unread[:_TURN_BYTES], self._unread[_TURN_BYTES:]
        super().data_received(turn)
        if self.transport.is_closing():
            self._unread = b""
        elif self._unread:
            self.transport.pause_reading()
            self.loop.call_soon(self._read)
        elif not self.read_paused:
            self.transport.resume_reading()

    async def receive(self) -> ASGIReceiveEvent:
        """See ASGI."""
        message = await super().receive()
        if self._unread:
            self.transport.pause_reading()
        return message

    def keepalive_timeout(self) -> None:
        """The client does not answer pings: it is gone, or does not read."""
        super().keepalive_timeout()
        self.transport.abort()

    async def run_asgi(self) -> None:
        """Until nobody here wants anything of the client any more."""
        await super().run_asgi()
        self.loop.call_later(_LEAVE_S, self.transport.abort)
