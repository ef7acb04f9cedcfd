"""Clients who mean no good, over real sockets: those who send what makes no sense, and those who
do not read, send too much, or say nothing at all."""

import asyncio
import contextlib
import json
import random
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from serve.bench.mutations import FIRST, VALID, mutated
from serve.bench.web_caller import PATHS, opening
from serve.gateway.audio import AudioFormat

_SIDEBAND = "sideband"  # those who attach themselves to a session of Live
_NAMES = (*VALID, _SIDEBAND)
_AT_ONCE = 2  # of each protocol
_ON_ONE = 60  # messages of a connection at most
_BLASTS, _BLAST, _BLAST_S = 10, 400_000, 2.0  # messages in each, and how long it lasts
_TINY = Frame(Opcode.TEXT, b"{").serialize(mask=True)
_ASKED = 1000  # more than wait for one who does not read
_WAIT_S = 30.0
_LONGEST_S = 500.0  # that an attack takes


@dataclass
class Found:
    """What came of it. `closes` are WebSocket close codes, 1006 where a connection ended without
    one; of `errors` those that are `untyped` have no type, code or message."""

    messages: int = 0
    errors: int = 0
    untyped: list[str] = field(default_factory=list)
    closes: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)  # by HTTP status

    @property
    def abrupt(self) -> int:
        """Connections that ended without a word, or by a fault of the server's."""
        return self.closes[1006] + self.closes[1011]

    def take(self, data: str | bytes) -> dict[str, Any]:
        """A message of the server's."""
        message = json.loads(data)
        if message.get("type") == "error":
            self.errors += 1
            error = message["error"]
            if not all(isinstance(error.get(name), str) for name in ("type", "code", "message")):
                self.untyped.append(str(data)[:200])
        return message


def attack(port: int, key: str, messages: int, seed: int) -> Found:
    """So many messages in all, of all protocols. Raises TimeoutError where the gateway takes no
    more of them."""
    found = Found()
    asyncio.run(asyncio.wait_for(_attack(port, key, messages, seed, found), _LONGEST_S))
    return found


async def _attack(port: int, key: str, messages: int, seed: int, found: Found) -> None:
    each = messages // (len(_NAMES) * _AT_ONCE)
    async with asyncio.TaskGroup() as group:
        for name in _NAMES:
            for number in range(_AT_ONCE):
                rng = random.Random(f"{seed} {name} {number}")
                group.create_task(_attack_with(port, name, key, each, rng, found))


async def _attack_with(
    port: int, name: str, key: str, messages: int, rng: random.Random, found: Found
) -> None:
    """One connection after the other, until so many messages are sent."""
    protocol = "live" if name == _SIDEBAND else name
    while messages > 0:
        path = PATHS[protocol] + ("?extensions=duologue" if rng.random() < 0.5 else "")  # pyright: ignore
        try:
            async with asyncio.timeout(_WAIT_S), contextlib.AsyncExitStack() as stack:
                client = await stack.enter_async_context(_joined(port, path, key))
                if name == _SIDEBAND:
                    path = PATHS["live"] + f"/{await _started(client)}/attach"
                    client = await stack.enter_async_context(_joined(port, path, key))
                messages -= await _send(client, protocol, min(messages, _ON_ONE), rng, found)
        except InvalidStatus as refused:
            found.refused[refused.response.status_code] += 1
            await asyncio.sleep(0.05)


def _joined(port: int, path: str, key: str) -> connect:
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "close_timeout": 2}
    options |= {"additional_headers": {"Authorization": f"Bearer {key}"}, "max_size": None}
    return connect(f"ws://127.0.0.1:{port}{path}", **options)


async def _started(client: ClientConnection) -> str:
    """The id of a new session of Live."""
    await client.send(json.dumps(VALID["live"][0]))
    while (message := json.loads(await client.recv()))["type"] != "session.started":
        pass
    return message["session"]["id"]


async def _send(
    client: ClientConnection, protocol: str, messages: int, rng: random.Random, found: Found
) -> int:
    """How many it took until the connection was closed, or all of them."""
    reading, sent, is_no_text = asyncio.create_task(_read(client, found)), 0, False
    with contextlib.suppress(ConnectionClosed):
        if rng.random() < 0.9:
            await client.send(json.dumps(VALID[protocol][FIRST[protocol]]))
        for sent in range(1, messages + 1):  # noqa: B007
            data = mutated(protocol, rng)
            is_no_text = isinstance(data, bytes) and rng.random() < 0.1  # but is said to be some
            await client.send(data, text=True if is_no_text else None)
            if is_no_text:
                break
        await (await client.ping())
    found.messages += sent
    if goes_without_a_word := rng.random() < 0.2:
        client.transport.abort()
    await client.close()
    await reading
    if not (goes_without_a_word or is_no_text):  # what is no WebSocket may be cut off
        found.closes[int(client.close_code or 1006)] += 1
    return sent


async def _read(client: ClientConnection, found: Found) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for data in client:
            found.take(data)


class Raw:
    """A connection by hand: what the server sends stays where it is."""

    def __init__(self, port: int, path: str = "", key: str = "") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.socket.settimeout(_WAIT_S)
        if path:
            self.socket.sendall(
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            assert self.socket.recv(12) == b"HTTP/1.1 101", path

    def send(self, message: dict[str, Any]) -> None:
        """As a WebSocket's text."""
        frame = Frame(Opcode.TEXT, json.dumps(message).encode())
        self.socket.sendall(frame.serialize(mask=True))


def flood(port: int, key: str, messages: int) -> Counter[str]:
    """As many as go through at once, right ones and wrong ones; the errors that came, by code. And
    as many of a byte each, again and again, by somebody who does not read."""
    codes = asyncio.run(_flood(port, key, messages))
    for _ in range(_BLASTS):
        one = Raw(port, PATHS["realtime"], key)
        one.socket.settimeout(_BLAST_S)
        with contextlib.suppress(OSError):
            one.socket.sendall(_TINY * _BLAST)
        one.socket.close()
    return codes


async def _flood(port: int, key: str, messages: int) -> Counter[str]:
    codes, found = Counter[str](), Found()

    async def read(client: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for data in client:
                message = found.take(data)
                if message["type"] == "error":
                    codes[message["error"]["code"]] += 1

    async with _joined(port, PATHS["realtime"], key) as client:
        reading = asyncio.create_task(read(client))
        for number in range(messages):
            await client.send("{" if number % 2 else json.dumps(VALID["realtime"][1]))
        await (await client.ping())
    await reading
    return codes


_STAY: list[Raw] = []


def deaf(port: int, key: str, each: int) -> None:
    """So many of each kind of those who never read: some are told something all the time, some send
    what is answered, some say nothing, some do not even say what they want. They stay as long as
    the process does."""
    told = [Raw(port, PATHS["live"], key) for _ in range(each)]
    for one in told:  # as much as there can be
        sound = AudioFormat("pcm16", 48_000)
        one.send(opening("live", sound, sound, key)[0])
    asking = [Raw(port, PATHS["realtime"], key) for _ in range(each)]
    for one in asking:
        for _ in range(_ASKED):
            one.send({"type": "?"})
    silent = [Raw(port, PATHS["hydra"], key) for _ in range(each)]
    mute = [Raw(port) for _ in range(2 * each)]
    for one in mute[:each]:
        one.socket.sendall(b"GET /v1/realtime HTTP/1.1\r\nHost: ")
    _STAY.extend(told + asking + silent + mute)
