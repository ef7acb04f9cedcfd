"""The engine's side of the wire: takes what has come, runs a round, tells what came of it.

ZeroMQ (ROUTER, with one DEALER for each gateway), bounded both ways: a gateway that does not read
loses replies, which is counted, and holds up nobody.
"""

import logging
from collections.abc import Callable

import msgspec
import zmq

from serve.engine.engine import Engine
from serve.engine.messages import (
    VERSION,
    Close,
    Closed,
    Command,
    Hello,
    Open,
    Refused,
    Reply,
    Resume,
)

_log = logging.getLogger(__name__)
_WAITING = 1024  # messages each way, of one gateway
_MOST_BYTES = 2**26  # of one message: a caller's whole state may be
_IDLE_MS = 5
_LINGER_MS = 100  # for what is still to be sent when the engine ends


class Endpoint:
    """A socket at `address` (`ipc://...`, `tcp://127.0.0.1:...`) and the engine behind it.

    Raises zmq.ZMQError where the address cannot be had.
    """

    def __init__(self, engine: Engine, address: str) -> None:
        self.engine = engine
        self._gateways: dict[str, bytes] = {}  # by session
        self._decoder = msgspec.msgpack.Decoder(Command)
        self._encoder = msgspec.msgpack.Encoder()
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # says who cannot be reached
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MOST_BYTES)
        self._socket.set_hwm(_WAITING)
        self._socket.bind(address)

    def run(self, is_over: Callable[[], bool]) -> None:
        """Serves until it is over; whoever is still in is told."""
        is_idle = True
        while not is_over():
            self._receive(_IDLE_MS if is_idle else 0)
            replies = self.engine.step()
            for reply in replies:
                self._tell(reply)
            is_idle = self.engine.is_idle
        for closed in self.engine.end():
            self._tell(closed)
        self._socket.close(_LINGER_MS)

    def _receive(self, wait_ms: int) -> None:
        """Everything that has come, after at most so long."""
        while self._socket.poll(wait_ms):
            gateway, *parts = self._socket.recv_multipart()
            self._take(gateway, b"".join(parts))
            wait_ms = 0

    def _take(self, gateway: bytes, packed: bytes) -> None:
        try:
            command = self._decoder.decode(packed)
        except msgspec.MsgspecError as error:
            self.engine.metrics.bad_messages.inc()
            self._send(gateway, Refused("", "bad_message", str(error)))
            return
        if isinstance(command, Hello):
            self._send(gateway, self._greeting(command))
            return
        owner = self._gateways.get(command.session, gateway)
        if owner != gateway:
            message = "the session is another gateway's"
            self._send(gateway, Refused(command.session, "session_exists", message))
            return
        if reply := self.engine.take(command):
            self._send(gateway, reply)
        if isinstance(command, Open | Resume) and command.session in self.engine.sessions:
            self._gateways[command.session] = gateway
        if isinstance(command, Close):
            self._gateways.pop(command.session, None)

    def _greeting(self, hello: Hello) -> Reply:
        if hello.version == VERSION:
            return hello
        message = f"version is {hello.version}: must be {VERSION}, this engine's"
        return Refused("", "bad_version", message)

    def _tell(self, reply: Reply) -> None:
        assert not isinstance(reply, Hello)
        if gateway := self._gateways.get(reply.session):
            self._send(gateway, reply)
        if isinstance(reply, Closed):
            self._gateways.pop(reply.session, None)

    def _send(self, gateway: bytes, reply: Reply) -> None:
        try:
            self._socket.send_multipart([gateway, self._encoder.encode(reply)], zmq.NOBLOCK)
        except zmq.Again:
            self.engine.metrics.dropped_replies.inc()
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._lose(gateway)

    def _lose(self, gateway: bytes) -> None:
        """A gateway is gone, and its callers with it."""
        lost = [session for session, owner in self._gateways.items() if owner == gateway]
        _log.warning("a gateway is gone: %d sessions are closed", len(lost))
        for session in lost:
            del self._gateways[session]
            self.engine.take(Close(session))
