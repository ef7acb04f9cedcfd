"""Where clients come in: the routes of every dialect, and what operators ask.

A WebSocket is refused before it is accepted, with a status and a typed error, where the client has
no key, asks for what is not there, or where there is no room.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from serve.dialects.dialect import Dialect, Disconnect
from serve.dialects.hydra import Hydra
from serve.dialects.live import Live
from serve.dialects.live_sideband import LiveSideband
from serve.dialects.realtime import Realtime
from serve.dialects.realtime_events import ClientError
from serve.dialects.twilio import Twilio
from serve.gateway.events import Command
from serve.gateway.gateway import Gateway, Line
from serve.gateway.identity import Client, Identity, Unauthorized
from serve.gateway.limits import OverLimit, Tenant
from serve.gateway.refusal import Refusal
from serve.gateway.socket import ClientSocket

_log = structlog.get_logger()
_EXTENSIONS = "duologue"  # `?extensions=duologue`: events that only we have
_SUBPROTOCOL = "realtime"
_KEY_SUBPROTOCOL = "openai-insecure-api-key."
_START_S = 10.0  # in which Twilio says who calls
_MOST_BODY = 2**18


class _MintRequest(msgspec.Struct):
    """What a client secret is asked for with."""

    class After(msgspec.Struct):
        """How long it is good for."""

        seconds: int = 600

    session: dict = {}
    expires_after: After = msgspec.field(default_factory=After)


class Doors:
    """The handlers of all routes."""

    def __init__(self, gateway: Gateway, identity: Identity) -> None:
        self.gateway, self.identity = gateway, identity

    # Sockets.

    async def realtime(self, websocket: WebSocket) -> None:
        """OpenAI Realtime."""

        def dialect(client: Client) -> Dialect:
            model = self.gateway.config.model(websocket.query_params.get("model"))
            return Realtime(model, client.preset, _has_extensions(websocket))

        await self._talk(websocket, "realtime", dialect)

    async def live(self, websocket: WebSocket) -> None:
        """OpenAI Live."""

        def dialect(_: Client) -> Dialect:
            model = self.gateway.config.model(websocket.query_params.get("model"))
            lasts_s = int(self.gateway.session_config.longest_s)
            now_s = int(time.time())
            return Live(model, _has_extensions(websocket), started_at_s=now_s, lasts_s=lasts_s)

        await self._talk(websocket, "live", dialect)

    async def hydra(self, websocket: WebSocket) -> None:
        """smallest.ai's Hydra."""

        def dialect(_: Client) -> Dialect:
            model = self.gateway.config.model(websocket.query_params.get("model"))
            return Hydra(model, _has_extensions(websocket))

        await self._talk(websocket, "hydra", dialect)

    async def attach(self, websocket: WebSocket) -> None:
        """A second socket to a session of OpenAI Live."""
        try:
            tenant = self._client(websocket).tenant
            line = self.gateway.find(websocket.path_params["session_id"], tenant)
        except Refusal as refusal:
            await self._deny(websocket, refusal)
            return
        model, lasts_s = self.gateway.config.model(None), self.gateway.session_config.longest_s
        has_extensions = _has_extensions(websocket)
        dialect = LiveSideband(model, has_extensions, line.opened_at_s, int(lasts_s))
        await websocket.accept()
        await self._serve(websocket, dialect, line)

    async def twilio(self, websocket: WebSocket) -> None:
        """A telephone call, whose first messages say who calls."""
        await websocket.accept()
        dialect, first = Twilio(), []
        try:
            async with asyncio.timeout(_START_S):
                while dialect.parameters is None:
                    data = await websocket.receive_text()
                    first += dialect.received(data)
                    if any(isinstance(item, Disconnect) for item in first):
                        await websocket.close(1002, "no start")
                        return
            client = self._identified(dialect.parameters.get("token"), websocket)
            line = await self._opened(websocket, client.tenant, dialect, "twilio", False)
        except Refusal as refusal:
            self._count(refusal, websocket)
            await websocket.close(1013 if refusal.retry_after_s else 1008, refusal.code)
            return
        except (TimeoutError, WebSocketDisconnect, KeyError):
            await _close(websocket, 1008, "no start")
            return
        for item in first:
            if isinstance(item, Command):
                line.session.take(item)
        await self._serve_first(websocket, dialect, line)

    async def _talk(
        self,
        websocket: WebSocket,
        name: str,
        dialect_for: Callable[[Client], Dialect],
    ) -> None:
        try:
            client = self._client(websocket)
            if token := websocket.query_params.get("resume"):
                line = self.gateway.resume(token, client.tenant)
            else:
                is_resumable = _has_extensions(websocket)
                dialect = dialect_for(client)
                line = await self._opened(websocket, client.tenant, dialect, name, is_resumable)
        except Refusal as refusal:
            await self._deny(websocket, refusal)
            return
        offered = websocket.scope["subprotocols"]
        await websocket.accept(_SUBPROTOCOL if _SUBPROTOCOL in offered else None)
        await self._serve_first(websocket, line.dialect, line)

    async def _opened(
        self, websocket: WebSocket, tenant: Tenant, dialect: Dialect, name: str, is_resumable: bool
    ) -> Line:
        return await self.gateway.open(tenant, _address(websocket), dialect, name, is_resumable)

    async def _serve_first(self, websocket: WebSocket, dialect: Dialect, line: Line) -> None:
        """The socket that a session lives by."""
        line.sockets += 1
        try:
            await self._serve(websocket, dialect, line)
        finally:
            line.sockets -= 1
            self.gateway.left(line)

    async def _serve(self, websocket: WebSocket, dialect: Dialect, line: Line) -> None:
        spend, metrics = line.admission.spend, self.gateway.metrics
        await ClientSocket(websocket, dialect, line.session, spend, metrics).run()

    async def _deny(self, websocket: WebSocket, refusal: Refusal) -> None:
        self._count(refusal, websocket)
        await websocket.send_denial_response(refusal.response())

    def _count(self, refusal: Refusal, connection: HTTPConnection) -> None:
        self.gateway.metrics.refused.labels(refusal.code).inc()
        about = {"code": refusal.code, "path": connection.url.path}
        _log.warning("refused", address=_address(connection), **about)

    # Who it is.

    def _client(self, connection: HTTPConnection) -> Client:
        """Raises Refusal."""
        self._check_origin(connection)
        credential = connection.headers.get("authorization")
        offered = connection.scope.get("subprotocols", ())
        keys = [one for one in offered if one.startswith(_KEY_SUBPROTOCOL)]
        if not credential:
            in_query = connection.query_params.get("api_key")  # as Hydra's clients have it
            credential = keys[0].removeprefix(_KEY_SUBPROTOCOL) if keys else in_query
        return self._identified(credential, connection)

    def _identified(self, credential: str | None, connection: HTTPConnection) -> Client:
        address = _address(connection)
        try:
            self.gateway.limits.attempt(address)
            return self.identity.of(credential, address)
        except OverLimit as over:
            raise _refusal(over) from over
        except Unauthorized as error:
            raise Refusal(401, "invalid_api_key", str(error)) from error

    def _check_origin(self, connection: HTTPConnection) -> None:
        """A browser tells which page calls: another site's must not use a key that is left out."""
        origin = connection.headers.get("origin")
        allowed = self.gateway.config.origins or (
            f"{'https' if connection.url.is_secure else 'http'}://{connection.url.netloc}",
        )
        if origin is not None and origin not in allowed and "*" not in allowed:
            raise Refusal(403, "origin_not_allowed", "pages of this origin may not call")

    # HTTP.

    async def client_secrets(self, request: Request) -> Response:
        """A key for a browser: good for some minutes."""
        try:
            client, body = self._client(request), await _body(request)
            try:
                asked = msgspec.json.decode(body or b"{}", type=_MintRequest)
                Realtime(self.gateway.config.model(None), asked.session, False)  # is it one?
                made = self.identity.mint(client, asked.session, asked.expires_after.seconds)
            except (ValueError, ClientError) as error:
                raise Refusal(400, "invalid_request", str(error)) from error
            except Unauthorized as error:
                raise Refusal(403, "not_allowed", "a client secret can't make others") from error
            except OverLimit as over:
                raise _refusal(over) from over
        except Refusal as refusal:
            self._count(refusal, request)
            return refusal.response()
        about = {"value": made.value, "expires_at": made.expires_at, "session": made.session}
        return JSONResponse(about)

    async def models(self, request: Request) -> Response:
        """Those that may be asked for."""
        listed = [{"id": name, "object": "model"} for name in self.gateway.config.models]
        return JSONResponse({"object": "list", "data": listed})

    async def healthz(self, request: Request) -> Response:
        """Whether the process lives."""
        return PlainTextResponse("ok")

    async def readyz(self, request: Request) -> Response:
        """Whether callers may come."""
        if self.gateway.is_draining or not self.gateway.link.is_up:
            why = "draining" if self.gateway.is_draining else "no engine"
            return PlainTextResponse(why, 503)
        return PlainTextResponse("ok")

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        told = generate_latest(self.gateway.metrics.registry)
        return Response(told, media_type=CONTENT_TYPE_LATEST)


