import asyncio
import functools
import json
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from mcp import Client
from pydantic import BaseModel, Field
from served_app import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

import serve.tools.mcp
from serve.tools.functions import Functions
from serve.tools.http import Endpoint, Http, Service
from serve.tools.mcp import Command, Mcp, Remote
from serve.tools.source import Declared, Run, Source, ToolError
from serve.tools.sources import Sources, read_sources

MCP_SERVER = str(Path(__file__).with_name("mcp_tool_server.py"))


def run(timeout_s: float = 20.0, key: str = "call:0:abc") -> Run:
    return Run("session", "shop", "call", key, timeout_s)


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """What it gives, once that is true."""
    async with asyncio.timeout(30):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


# Functions


class Address(BaseModel):
    street: str
    number: int = 1


def deliver(
    goods: Annotated[list[str], Field(description="What to bring", max_length=3)],
    to: Address,
    run: Run,
    speed: Literal["slow", "fast"] = "slow",
) -> dict[str, Any]:
    """Brings goods
    to an address.

    This is for those who read the code.
    """
    return {"goods": goods, "to": to, "speed": speed, "key": run.key}


async def wait(count: int) -> int:
    """Waits on the loop."""
    assert threading.current_thread() is threading.main_thread()
    return count


def thread_name() -> str:
    """Says where it runs."""
    return threading.current_thread().name


def leaks() -> None:
    """Raises."""
    raise KeyError("password=hunter2")


def refuses() -> None:
    """Is never allowed."""
    raise ToolError("denied", is_retryable=True)


def unwritable() -> object:
    """Returns what JSON can't hold."""
    return object()


@pytest.fixture
def functions() -> Functions:
    return Functions([deliver, wait, thread_name, leaks, refuses, unwritable])


def test_a_function_says_what_the_agent_is_told(functions):
    found = {tool.name: tool for tool in asyncio.run(functions.declared())}
    tool = found["deliver"]
    assert tool.description == "Brings goods to an address."
    assert tool.parameters["required"] == ["goods", "to"]
    properties = tool.parameters["properties"]
    assert [*properties] == ["goods", "to", "speed"]
    assert properties["speed"] == {"enum": ["slow", "fast"], "type": "string"}
    assert properties["goods"]["description"] == "What to bring"
    assert found["thread_name"].parameters == {"type": "object", "properties": {}}


def test_a_function_is_given_checked_arguments_and_the_run(functions):
    given = {"goods": ["tea"], "to": {"street": "Mill Road", "number": "7"}}
    result = asyncio.run(functions.run("deliver", given, run()))
    assert result == {
        "goods": ["tea"],
        "to": {"street": "Mill Road", "number": 7},
        "speed": "slow",
        "key": "call:0:abc",
    }


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"goods": ["tea"]}, "to: Field required"),
        ({"goods": ["tea"] * 4, "to": {"street": "x"}}, "goods: "),
        ({"goods": [], "to": {"street": "x", "number": "secret"}}, "to.number: "),
        ({"goods": [], "to": {"street": "x"}, "run": {}}, "run: "),
        ({"goods": [], "to": {"street": "x"}, "other": 1}, "other: "),
    ],
)
def test_wrong_arguments_are_named_and_never_reach_the_function(functions, given, named):
    with pytest.raises(ToolError, match="invalid arguments") as refused:
        asyncio.run(functions.run("deliver", given, run()))
    assert named in str(refused.value)
    assert "secret" not in str(refused.value)


def test_coroutines_run_on_the_loop_and_others_in_threads(functions):
    assert asyncio.run(functions.run("wait", {"count": 3}, run())) == {"result": 3}
    name = asyncio.run(functions.run("thread_name", {}, run()))["result"]
    assert name.startswith("tool")


@pytest.mark.parametrize("tool", ["leaks", "unwritable"])
def test_what_a_function_raises_stays_inside(functions, tool):
    with pytest.raises(ToolError) as failed:
        asyncio.run(functions.run(tool, {}, run()))
    assert str(failed.value) == "unavailable"
    assert not failed.value.is_retryable
    assert failed.value.__suppress_context__


def test_a_function_may_say_why_it_refuses(functions):
    with pytest.raises(ToolError, match="denied") as refused:
        asyncio.run(functions.run("refuses", {}, run()))
    assert refused.value.is_retryable


