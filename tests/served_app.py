"""An ASGI application at a port of its own, on the test's event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


def bound() -> socket.socket:
    """At a port where nobody listens yet: who connects is refused."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def serving(app: Any, listener: socket.socket | None = None) -> AsyncIterator[str]:
    """Gives its URL."""
    with listener or bound() as at:
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=5)
        )
        task = asyncio.create_task(server.serve(sockets=[at]))
        try:
            yield url_of(at)
        finally:
            server.should_exit = True
            await task
