"""What a client sends arrives whole and in order, however much of it comes at once."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState
from websockets.asyncio.client import connect

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


async def sent(messages: list[str]) -> App:
    app, loop = App(), asyncio.get_running_loop()
    config = uvicorn.Config(app, ws_per_message_deflate=False, lifespan="off")
    config.load()
    made = lambda: Connection(config, ServerState(), {})  # noqa: E731
    async with await loop.create_server(made, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", compression=None) as client:
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
