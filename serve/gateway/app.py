"""Where clients come in: the routes of every dialect, and what operators ask.

A WebSocket is refused before it is accepted, with a status and a typed error, where the client has
no key, asks for what is not there, or where there is no room (but for Hydra's clients, who are told
that by an event).
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from serve.dialects.dialect import Dialect, Disconnect, Send
from serve.dialects.hydra import Hydra, no_room
from serve.dialects.live import Live
from serve.dialects.live_sideband import LiveSideband
from serve.dialects.realtime import Realtime
from serve.dialects.realtime_events import ClientError
from serve.dialects.twilio import Twilio
from serve.gateway.door import Door, post
from serve.gateway.events import Command
from serve.gateway.gateway import Gateway, Line
from serve.gateway.handoffs import Handoffs
from serve.gateway.identity import Client, Identity, Unauthorized
from serve.gateway.limits import OverLimit
from serve.gateway.operators import OperatorDoors
from serve.gateway.refusal import Refusal
from serve.gateway.request import (
    arrival_of,
    body_of,
    has_extensions,
    is_of_this_machine,
)
from serve.gateway.rtc_doors import RtcDoors
from serve.gateway.socket import ClientSocket, WebSocketChannel

_log = structlog.get_logger()
_START_S = 10.0  # in which Twilio says who calls
_TRY_AGAIN = 1013  # a close code


class _MintRequest(msgspec.Struct):
    """What a client secret is asked for with."""

    class After(msgspec.Struct):
        """How long it is good for."""

        seconds: int = 600

    session: dict = {}
    expires_after: After = msgspec.field(default_factory=After)


class Doors(Door[Client]):
    """The handlers of all routes."""

    subprotocol = "realtime"
    key_subprotocol = "openai-insecure-api-key."

    # Sockets.

    async def realtime(self, websocket: WebSocket) -> None:
        """OpenAI Realtime."""

        def dialect(client: Client) -> Dialect:
            model = self.gateway.config.model(websocket.query_params.get("model"))
            return Realtime(model, client.preset, has_extensions(websocket))

        await self._talk(websocket, "realtime", dialect)

    async def live(self, websocket: WebSocket) -> None:
        """OpenAI Live."""

        def dialect(_: Client) -> Dialect:
            model = self.gateway.config.model(websocket.query_params.get("model"))
            lasts_s = int(self.gateway.session_config.longest_s)
            now_s = int(time.time())
            return Live(model, has_extensions(websocket), started_at_s=now_s, lasts_s=lasts_s)

        await self._talk(websocket, "live", dialect)

    async def hydra(self, websocket: WebSocket) -> None:
        """smallest.ai's Hydra."""

        def dialect(_: Client) -> Dialect:
            model = self.gateway.config.model(websocket.query_params.get("model"))
            return Hydra(model, has_extensions(websocket))

        await self._talk(websocket, "hydra", dialect)

    async def attach(self, websocket: WebSocket) -> None:
        """A second socket to a session of OpenAI Live."""
        try:
            tenant = self.who(websocket).tenant
            line = self.gateway.find(websocket.path_params["session_id"], tenant)
        except Refusal as refusal:
            await self.deny(websocket, refusal)
            return
        model, lasts_s = self.gateway.config.model(None), self.gateway.session_config.longest_s
        extensions = has_extensions(websocket)
        dialect = LiveSideband(model, extensions, line.opened_at_s, int(lasts_s))
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
                    if wrong := [item for item in first if isinstance(item, Disconnect)]:
                        await _close(websocket, wrong[0].code, wrong[0].reason)
                        return
            client = self.identified(self.identity.of, dialect.parameters.get("token"), websocket)
            line = await self.gateway.open(arrival_of(websocket, client, "twilio"), dialect)
        except Refusal as refusal:
            self.count(refusal, websocket)
            await _close(websocket, _TRY_AGAIN if refusal.retry_after_s else 1008, refusal.code)
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
            with self.gateway.hall.asking(websocket.scope):
                client = self.who(websocket)
                if token := websocket.query_params.get("resume"):
                    line = self.gateway.resume(token, client.tenant, name)
                else:
                    self.gateway.hall.check(websocket.scope)
                    arrival = arrival_of(websocket, client, name, has_extensions(websocket))
                    line = await self.gateway.open(arrival, dialect_for(client))
        except Refusal as refusal:
            if name == "hydra" and refusal.retry_after_s:
                await self._turn_away(websocket, refusal)
            else:
                await self.deny(websocket, refusal)
            return
        await self.accept(websocket)
        await self._serve_first(websocket, line.dialect, line)

    async def _serve_first(self, websocket: WebSocket, dialect: Dialect, line: Line) -> None:
        """The socket that a session lives by."""
        try:
            await self._serve(websocket, dialect, line, line.missed)
        finally:
            line.missed = []
            self.gateway.left(line)

    async def _serve(
        self, websocket: WebSocket, dialect: Dialect, line: Line, missed: Iterable[Send] = ()
    ) -> None:
        about = (line.session, line.admission.spend, self.gateway.metrics, missed)
        await ClientSocket(WebSocketChannel(websocket), dialect, *about).run()

    async def _turn_away(self, websocket: WebSocket, refusal: Refusal) -> None:
        """As smallest.ai does where there is no room: let in, told, and out again."""
        self.count(refusal, websocket)
        await self.accept(websocket)
        channel = WebSocketChannel(websocket)
        await channel.send(no_room(str(refusal), refusal.retry_after_s).data)
        await channel.close(_TRY_AGAIN, "server_full")

    # Who it is.

    def who(self, connection: HTTPConnection) -> Client:
        """Raises Refusal."""
        self._check_origin(connection)
        in_query = connection.query_params.get("api_key")  # as Hydra's clients have it
        credential = self.credential(connection) or in_query
        return self.identified(self.identity.of, credential, connection)

    def _check_origin(self, connection: HTTPConnection) -> None:
        """A browser tells which page calls: another site's must not use a key that is left out."""
        origin = connection.headers.get("origin")
        allowed = self.gateway.config.origins or (
            f"{'https' if connection.url.is_secure else 'http'}://{connection.url.netloc}",
        )
        is_own = origin in allowed and (self.gateway.config.origins or self._may_be_own(connection))
        if origin is not None and not is_own and "*" not in allowed:
            raise Refusal(403, "origin_not_allowed", "pages of this origin may not call")

    def _may_be_own(self, connection: HTTPConnection) -> bool:
        """Whether a page that has this server's name can be this server's."""
        return self.identity.has_tenants or is_of_this_machine(connection)

    # HTTP.

    async def client_secrets(self, request: Request, client: Client) -> Response:
        """A key for a browser: good for some minutes."""
        body = await body_of(request)
        try:
            asked = msgspec.json.decode(body or b"{}", type=_MintRequest)
            Realtime(self.gateway.config.model(None), asked.session, False)  # is it one?
            made = self.identity.mint(client, asked.session, asked.expires_after.seconds)
        except (ValueError, ClientError) as error:
            raise Refusal(400, "invalid_request", str(error)) from error
        except Unauthorized as error:
            raise Refusal(403, "not_allowed", "a client secret can't make others") from error
        except OverLimit as over:
            raise Refusal.of(over) from over
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


