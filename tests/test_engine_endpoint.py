"""The engine behind a real socket, in a thread of its own."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq
from fake_agent import FakeAgent

from serve.engine.endpoint import Endpoint
from serve.engine.engine import Engine, EngineConfig
from serve.engine.messages import (
    VERSION,
    Close,
    Command,
    Frame,
    Heard,
    Hello,
    Open,
    Opened,
    Refused,
    Reply,
    Saved,
)

WAIT_MS = 20_000


class Gateway:
    """One that says what it is told to."""

    def __init__(self, address: str) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.connect(address)
        self.saved: list[Saved] = []

    def send(self, *commands: Command) -> None:
        for command in commands:
            self.socket.send(msgspec.msgpack.encode(command))

    def receive(self) -> Reply:
        """The next reply; what is saved goes into `saved`."""
        while True:
            assert self.socket.poll(WAIT_MS), "no reply came"
            reply = msgspec.msgpack.decode(self.socket.recv(), type=Reply)
            if not isinstance(reply, Saved):
                return reply
            self.saved.append(reply)

    def close(self) -> None:
        self.socket.close(0)


@contextlib.contextmanager
def serving(folder: Path, config: EngineConfig) -> Iterator[tuple[Endpoint, str]]:
    address = f"ipc://{folder}/engine"
    endpoint = Endpoint(Engine(FakeAgent(call_each=1000), config), address)
    over = threading.Event()
    thread = threading.Thread(target=endpoint.run, args=(over.is_set,))
    thread.start()
    try:
        yield endpoint, address
    finally:
        over.set()
        thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Endpoint, str]]:
    with serving(tmp_path, EngineConfig(slots=2)) as endpoint:
        yield endpoint


def frame(session: str, number: int) -> Frame:
    return Frame(session, number, np.full(1920, 1000, "<i2").tobytes())


def count_of(endpoint: Endpoint, name: str, **labels: str) -> float | None:
    return endpoint.engine.metrics.registry.get_sample_value(name, labels)


def test_frames_go_in_and_come_out(served: tuple[Endpoint, str]) -> None:
    gateway = Gateway(served[1])
    gateway.send(Hello(VERSION), Open("a", "Hello.", []))
    assert gateway.receive() == Hello(VERSION)
    assert gateway.receive() == Opened("a")
    for number in range(5):
        gateway.send(frame("a", number))
        reply = gateway.receive()
        assert isinstance(reply, Heard)
        assert (reply.session, reply.number, len(reply.pcm)) == ("a", number, 3840)
    assert count_of(served[0], "duologue_frame_latency_seconds_count") == 5
    assert count_of(served[0], "duologue_round_seconds_count", kind="hear") == 5
    assert count_of(served[0], "duologue_round_seconds_count", kind="prefill") == 3  # 70 by 32
    assert count_of(served[0], "duologue_sessions") == 1
    gateway.send(Open("b", "", []), Open("c", "", []), Close("a"))
    assert {type(gateway.receive()) for _ in range(2)} == {Opened, Refused}
    gateway.send(frame("a", 0))
    assert isinstance(gateway.receive(), Refused)
    assert count_of(served[0], "duologue_refused_total", code="at_capacity") == 1
    assert count_of(served[0], "duologue_sessions_closed_total", reason="closed") == 1
    gateway.close()


def test_two_gateways_do_not_touch_each_others_callers(served: tuple[Endpoint, str]) -> None:
    one, other = Gateway(served[1]), Gateway(served[1])
    one.send(Open("a", "Hello.", []))
    assert one.receive() == Opened("a")
    for command in (frame("a", 0), Close("a"), Open("a", "Hello.", [])):
        other.send(command)
        reply = other.receive()
        assert isinstance(reply, Refused)
        assert "another gateway" in reply.message
    one.send(frame("a", 0))
    assert isinstance(one.receive(), Heard)
    one.close()
    other.close()


def test_what_cannot_be_read_is_refused_and_harms_nobody(served: tuple[Endpoint, str]) -> None:
    gateway = Gateway(served[1])
    gateway.send(Hello(VERSION + 1))
    refused = gateway.receive()
    assert isinstance(refused, Refused)
    assert (refused.code, str(VERSION) in refused.message) == ("bad_version", True)
    for packed in (b"", b"nonsense", msgspec.msgpack.encode({"type": "Frame", "session": 3})):
        gateway.socket.send(packed)
        refused = gateway.receive()
        assert isinstance(refused, Refused)
        assert refused.code == "bad_message"
    assert count_of(served[0], "duologue_bad_messages_total") == 3
    gateway.send(Open("a", "Hello.", []))
    assert gateway.receive() == Opened("a")
    gateway.close()


def test_a_gateway_that_is_gone_leaves_no_slot_taken(tmp_path: Path) -> None:
    with serving(tmp_path, EngineConfig(slots=2, patience_s=0.2)) as (endpoint, address):
        lost, other = Gateway(address), Gateway(address)
        lost.send(Open("a", "Hello.", []), Open("b", "Hello.", []))
        assert {lost.receive(), lost.receive()} == {Opened("a"), Opened("b")}
        lost.send(frame("a", 0))
        lost.socket.close(WAIT_MS)  # sends it, and is gone before the answer or with it
        while endpoint.engine.sessions:
            other.send(frame("c", 0))
            reply = other.receive()
            assert isinstance(reply, Refused)
            assert reply.code == "no_session"
        other.send(Open("c", "Hello.", []))
        assert other.receive() == Opened("c")
        other.close()
