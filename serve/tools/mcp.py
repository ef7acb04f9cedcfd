"""Tools of MCP servers, through the official SDK.

A task of its own keeps the connection, since whoever enters one must be the one who leaves it. It
lists the tools at first, whenever the server says that they have changed, and now and then anyway,
which shows whether the server is still there. When it is gone, it is connected to again.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Annotated, Any

import httpx2
import msgspec
import structlog
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp_types import (
    CONNECTION_CLOSED,
    REQUEST_TIMEOUT,
    CallToolResult,
    TextContent,
    Tool,
    ToolListChangedNotification,
)

from model.tool_schema import decodable_tools
from serve.tools.http import with_environment
from serve.tools.source import Declared, Run, ToolError

_log = structlog.get_logger()
_KEY = "duologue/idempotency-key"  # in `_meta` of a call
_OPEN_S = 10.0  # a server that has not answered then has no tools for now
_ANSWER_S = 10.0  # for anything but a call
_LOOK_S = 30.0  # from one list of tools to the next
_REST_S = (0.5, 30.0)  # before the next attempt to connect: twice as long each time
_NO_ANSWER = (CONNECTION_CLOSED, REQUEST_TIMEOUT)  # and nobody knows what has happened
_PAGES = 10  # of a list of tools
_MOST_SAID = 200  # letters of an error that the agent is told


class Command(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mcp_stdio"
):
    """A server that is started here and talked to over its pipes. It knows `environment` and
    little else of this process's; `${NAME}` there is a variable of it."""

    command: Annotated[list[str], msgspec.Meta(min_length=1)]
    environment: dict[str, str] = {}


class Remote(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mcp_http"
):
    """A server at a URL (streamable HTTP). `${NAME}` in a header is a variable of the
    environment."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/?#@]+")]
    headers: dict[str, str] = {}


class Mcp:
    """A source. `declared` gives what was listed last, also while the server is away; its
    annotations are hints."""

    def __init__(self, server: Command | Remote) -> None:
        self._server = server
        self._secrets = with_environment(
            server.environment if isinstance(server, Command) else server.headers
        )
        self._client: Client | None = None  # while it is connected
        self._tools: list[Declared] = []
        self._has_tried = asyncio.Event()
        self._look = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def declared(self) -> Sequence[Declared]:
        """Waits for the first connection, for a while."""
        self._keeping = self._keeping or asyncio.create_task(self._keep())
        with suppress(TimeoutError):
            async with asyncio.timeout(_OPEN_S):
                await self._has_tried.wait()
        return self._tools

    async def run(self, tool: str, arguments: Mapping[str, Any], run: Run) -> dict[str, Any]:
        """The structured content, or what the text says. Raises ToolError."""
        if (client := self._client) is None:
            raise ToolError("unavailable", is_retryable=True)
        try:
            async with asyncio.timeout(run.timeout_s):
                result = await client.call_tool(
                    tool, dict(arguments), read_timeout_seconds=run.timeout_s, meta={_KEY: run.key}
                )
        except Exception as error:  # whatever a transport or a server may come up with
            self._look.set()
            _log.warning("mcp_call_failed", tool=tool, error=repr(error)[:_MOST_SAID])
            is_refused = isinstance(error, MCPError) and error.code not in _NO_ANSWER
            raise ToolError("unavailable" if is_refused else "timeout") from None
        return _content(result)

    async def close(self) -> None:
        """Ends the connection, and with it a server that was started here."""
        if self._keeping:
            self._keeping.cancel()
            await asyncio.wait([self._keeping], timeout=_OPEN_S)

    async def _keep(self) -> None:
        rest_s = _REST_S[0]
        while True:
            try:
                async with self._connection() as client:
                    async for _ in self._lists(client):
                        self._client = client
                        self._has_tried.set()
                        rest_s = _REST_S[0]
            except Exception as error:  # whatever a transport or a server may come up with
                _log.warning("mcp_server_lost", error=repr(error)[:_MOST_SAID])
            finally:
                self._client = None
                self._has_tried.set()
            await asyncio.sleep(rest_s * random.uniform(0.5, 1))
            rest_s = min(2 * rest_s, _REST_S[1])

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Client]:
        async with AsyncExitStack() as stack:
            if isinstance(self._server, Command):
                command, *arguments = self._server.command
                server = StdioServerParameters(command=command, args=arguments, env=self._secrets)
            else:
                timeout = httpx2.Timeout(_ANSWER_S, read=None)  # a call says itself how long
                http = httpx2.AsyncClient(headers=self._secrets, timeout=timeout)
                http = await stack.enter_async_context(http)
                server = streamable_http_client(self._server.url, http_client=http)
            client = Client(
                server, read_timeout_seconds=_ANSWER_S, message_handler=self._noticed, cache=None
            )
            async with asyncio.timeout(_OPEN_S):
                await stack.enter_async_context(client)
            # An older server tells of changes without being asked, others perhaps not at all.
            with suppress(ListenNotSupportedError, MCPError, SubscriptionLost, TimeoutError):
                await stack.enter_async_context(client.listen(tools_list_changed=True))
            yield client

    async def _noticed(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification | Exception):
            self._look.set()

    async def _lists(self, client: Client) -> AsyncIterator[None]:
        """Comes back whenever the tools were listed; raises when the server is gone."""
        while True:
            self._look.clear()
            tools: list[Declared] = []
            cursor = None
            for _ in range(_PAGES):
                page = await client.list_tools(cursor=cursor)
                tools += [
                    Declared(
                        tool.name,
                        tool.description or "",
                        tool.input_schema,
                        _hints(tool),
                    )
                    for tool in page.tools
                ]
                if (cursor := page.next_cursor) is None:
                    break
            self._tools = [tool for tool in tools if _is_decodable(tool)]
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._look.wait()


def _hints(tool: Tool) -> dict[str, Any]:
    return tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {}


def _is_decodable(tool: Declared) -> bool:
    """One that no agent can call keeps nobody from the others."""
    try:
        decodable_tools([vars(tool)])
    except ValueError as error:
        _log.warning("mcp_tool_left_out", error=str(error))
        return False
    return True


def _content(result: CallToolResult) -> dict[str, Any]:
    text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
    if result.is_error:
        raise ToolError(text.partition("\n")[0][:_MOST_SAID] or "unavailable")
    if result.structured_content is not None:
        found = result.structured_content
    else:
        try:
            found = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            found = text
    return found if isinstance(found, dict) else {"result": found}