def app_of(gateway: Gateway, identity: Identity, handoffs: Handoffs) -> Starlette:
    """The gateway as an ASGI application; its link runs as long as it does."""
    doors, rtc, operators = (
        Doors(gateway, identity),
        RtcDoors(gateway),
        OperatorDoors(gateway, identity),
    )
    # Pages of other sites that may call are told so, as browsers ask.
    pages = {"allow_origins": gateway.config.origins, "allow_methods": ["POST"]}
    pages |= {"allow_headers": ["*"], "expose_headers": ["Location", "Retry-After"]}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        linking = asyncio.create_task(gateway.link.run())
        linking.add_done_callback(_end_with)
        yield
        await gateway.drain()
        linking.cancel()

    return Starlette(
        routes=[
            WebSocketRoute("/v1/realtime", doors.realtime),
            post("/v1/realtime/client_secrets", doors.known(doors.client_secrets)),
            post("/v1/realtime/calls", doors.known(rtc.realtime)),
            post("/v1/realtime/calls/{call_id}/hangup", doors.known(rtc.hang_up)),
            post("/v1/realtime/calls/{call_id}/refer", doors.known(handoffs.refer)),
            WebSocketRoute("/v1/live/sessions", doors.live),
            post("/v1/live/sessions", doors.known(rtc.live)),
            WebSocketRoute("/v1/live/sessions/{session_id}/attach", doors.attach),
            post("/v1/live/sessions/{session_id}/refer", doors.known(handoffs.refer)),
            WebSocketRoute("/waves/v1/s2s", doors.hydra),
            WebSocketRoute("/twilio", doors.twilio),
            Route("/v1/models", doors.models),
            Route("/healthz", doors.healthz),
            Route("/readyz", doors.readyz),
            Route("/metrics", doors.metrics),
            *operators.routes,
        ],
        middleware=[Middleware(CORSMiddleware, **pages)],
        lifespan=lifespan,
    )


def _end_with(linking: asyncio.Task[None]) -> None:
    """Without its link a server is of no use: it ends, and whoever watches it starts another."""
    if not linking.cancelled():
        _log.critical("link_failed", exc_info=linking.exception())
        os.kill(os.getpid(), signal.SIGTERM)


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):
        await websocket.close(code, reason)
