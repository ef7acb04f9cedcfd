"""What operators ask over HTTP, their page, and the WebSocket that feeds it.

An operator has a key of his own. A page of another site is refused, whatever `gateway.origins`
says. Without a file of tenants whoever is on this machine is an operator, if he calls the server by
a name of this machine: another site may have its own name lead here, and its page is then of this
origin.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import structlog
from msgspec import Meta
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from serve.gateway.door import Door, post
from serve.gateway.feed import Feed
from serve.gateway.gateway import Gateway
from serve.gateway.identity import LOCAL_OPERATOR, Identity, Operator
from serve.gateway.page import Page
from serve.gateway.refusal import Refusal
from serve.gateway.request import body_of, is_of_this_machine
from serve.gateway.socket import WebSocketChannel
from serve.tools.modes import Mode

_CONSOLE = Path(__file__).parents[1] / "console"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for anew, so that it fits to the server
}
_MOST_SCOPES = 1000  # that are not as normal

_log = structlog.get_logger()
_Asked = TypeVar("_Asked")


class _ModeAsked(msgspec.Struct):
    """A mode that is to hold."""

    scope: Annotated[
        str, Meta(pattern=r"^(all|(tenant|tool|session):[A-Za-z0-9_.-]{1,128})\Z", max_length=140)
    ]
    mode: Mode


class _Word(msgspec.Struct):
    """An answer to what waits for one."""

    answer: Literal["approve", "refuse"]


class OperatorDoors(Door[Operator]):
    """The handlers of all that operators ask."""

    subprotocol = "duologue"
    key_subprotocol = "duologue-key."

    def __init__(self, gateway: Gateway, identity: Identity) -> None:
        super().__init__(gateway, identity)
        self._feed = Feed(gateway)

    @property
    def routes(self) -> list[BaseRoute]:
        """Where they are."""
        known = self.known
        return [
            Route("/", self.page),
            Mount("/console/static", _Files(directory=_CONSOLE)),
            WebSocketRoute("/console/feed", self.feed),
            Route("/console/sessions", known(self.sessions)),
            post("/console/sessions/{session_id}/hang_up", known(self.hang_up)),
            Route("/console/modes", known(self.modes)),
            post("/console/modes", known(self.set_mode)),
            post("/console/approvals/{approval_id}", known(self.answer)),
            Route("/console/calls/{call_id}", known(self.trail)),
        ]

    async def page(self, request: Request) -> Response:
        """The console. It says nothing of anybody without a key."""
        return FileResponse(_CONSOLE / "index.html", headers=_PAGE_HEADERS)

    async def feed(self, websocket: WebSocket) -> None:
        """What a page is told, as long as it is there."""
        try:
            operator = self.who(websocket)
            if self._feed.is_full:
                raise Refusal(429, "too_many_pages", "too many operators' pages", retry_after_s=5.0)
        except Refusal as refusal:
            await self.deny(websocket, refusal)
            return
        await self.accept(websocket)
        await Page(self._feed, WebSocketChannel(websocket), operator).run()

    # Of operators who are known.

    async def sessions(self, request: Request, operator: Operator) -> Response:
        """Those that are there."""
        return JSONResponse({"sessions": self._feed.sessions})

    async def hang_up(self, request: Request, operator: Operator) -> Response:
        """Ends one."""
        line = self._feed.line(request.path_params["session_id"])
        if line is None:
            raise Refusal(404, "session_not_found", "there is no such session", "session_id")
        line.session.end("hang_up")
        self._feed.note(line, operator, "hang_up")
        return JSONResponse({})

    async def modes(self, request: Request, operator: Operator) -> Response:
        """The scopes that are not as normal."""
        return JSONResponse({"modes": self.gateway.tools.modes.all})

    async def set_mode(self, request: Request, operator: Operator) -> Response:
        """One of them, from now on: the kill switch is `off`."""
        asked = await _body(request, _ModeAsked)
        modes = self.gateway.tools.modes
        if asked.scope not in modes.all and len(modes.all) >= _MOST_SCOPES:
            raise Refusal(429, "too_many_scopes", "set others back to normal first", "scope")
        modes.set(asked.scope, asked.mode, operator.actor)
        return JSONResponse({"modes": modes.all})

    async def answer(self, request: Request, operator: Operator) -> Response:
        """A word on what waits for one."""
        word, name = await _body(request, _Word), request.path_params["approval_id"]
        sessions = (line.session for line in self.gateway.lines.values())
        desks = (one.desk for one in sessions if name in {a.approval_id for a in one.approvals})
        try:
            if (desk := next(desks, None)) is None:
                raise KeyError(name)
            if word.answer == "approve":
                desk.approve(name, operator.actor, operator.method)
            else:
                desk.refuse(name, operator.actor)
        except KeyError as error:
            message = "nothing waits under that name"
            raise Refusal(404, "unknown_approval", message, "approval_id") from error
        except PermissionError as error:
            raise Refusal(403, "word_not_enough", str(error)) from error
        except ValueError as error:
            raise Refusal(409, "answered_already", str(error)) from error
        return JSONResponse({})

    async def trail(self, request: Request, operator: Operator) -> Response:
        """What the audit log has of a call."""
        try:
            lines = await self.gateway.tools.audit.trail(request.path_params["call_id"])
        except OSError as error:
            _log.error("audit_not_read", error=repr(error))
            message = "the audit log can't be read"
            raise Refusal(503, "no_audit_log", message, retry_after_s=1.0) from error
        given = ("place", "kind", "actor", "before", "after", "details", "hash")
        told = [(line.time, line.as_json()) for line in lines]
        lines = [{"at": at, **{name: line[name] for name in given}} for at, line in told]
        return JSONResponse({"lines": lines})

    # Who it is.

    def who(self, connection: HTTPConnection) -> Operator:
        """Raises Refusal."""
        origin, own = connection.headers.get("origin"), connection.url.netloc
        scheme = "https" if connection.url.is_secure else "http"
        if origin is not None and origin != f"{scheme}://{own}":
            raise Refusal(403, "origin_not_allowed", "pages of this origin may not ask")
        credential = self.credential(connection)
        operator = self.identified(self.identity.operator, credential, connection)
        if operator is LOCAL_OPERATOR and not is_of_this_machine(connection):
            message = "without operators in a file of tenants, call this server `localhost`"
            raise Refusal(403, "host_not_allowed", message)
        return operator


class _Files(StaticFiles):
    """Those of the page."""

    def file_response(self, *given: Any, **named: Any) -> Response:
        response = super().file_response(*given, **named)
        response.headers.update(_PAGE_HEADERS)
        return response


async def _body(request: Request, kind: type[_Asked]) -> _Asked:
    """Raises Refusal."""
    try:
        return msgspec.json.decode(await body_of(request), type=kind)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "invalid_request", str(error)[:500]) from error