def app_of(gateway: Gateway, identity: Identity) -> Starlette:
    """The gateway as an ASGI application; its link runs as long as it does."""
    doors = Doors(gateway, identity)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        linking = asyncio.create_task(gateway.link.run())
        yield
        await gateway.drain()
        linking.cancel()

    return Starlette(
        routes=[
            WebSocketRoute("/v1/realtime", doors.realtime),
            Route("/v1/realtime/client_secrets", doors.client_secrets, methods=["POST"]),
            WebSocketRoute("/v1/live/sessions", doors.live),
            WebSocketRoute("/v1/live/sessions/{session_id}/attach", doors.attach),
            WebSocketRoute("/waves/v1/s2s", doors.hydra),
            WebSocketRoute("/twilio", doors.twilio),
            Route("/v1/models", doors.models),
            Route("/healthz", doors.healthz),
            Route("/readyz", doors.readyz),
            Route("/metrics", doors.metrics),
        ],
        lifespan=lifespan,
    )


def _refusal(over: OverLimit) -> Refusal:
    return Refusal(429, over.code, str(over), retry_after_s=over.retry_after_s)


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BODY:
            raise Refusal(413, "too_large", f"the body has more than {_MOST_BODY} bytes")
    return body


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):
        await websocket.close(code, reason)


def _address(connection: HTTPConnection) -> str:
    return connection.client.host if connection.client else ""


def _has_extensions(connection: HTTPConnection) -> bool:
    return _EXTENSIONS in connection.query_params.get("extensions", "").split(",")