def test_no_more_functions_run_at_once_than_there_are_threads():
    lock, at_once, most = threading.Lock(), 0, 0
    full = threading.Event()

    def busy() -> None:
        """Counts how many run."""
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
            if at_once == 8:
                full.set()
        assert full.wait(20)
        with lock:
            at_once -= 1

    async def all_of_them() -> None:
        source = Functions([busy])
        await asyncio.gather(*(source.run("busy", {}, run()) for _ in range(24)))

    asyncio.run(all_of_them())
    assert most == 8


def test_what_still_waits_for_a_thread_never_begins_once_it_is_cancelled():
    release, begun = threading.Event(), []

    def hold(number: int) -> None:
        """Waits."""
        begun.append(number)
        release.wait(20)

    async def cancelled() -> None:
        source = Functions([hold])
        calls = [asyncio.create_task(source.run("hold", {"number": n}, run())) for n in range(9)]

        async def are_full() -> bool:
            return len(begun) == 8

        await until(are_full)
        calls[8].cancel()
        await asyncio.gather(calls[8], return_exceptions=True)
        release.set()
        await asyncio.gather(*calls, return_exceptions=True)
        await source.close()

    asyncio.run(cancelled())
    assert sorted(begun) == [*range(8)]


def test_what_waited_for_its_thread_asks_there_whether_it_may_still_begin():
    def stopped() -> None:
        assert threading.current_thread() is not threading.main_thread()
        raise ToolError("denied")

    begun = []

    def begin() -> None:
        """Has begun."""
        begun.append(True)

    check = Run("session", "shop", "call", "key", 5.0, stopped)
    with pytest.raises(ToolError, match="denied"):
        asyncio.run(Functions([begin]).run("begin", {}, check))
    assert not begun


def test_a_coroutine_ends_at_its_deadline_and_a_thread_when_it_is_done():
    ended = []

    async def endless() -> None:
        """Never ends."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    def late() -> str:
        """Ends late."""
        time.sleep(0.1)
        return "written"

    source = Functions([endless, late])
    with pytest.raises(ToolError, match="timeout") as failed:
        asyncio.run(source.run("endless", {}, run(timeout_s=0.01)))
    assert ended
    assert not failed.value.is_retryable
    assert asyncio.run(source.run("late", {}, run(timeout_s=0.01))) == {"result": "written"}


def silent(x: int) -> None: ...


def untyped(x) -> None:
    """Has a parameter of no type."""


def starred(*x: int) -> None:
    """Has parameters without names."""


@pytest.mark.parametrize(
    ("functions", "why"),
    [
        ([silent], "silent has no docstring"),
        ([untyped], "untyped: parameter x must have a type"),
        ([starred], "starred: .*must be given by its name"),
        ([wait, wait], "'wait' is declared twice"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(functions, why):
    with pytest.raises(ValueError, match=why):
        Functions(functions)


# HTTP


class Shop:
    """Answers as `answer` says, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self._answer = answer
        self.app = Starlette(
            routes=[Route("/{path:path}", self._take, methods=["GET", "POST", "DELETE"])]
        )

    async def _take(self, request: Request) -> Response:
        target = request.scope["raw_path"].decode()
        if request.url.query:
            target += f"?{request.url.query}"
        body = await request.body()
        self.asked.append((request.method, target, dict(request.headers), body))
        return self._answer(request)


STRING = {"type": "string"}
PARAMETERS = {
    "type": "object",
    "properties": {"order_id": STRING, "note": STRING, "count": {"type": "integer"}},
    "required": ["order_id"],
}


def endpoint(method: Any = "GET", path: str = "/orders/{order_id}", **fields: Any) -> Endpoint:
    return Endpoint("order", "An order.", path, PARAMETERS, method, **fields)


def asked(
    shop: Shop, given: Mapping[str, Any], of: Endpoint | None = None, **headers: str
) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with serving(shop.app) as url:
            source = Http(Service(f"{url}/api", [of or endpoint()], headers))
            try:
                return await source.run("order", given, run())
            finally:
                await source.close()

    return asyncio.run(ask())


def fine(_: Request) -> Response:
    return JSONResponse({"status": "shipped"})


def test_arguments_go_into_the_path_and_the_query(monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "t0ken")
    shop = Shop(fine)
    given = {"order_id": "1 2/../3?x#é", "note": "a&b=c", "count": 2}
    assert asked(shop, given, Authorization="Bearer ${SHOP_TOKEN}") == {"status": "shipped"}
    method, target, headers, body = shop.asked[0]
    assert (method, body) == ("GET", b"")
    assert target.partition("?")[0] == "/api/orders/1%202%2F..%2F3%3Fx%23%C3%A9"
    assert target.partition("?")[2] == "note=a%26b%3Dc&count=2"
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["idempotency-key"] == "call:0:abc"


