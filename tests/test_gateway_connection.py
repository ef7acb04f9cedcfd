"""What a client sends arrives whole and in order, however much of it comes; one may be refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from serve.gateway.connection import Connection

SMALL = 5000  # messages; many more than are read in one turn
LARGE = "x" * 300_000


class App:
    """Keeps what comes, and lets others have their turn between two messages now and then."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.most_waiting = 0
        self.is_over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.got.append(message["text"])
            self.most_waiting = max(self.most_waiting, receive.__self__.queue.qsize())
            if len(self.got) % 100 == 0:
                await asyncio.sleep(0)
        self.is_over.set()


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    config = uvicorn.Config(app, ws_per_message_deflate=False, lifespan="off", log_config=None)
    config.load()
    made = lambda: Connection(config, ServerState(), {})  # noqa: E731
    loop = asyncio.get_running_loop()
    async with await loop.create_server(made, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def sent(messages: list[str]) -> App:
    app = App()
    async with served(app) as url:
        async with connect(url, compression=None) as client:
            for message in messages:
                await client.send(message)
        await app.is_over.wait()
    return app


def test_messages_come_in_order_and_a_few_at_a_time() -> None:
    messages = [str(number) for number in range(SMALL)]
    messages[SMALL // 2 : SMALL // 2] = [LARGE]
    app = asyncio.run(sent(messages))
    assert app.got == messages
    assert app.most_waiting < 1000  # 4096 bytes have no more


def test_a_client_who_is_refused_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async def come() -> int:
        async with served(refuse) as url:
            with pytest.raises(InvalidStatus) as refused:
                await connect(url)
        return refused.value.response.status_code

    assert asyncio.run(come()) == 404
    assert [one for one in caplog.records if one.name == "uvicorn.error"] == []
