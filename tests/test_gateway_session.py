"""A session that goes wrong, or whose dialect does, is alone with it."""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from model.frame import FRAME_SIZE
from serve.dialects.dialect import Disconnect, Send
from serve.dialects.realtime import Realtime
from serve.engine.messages import Heard as EngineHeard
from serve.engine.messages import Opened
from serve.gateway.events import Ended, Event
from serve.gateway.link import Link
from serve.gateway.metrics import Metrics
from serve.gateway.session import Session, SessionConfig
from serve.gateway.socket import ClientSocket
from serve.tools.runtime import ToolRuntime, ToolsConfig


def on_a_loop(test: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    return functools.wraps(test)(lambda tmp_path: asyncio.run(test(tmp_path)))


async def opened(folder: Path) -> Session:
    return await opened_with(ToolRuntime(ToolsConfig(audit=str(folder / "audit.sqlite"))))


async def opened_with(tools: ToolRuntime) -> Session:
    metrics = Metrics()
    link = Link(["ipc:///nobody"], metrics)
    link.lost_s = None
    one = Session("s", "token", 1, "shop", link, SessionConfig(), metrics, tools)
    opening = asyncio.create_task(one.open(1.0))
    await asyncio.sleep(0)
    one.replied(Opened("s"))
    await opening
    return one


def frame(number: int) -> EngineHeard:
    return EngineHeard("s", number, bytes(2 * FRAME_SIZE), "", "", 0, 0.0, False)


@on_a_loop
async def test_a_listener_that_fails_ends_its_session_and_nothing_else(tmp_path: Path) -> None:
    session = await opened(tmp_path)

    def fail(event: Event) -> None:
        raise AssertionError("a fault in a dialect")

    told: list[Event] = []
    session.subscribe(fail)
    session.subscribe(told.append)
    session.replied(frame(0))  # raises nothing: the link goes on
    assert session.ended == Ended("fault")
    assert Ended("fault") in told  # the other one hears of it
    assert not session._link.sessions


@on_a_loop
async def test_a_fault_in_what_the_engine_said_ends_the_session(tmp_path: Path) -> None:
    session = await opened(tmp_path)
    bad = EngineHeard("s", 0, b"odd", "", "", 0, 0.0, False)
    session.replied(bad)
    assert session.ended == Ended("fault")


class Slow:
    """A channel whose client says something while it is sent something."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.says: asyncio.Queue[str] = asyncio.Queue()

    async def send(self, data: str | bytes) -> bool:
        self.sent.append(data)
        if len(self.sent) == 1:
            self.says.put_nowait("x")
            await asyncio.sleep(0.02)
        return len(self.sent) < 3

    async def receive(self) -> str | None:
        return await self.says.get()

    async def close(self, code: int, reason: str) -> None:
        pass


class Watchful(Realtime):
    """A dialect that knows when it is disturbed."""

    is_telling = was_disturbed = False

    def received(self, data: str | bytes) -> Iterator[Send]:
        self.was_disturbed |= self.is_telling
        yield from ()

    def told(self, event: Event) -> Iterator[Send | Disconnect]:
        self.is_telling = True
        yield Send("one")
        yield Send("two")
        self.is_telling = False


@on_a_loop
async def test_a_client_who_speaks_up_does_not_find_his_dialect_in_the_middle_of_something(
    tmp_path: Path,
) -> None:
    session = await opened(tmp_path)
    channel, dialect = Slow(), Watchful("model", None, extensions=False)
    socket = ClientSocket(channel, dialect, session, lambda _: 0.0, session._metrics)
    running = asyncio.create_task(socket.run())
    await asyncio.sleep(0)
    session.replied(frame(0))
    async with asyncio.timeout(5):
        await running
    assert channel.says.empty()  # it was heard
    assert channel.sent[:2] == ["one", "two"]
    assert not dialect.was_disturbed
    assert not dialect.is_telling


def test_it_is_said_how_a_fault_closes_a_socket() -> None:
    dialect = Realtime("model", None, extensions=False)
    assert [*dialect.told(Ended("fault"))][-1] == Disconnect(1011, "fault")