def test_arguments_go_into_the_body():
    shop = Shop(lambda _: JSONResponse([1, 2], 201))
    result = asked(shop, {"order_id": "7", "note": "x"}, endpoint("POST"))
    assert result == {"result": [1, 2]}
    method, target, headers, body = shop.asked[0]
    assert (method, target, json.loads(body)) == ("POST", "/api/orders/7", {"note": "x"})
    assert headers["idempotency-key"] == "call:0:abc"


@pytest.mark.parametrize(
    "given",
    [{}, {"order_id": 7}, {"order_id": "7", "x": 1}, {"order_id": ".."}, {"order_id": ""}],
)
def test_wrong_arguments_are_not_sent(given):
    shop = Shop(fine)
    with pytest.raises(ToolError, match="invalid arguments"):
        asked(shop, given)
    assert not shop.asked


@pytest.mark.parametrize(
    ("status", "said", "is_retryable"),
    [
        (400, "refused", False),
        (401, "denied", False),
        (404, "not_found", False),
        (429, "rate_limited", True),
        (500, "unavailable", False),
        (503, "unavailable", True),
        (504, "timeout", False),
    ],
)
def test_a_status_says_what_the_agent_hears_and_whether_to_ask_again(status, said, is_retryable):
    shop = Shop(lambda _: JSONResponse({"trace": "at db.py line 3"}, status))
    with pytest.raises(ToolError) as failed:
        asked(shop, {"order_id": "7"}, endpoint("POST"))
    assert str(failed.value) == said
    assert failed.value.is_retryable == is_retryable


def test_an_endpoint_says_itself_which_statuses_may_be_tried_again():
    shop = Shop(lambda _: Response(status_code=502))
    with pytest.raises(ToolError) as failed:
        asked(shop, {"order_id": "7"}, endpoint("POST", retry_on=frozenset({502})))
    assert failed.value.is_retryable


@pytest.mark.parametrize("location", ["http://169.254.169.254/latest", "/api/orders/8"])
def test_no_redirect_is_followed(location):
    shop = Shop(lambda _: RedirectResponse(location))
    with pytest.raises(ToolError, match="refused"):
        asked(shop, {"order_id": "7"})
    assert len(shop.asked) == 1


PACKED = {"content-encoding": "gzip", "content-type": "application/json"}


@pytest.mark.parametrize(
    "answer",
    [
        Response('{"status": "shipped"}', media_type="text/html"),
        Response("{", media_type="application/json"),
        Response('{"price": NaN}', media_type="application/json"),
        Response("[" * 60_000, media_type="application/json"),
        Response(b"\x1f\x8b\x08", headers=PACKED),
        JSONResponse({"text": "x" * 70_000}),
    ],
)
def test_what_is_no_short_json_is_no_answer(answer):
    shop = Shop(lambda _: answer)
    with pytest.raises(ToolError, match="unavailable"):
        asked(shop, {"order_id": "7"})
    assert asked(shop, {"order_id": "7"}, endpoint("POST")) == {}  # it has been done


def test_an_answer_may_be_empty_or_of_a_kind_of_json():
    assert asked(Shop(lambda _: Response(status_code=204)), {"order_id": "7"}) == {}
    answer = Response('{"a": 1}', media_type="application/vnd.shop+json; charset=utf-8")
    assert asked(Shop(lambda _: answer), {"order_id": "7"}) == {"a": 1}


def test_a_service_that_is_not_there_may_be_asked_again():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        source = Http(Service(f"http://127.0.0.1:{nobody.getsockname()[1]}", [endpoint("POST")]))
        with pytest.raises(ToolError, match="unavailable") as failed:
            asyncio.run(source.run("order", {"order_id": "7"}, run()))
    assert failed.value.is_retryable


def test_an_answer_that_trickles_in_is_cut_off():
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            source = Http(Service(f"http://127.0.0.1:{port}", [endpoint("POST")]))
            await source.run("order", {"order_id": "7"}, run(timeout_s=0.3))

    with pytest.raises(ToolError, match="timeout") as failed:
        asyncio.run(ask())
    assert not failed.value.is_retryable


