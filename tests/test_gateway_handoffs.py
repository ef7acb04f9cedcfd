"""Telephone calls that are put through: a real gateway, and a stand-in for Twilio's API."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from scripted_server import free_port, scripted_engine
from served_app import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

from serve.gateway.app import Doors
from serve.gateway.events import Event, ToolEvent
from serve.gateway.gateway import Gateway, GatewayConfig, Line
from serve.gateway.handoffs import HandoffConfig, Handoffs, TwilioAccount
from serve.gateway.identity import LOCAL, Client, Identity
from serve.gateway.limits import Limits, LimitsConfig
from serve.gateway.link import Link
from serve.gateway.metrics import Metrics
from serve.gateway.session import SessionConfig
from serve.tools.runtime import ToolRuntime, ToolsConfig
from serve.tools.told import HandoffFailed, Told

TARGET = "tel:+1-(415)-555.0123"
DIALS = "<Response><Dial>+14155550123</Dial></Response>"
ROLES = itertools.count()
SILENCE = base64.b64encode(b"\xff" * 640).decode()


class TwilioApi:
    """Answers with `status`, where it `may_answer`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: asyncio.Queue[tuple[str, str, dict[str, Any]]] = asyncio.Queue()
        self.app = Starlette(routes=[Route("/{path:path}", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        given = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        form = dict(await request.form())
        self.asked.put_nowait((request.scope["raw_path"].decode(), given, form))
        await self.may_answer.wait()
        return JSONResponse({"code": 21220}, self.status)


@dataclass
class Server:
    """A gateway, where it is, and what it has told of its calls."""

    url: str
    gateway: Gateway
    identity: Identity
    api: TwilioApi
    told: list[Told] = field(default_factory=list)

    def observed(self, _: Line, event: Event) -> None:
        if isinstance(event, ToolEvent):
            self.told.append(event.told)

    @asynccontextmanager
    async def phone(self, instructions: str = "Be brief.") -> AsyncIterator[ClientConnection]:
        """A call that Twilio has sent here."""
        async with connect(f"{self.url.replace('http', 'ws')}/twilio") as phone:
            parameters = {"instructions": instructions}
            start = {"streamSid": "MZ1", "callSid": "CA1/x", "customParameters": parameters}
            await phone.send(json.dumps({"event": "start", "start": start}))
            await phone.send(json.dumps({"event": "media", "media": {"payload": SILENCE}}))
            yield phone

    async def session(self) -> str:
        """The one that there is."""
        await until(lambda: bool(self.gateway.lines))
        return next(iter(self.gateway.lines))

    async def refer(self, path: str, body: Any, key: str = "x") -> tuple[int, str]:
        """Status and code."""
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient() as client:
            reply = await client.post(f"{self.url}/v1/{path}/refer", json=body, headers=headers)
        assert reply.headers["Cache-Control"] == "no-store"
        return reply.status_code, reply.json()["error"]["code"] if reply.content else ""

    async def put_through(self, session: str, target_uri: str = TARGET) -> tuple[int, str]:
        return await self.refer(f"live/sessions/{session}", {"target_uri": target_uri})


def who_hands_off() -> str:
    """Another role each time: the engine keeps what it knows of one, but not its script."""
    steps = [[3, "handoff", "", {"reason": "asked"}]]
    return json.dumps({"script": steps, "role": next(ROLES)})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def served(
    address: str, target_uri: str | None = None, api_url: str = ""
) -> AsyncIterator[Server]:
    metrics, tools = Metrics(), ToolRuntime(ToolsConfig(audit=f"{address[6:]}.sqlite"))
    await tools.open()
    link, limits = Link([address], metrics), Limits(LimitsConfig())
    gateway = Gateway(GatewayConfig(), SessionConfig(), link, limits, metrics, tools)
    identity, api = Identity(None), TwilioApi()
    doors = Doors(gateway, identity)
    linking = asyncio.create_task(link.run())
    async with serving(api.app) as stand_in_url:
        config = HandoffConfig(target_uri, TwilioAccount(api_url=api_url or stand_in_url))
        handoffs = Handoffs(config, gateway)
        refer = doors.known(handoffs.refer)
        app = Starlette(routes=[
            WebSocketRoute("/twilio", doors.twilio),
            WebSocketRoute("/v1/realtime", doors.realtime),
            Route("/v1/live/sessions/{session_id}/refer", refer, methods=["POST"]),
            Route("/v1/realtime/calls/{call_id}/refer", refer, methods=["POST"]),
        ])  # fmt: skip
        async with serving(app) as url:
            server = Server(url, gateway, identity, api)
            gateway.observe(server.observed)
            await until(lambda: link.is_up)
            yield server
            gateway.end_all("server_ends")
        api.may_answer.set()
        await handoffs.close()
    linking.cancel()
    await tools.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    address = f"ipc://{tmp_path_factory.mktemp('engine')}/engine"
    with scripted_engine(address):
        yield address


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC51")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "secret")


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_a_call_is_put_through_where_its_agent_hands_off(engine: str) -> None:
    async def test() -> None:
        async with served(engine, TARGET) as server, server.phone(who_hands_off()):
            session = await server.session()
            asked = await server.api.asked.get()
            path = "/2010-04-01/Accounts/AC51/Calls/CA1%2Fx.json"
            assert asked == (path, "AC51:secret", {"Twiml": DIALS})
            lines = await server.gateway.tools.audit.recent(session)
            assert [line.kind for line in lines] == ["handoff", "transfer"]
            assert json.loads(lines[1].details or "") == {"target_uri": TARGET}

    run(test())


def test_where_the_transfer_fails_the_agent_goes_on(engine: str) -> None:
    async def test() -> None:
        async with served(engine, TARGET) as server:
            server.api.status = 404
            async with server.phone(who_hands_off()) as phone:
                while json.loads(await phone.recv())["event"] != "media":  # it is told, and answers
                    pass
                requested, failed = server.told
                assert failed == HandoffFailed(requested.handoff_id, "Twilio answers 404")  # pyright: ignore[reportAttributeAccessIssue]
                assert server.gateway.lines

    run(test())


def test_without_a_target_nobody_is_dialled(engine: str) -> None:
    async def test() -> None:
        async with served(engine) as server, server.phone(who_hands_off()):
            await until(lambda: bool(server.told))
            session, target_uri = await server.session(), "sip:ann@a.example?x=1&y=2"
            assert await server.put_through(session, target_uri) == (200, "")
            _, _, form = await server.api.asked.get()  # the first that comes
            address = "<Sip>sip:ann@a.example?x=1&amp;y=2</Sip>"
            assert form == {"Twiml": f"<Response><Dial>{address}</Dial></Response>"}

    run(test())


def test_clients_transfer_calls_as_at_openai(engine: str) -> None:
    async def test() -> None:
        async with served(engine) as server, server.phone():
            session, body = await server.session(), {"target_uri": TARGET}
            for path in (f"live/sessions/{session}", f"realtime/calls/{session}"):
                assert await server.refer(path, body) == (200, "")
                assert (await server.api.asked.get())[2] == {"Twiml": DIALS}
            server.api.status = 500
            assert await server.put_through(session) == (502, "transfer_failed")
        nobody = f"http://127.0.0.1:{free_port()}"
        async with served(engine, api_url=nobody) as server, server.phone():
            told = await server.put_through(await server.session())
            assert told == (502, "transfer_failed")

    run(test())


def test_a_call_is_transferred_by_one_at_a_time(engine: str) -> None:
    async def test() -> None:
        async with served(engine) as server, server.phone():
            session = await server.session()
            server.api.may_answer.clear()
            first = asyncio.create_task(server.put_through(session))
            await server.api.asked.get()
            assert await server.put_through(session) == (409, "transfer_in_progress")
            server.api.may_answer.set()
            assert await first == (200, "")

    run(test())


def test_what_cannot_be_transferred_is_told(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with served(engine) as server, server.phone():
            session = await server.session()
            for wrong in (
                "", "tel:", "tel:+1415x", "4155550123", "https://a.example", "sip:a b", "sip:",
                "tel:+14155550123</Dial>", "sip:" + "x" * 300, "tel:" + "1" * 99,
            ):  # fmt: skip
                assert await server.put_through(session, wrong) == (400, "invalid_request"), wrong
            for body in ({}, [], {"target_uri": None}):
                path = f"live/sessions/{session}"
                assert await server.refer(path, body) == (400, "invalid_request")
            assert await server.put_through("none") == (404, "session_not_found")
            secret = server.identity.mint(Client(LOCAL), {}).value
            told = await server.refer(f"live/sessions/{session}", {"target_uri": TARGET}, secret)
            assert told == (403, "not_allowed")
            async with connect(f"{server.url.replace('http', 'ws')}/v1/realtime") as other:
                session = json.loads(await other.recv())["session"]["id"]
                assert await server.put_through(session) == (409, "not_a_telephone_call")
            assert server.api.asked.empty()
        monkeypatch.delenv("TWILIO_AUTH_TOKEN")
        async with served(engine) as server, server.phone():
            session = await server.session()
            assert await server.put_through(session) == (409, "no_telephone_account")

    run(test())


def test_a_target_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="must be tel:NUMBER"):
        HandoffConfig("https://a.example")
    monkeypatch.delenv("TWILIO_ACCOUNT_SID")
    nothing: Any = None
    with pytest.raises(ValueError, match="must have TWILIO_ACCOUNT_SID"):
        Handoffs(HandoffConfig(TARGET), nothing)
