"""An MCP server for tests, on its pipes or (`http PORT`) at a URL."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.types import CallToolResult, TextContent, ToolAnnotations

server = MCPServer("tests")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> dict[str, int]:
    """Adds two numbers."""
    return {"sum": a + b}


@server.tool(structured_output=False)
def greet(name: str) -> str:
    """Greets."""
    return f"hello {name}"


@server.tool(structured_output=False)
def listing() -> str:
    """Answers in JSON that is written as text."""
    return '{"items": [1, 2]}'


@server.tool()
def fails() -> CallToolResult:
    """Says that it could not do it."""
    return CallToolResult(content=[TextContent(type="text", text="no such order")], is_error=True)


@server.tool()
def key_of(ctx: Context) -> dict[str, Any]:
    """The idempotency key of this call, and what is known of the environment."""
    meta: Any = ctx.request_context.meta or {}
    known = {name: os.environ.get(name, "") for name in ("GIVEN", "TEST_SECRET", "TEST_HIDDEN")}
    return {"key": meta.get("duologue/idempotency-key"), **known}


@server.tool()
def stall(seconds: float) -> str:
    """Takes its time."""
    time.sleep(seconds)
    return "done"


@server.tool()
def die(ctx: Context) -> str:
    """Ends the server, in the middle of a call."""
    os._exit(1)


@server.tool()
async def grow(ctx: Context) -> str:
    """Has another tool from now on, and says so."""

    def grown() -> str:
        """Is new."""
        return "new"

    server.add_tool(grown)
    await ctx.notify_tools_changed()  # to clients of today's protocol
    await ctx.request_context.session.send_tool_list_changed()  # and to older ones
    return "grown"


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", port=int(sys.argv[2]))
    else:
        if len(sys.argv) > 1:
            with Path(sys.argv[1]).open("a") as log:
                log.write("started\n")
        server.run()