@pytest.mark.parametrize(("method", "is_retryable"), [("GET", True), ("POST", False)])
def test_what_may_have_happened_is_not_asked_for_again(method, is_retryable):
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            source = Http(Service(f"http://127.0.0.1:{port}", [endpoint(method)]))
            await source.run("order", {"order_id": "7"}, run())

    with pytest.raises(ToolError, match="timeout") as failed:
        asyncio.run(ask())
    assert failed.value.is_retryable == is_retryable


# MCP


def stdio(*arguments: str, **environment: str) -> Mcp:
    return Mcp(Command([sys.executable, MCP_SERVER, *arguments], environment))


@pytest.fixture(params=["auto", "legacy"])
def _protocol(request, monkeypatch):
    """Today's, which the client must subscribe in, and the one before."""
    monkeypatch.setattr(serve.tools.mcp, "Client", functools.partial(Client, mode=request.param))


@pytest.mark.usefixtures("_protocol")
def test_an_mcp_server_is_used_over_its_pipes(monkeypatch):
    monkeypatch.setenv("TEST_SECRET", "s3cret")
    monkeypatch.setenv("TEST_HIDDEN", "nobody's business")

    async def use() -> None:
        source = stdio(GIVEN="${TEST_SECRET}!")
        try:
            tools = {tool.name: tool for tool in await source.declared()}
            assert tools["add"].description == "Adds two numbers."
            assert [*tools["add"].parameters["properties"]] == ["a", "b"]
            assert tools["add"].hints == {"readOnlyHint": True}
            assert await source.run("add", {"a": 1, "b": 2}, run()) == {"sum": 3}
            assert await source.run("greet", {"name": "tom"}, run()) == {"result": "hello tom"}
            assert await source.run("listing", {}, run()) == {"items": [1, 2]}
            known = {"GIVEN": "s3cret!", "TEST_SECRET": "", "TEST_HIDDEN": ""}
            assert await source.run("key_of", {}, run()) == {"key": "call:0:abc", **known}
            with pytest.raises(ToolError, match="no such order"):
                await source.run("fails", {}, run())
            with pytest.raises(ToolError, match="timeout") as late:
                await source.run("stall", {"seconds": 2}, run(timeout_s=0.2))
            assert not late.value.is_retryable
        finally:
            await source.close()

    asyncio.run(use())


@pytest.mark.usefixtures("_protocol")
def test_a_new_tool_is_declared_when_the_server_says_so():
    async def use() -> None:
        source = stdio()
        try:
            assert "grown" not in {tool.name for tool in await source.declared()}
            await source.run("grow", {}, run())

            async def has_grown() -> bool:
                return "grown" in {tool.name for tool in await source.declared()}

            await until(has_grown)
            assert await source.run("grown", {}, run()) == {"result": "new"}
        finally:
            await source.close()

    asyncio.run(use())


def test_a_server_that_dies_is_started_again(tmp_path):
    log = tmp_path / "starts"

    async def use() -> None:
        source = stdio(str(log))
        try:
            await source.declared()
            with pytest.raises(ToolError, match="timeout") as lost:
                await source.run("die", {}, run())
            assert not lost.value.is_retryable  # who knows what it had done

            async def answers() -> dict[str, Any] | None:
                try:
                    return await source.run("add", {"a": 1, "b": 2}, run())
                except ToolError:
                    return None

            assert await until(answers) == {"sum": 3}
            assert len(await source.declared()) > 5
        finally:
            await source.close()

    asyncio.run(use())
    assert log.read_text() == "started\n" * 2


def test_a_server_that_cannot_be_started_has_no_tools():
    async def use() -> None:
        source = Mcp(Command(["no-such-command-here"]))
        assert await source.declared() == []
        with pytest.raises(ToolError, match="unavailable") as away:
            await source.run("add", {}, run())
        assert away.value.is_retryable
        await source.close()

    asyncio.run(use())


def test_an_mcp_server_is_used_at_a_url_also_when_it_comes_later():
    async def use() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        source = Mcp(Remote(f"http://127.0.0.1:{port}/mcp"))
        assert await source.declared() == []
        command = [MCP_SERVER, "http", str(port)]
        process = await asyncio.create_subprocess_exec(sys.executable, *command)
        try:
            tools = await until(source.declared)
            assert "add" in {tool.name for tool in tools}
            assert await source.run("add", {"a": 1, "b": 2}, run()) == {"sum": 3}
            assert (await source.run("key_of", {}, run()))["key"] == "call:0:abc"
        finally:
            await source.close()
            process.terminate()
            await process.wait()

    asyncio.run(use())


# The file


