"""What every dialect is: a translation without a socket, a clock or a thread."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from serve.gateway.events import Command, Configure, EndReason, Event

CLOSE_CODES: dict[EndReason, int] = {  # RFC 6455, and those registered since
    "hang_up": 1000,
    "no_audio": 1000,
    "too_long": 1000,
    "too_slow": 1008,
    "server_ends": 1012,
    "engine_lost": 1011,
    "fault": 1011,
}


@dataclass(frozen=True)
class Send:
    """A message for the client: text, or bytes."""

    data: str | bytes


@dataclass(frozen=True)
class Disconnect:
    """The client's socket is to be closed, once all before it is sent: a WebSocket close code."""

    code: int
    reason: str


class Dialect(Protocol):
    """One client's side of a session, from its first message to its last. `opening` is what the
    session is set to before the client has said anything."""

    @property
    def opening(self) -> Configure: ...

    def received(self, data: str | bytes) -> Iterator[Command | Send | Disconnect]:
        """What a message of the client's asks for and what is to be answered at once. Never raises
        on what a client may send: what is wrong is answered by a typed error."""
        ...

    def told(self, event: Event) -> Iterator[Send | Disconnect]:
        """What the client is told of an event. `Ended` ends in a `Disconnect`."""
        ...
