"""What clients and operators come in by: who it is, and how he is let in or not."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.websockets import WebSocket

from serve.gateway.gateway import Gateway
from serve.gateway.identity import Identity, Unauthorized
from serve.gateway.limits import OverLimit
from serve.gateway.refusal import Refusal
from serve.gateway.request import address_of

_log = structlog.get_logger()
Who = TypeVar("Who")
Handler = Callable[[Request], Awaitable[Response]]


class Door(Generic[Who]):
    """One kind of visitors'. A browser's socket brings its key as a subprotocol that begins with
    `key_subprotocol`; of the others it offers, `subprotocol` is chosen."""

    subprotocol: str
    key_subprotocol: str

    def __init__(self, gateway: Gateway, identity: Identity) -> None:
        self.gateway, self.identity = gateway, identity

    def who(self, connection: HTTPConnection) -> Who:
        """Whoever comes in. Raises Refusal."""
        raise NotImplementedError

    def known(self, handler: Callable[[Request, Who], Awaitable[Response]]) -> Handler:
        """A route's handler of one for visitors who are known. A Refusal is what it answers."""

        async def handle(request: Request) -> Response:
            try:
                response = await handler(request, self.who(request))
            except Refusal as refusal:
                self.count(refusal, request)
                response = refusal.response()
            response.headers["Cache-Control"] = "no-store"
            return response

        return handle

    def credential(self, connection: HTTPConnection) -> str | None:
        """From the header, or as browsers' sockets bring it."""
        offered = connection.scope.get("subprotocols", ())
        keys = [one for one in offered if one.startswith(self.key_subprotocol)]
        in_protocol = keys[0].removeprefix(self.key_subprotocol) if keys else None
        return connection.headers.get("authorization") or in_protocol

    def identified(
        self,
        find: Callable[[str | None, str], Who],
        credential: str | None,
        connection: HTTPConnection,
    ) -> Who:
        """Whom `find` knows by that credential, and the address. Raises Refusal."""
        address = address_of(connection)
        try:
            self.gateway.limits.attempt(address)
            return find(credential, address)
        except OverLimit as over:
            raise Refusal.of(over) from over
        except Unauthorized as error:
            raise Refusal(401, "invalid_api_key", str(error)) from error

    async def accept(self, websocket: WebSocket) -> None:
        """Lets a socket in."""
        is_offered = self.subprotocol in websocket.scope["subprotocols"]
        await websocket.accept(self.subprotocol if is_offered else None)

    async def deny(self, websocket: WebSocket, refusal: Refusal) -> None:
        """Refuses a socket before it is accepted."""
        self.count(refusal, websocket)
        await websocket.send_denial_response(refusal.response())

    def count(self, refusal: Refusal, connection: HTTPConnection) -> None:
        """Somebody is not let in."""
        self.gateway.metrics.refused.labels(refusal.code).inc()
        about = {"code": refusal.code, "path": connection.url.path}
        _log.warning("refused", address=address_of(connection), **about)


def post(path: str, handler: Handler) -> Route:
    """A route for POST alone."""
    return Route(path, handler, methods=["POST"])