class Fake:
    """A source of some names."""

    def __init__(self, *names: str, result: Any = "") -> None:
        self.names, self.result, self.is_closed = names, result, False

    async def declared(self) -> Sequence[Declared]:
        return [Declared(name, "", {"type": "object"}) for name in self.names]

    async def run(self, tool: str, arguments: Mapping[str, Any], run: Run) -> dict[str, Any]:
        return {"tool": tool, "result": self.result}

    async def close(self) -> None:
        self.is_closed = True


async def opened(**sources: Source) -> Sources:
    found = Sources(sources)
    await found.open()
    return found


def test_two_sources_with_a_tool_of_one_name_are_refused():
    with pytest.raises(ValueError, match="'b' is of both source first and second"):
        asyncio.run(opened(first=Fake("a", "b"), second=Fake("b", "c")))


def test_a_source_cannot_take_over_the_tool_of_another():
    async def use() -> None:
        late, owner = Fake("a", result="late"), Fake("b", result="owner")
        sources = await opened(late=late, owner=owner)
        late.names = ("a", "b", "c")
        listed = (await sources.listed()).values()
        assert [tool.name for tools in listed for tool in tools] == ["a", "c", "b"]
        assert (await sources.run("b", {}, run()))["result"] == "owner"
        assert (await sources.run("c", {}, run()))["result"] == "late"

    asyncio.run(use())


def test_a_tool_of_no_source_is_not_found():
    async def use() -> None:
        with pytest.raises(ToolError, match="not_found"):
            await (await opened(one=Fake("a"))).run("b", {}, run())

    asyncio.run(use())


def test_a_result_must_be_short():
    async def use() -> None:
        sources = await opened(one=Fake("long", result="x" * 70_000))
        assert await sources.run("long", {}, run()) == {"error": "too_long"}

    asyncio.run(use())


def test_all_are_closed():
    async def use() -> None:
        fakes = Fake("a"), Fake("b")
        sources = await opened(one=fakes[0], two=fakes[1])
        await sources.close()
        assert [fake.is_closed for fake in fakes] == [True, True]

    asyncio.run(use())


def written(folder: Path, text: str) -> Sources:
    path = folder / "sources.yaml"
    path.write_text(text)
    return read_sources(path)


def made(names: list[str]) -> list[Callable[..., Any]]:
    known = {"wait": wait, "thread_name": thread_name}
    return [known[name] for name in names]


SHOP = """
own: {kind: functions, make: "test_tool_sources:made", settings: {names: [wait]}}
shop:
  kind: http
  url: http://127.0.0.1:1/api
  tools:
    - name: order
      description: An order.
      path: /orders/{order_id}
      parameters:
        {type: object, properties: {order_id: {type: string}}, required: [order_id]}
"""


def test_a_file_lists_sources(tmp_path):
    async def use() -> None:
        server = f'{{kind: mcp_stdio, command: ["{sys.executable}", "{MCP_SERVER}"]}}'
        sources = written(tmp_path, f"{SHOP}\nsums: {server}\n")
        try:
            await sources.open()
            listed = (await sources.listed()).values()
            names = [tool.name for tools in listed for tool in tools]
            assert names[:3] == ["wait", "order", "add"]
            assert await sources.run("wait", {"count": 4}, run()) == {"result": 4}
            assert await sources.run("add", {"a": 1, "b": 2}, run()) == {"sum": 3}
        finally:
            await sources.close()

    asyncio.run(use())


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("kind: http", "kind: ftp", "Invalid value 'ftp'"),
        ("      path:", "      color: red\n      path:", "unknown field `color`"),
        ("/orders/{order_id}", "/orders/{id}", r"source shop: .*'id'.*required"),
        ("/orders/{order_id}", "/orders/{order_id", "source shop: "),
        ("127.0.0.1:1/api", "{order_id}.example.com", "regex"),
        ("127.0.0.1:1/api", "user:password@example.com", "regex"),
        ("  tools:", "  headers: {A: '${NO_SUCH_VARIABLE}'}\n  tools:", "shop: .*NO_SUCH_VARIABLE"),
        ("{type: string}}, req", "{allOf: []}}, req", "source shop: .*'order_id'"),
        ("sources:made", "sources:unmade", "source own: .*unmade"),
        ("test_tool_sources:", "no_such_module:", "source own: .*no_such_module"),
        ("{names: [wait]}", "{nombres: []}", "source own: .*nombres"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, before, after, why):
    assert before in SHOP
    with pytest.raises(ValueError, match=why):
        written(tmp_path, SHOP.replace(before, after))
