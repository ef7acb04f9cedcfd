"""Many more clients at once than there is room for: how soon the rest are told to go, and whether
those who are served notice."""

import asyncio
import json
import multiprocessing
import re
import selectors
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.frame import FRAME_S
from serve.bench.gateway_process import GatewayProcess
from serve.bench.stand_in import numbered, stamp_of
from serve.bench.web_caller import WebCaller
from serve.bench.wire import quantiles_ms
from train.intervals import exact
from train.report import Outcome

_KEY = "crowd"
_WAIT_S = 10.0
_LONGER = 5  # than the time before the others, those who are in would talk
_EACH_S = 2.0  # from one storm to the next
_REQUEST = (
    "GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass
class Storm:
    """What came of clients who connected at once. `refused_s` is from when one sends its handshake
    until its refusal is read, `cpu_s` what the clients themselves took of a core."""

    served: int = 0
    refused_s: list[float] = field(default_factory=list)
    without_retry: int = 0  # refusals that do not say when to come again
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Crowd:
    """`clients` connect at once to a server for `slots`; and again and again while as many as it
    serves talk, for `seconds`, after as many in which nobody else comes."""

    clients: int
    slots: int
    seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.slots < self.clients or self.seconds < _EACH_S:
            raise ValueError(f"{self}: more clients than slots, and at least {_EACH_S} seconds")

    def measure(self, _checkpoint: str, _threads: int, _speech: str) -> Outcome:
        """Raises RuntimeError where somebody is let in beside those who talk."""
        tenants = {_KEY: {"sessions": 2 * self.clients}}
        limits = dict.fromkeys(("sessions_per_address", "attempts_per_minute"), 100_000)
        settings: dict[str, Any] = {f"limits.{name}": most for name, most in limits.items()}
        spawn = multiprocessing.get_context("spawn")
        with (
            GatewayProcess(self.slots, tenants=tenants, **settings) as gateway,
            ProcessPoolExecutor(1, spawn) as pool,
        ):
            first = pool.submit(storm, gateway.port, self.clients).result()
            gateway.wait_for_sessions(0)
            before, during, storms = asyncio.run(self._talk(gateway.port, pool))
        if any(one.served for one in storms):
            raise RuntimeError("clients were let in beside those who talk")
        all_of_them = [first, *storms]
        metrics = {"crowd_served": exact(first.served, self.clients, "clients")}
        metrics |= quantiles_ms(first.refused_s, "crowd_first_refused_ms")
        refused_s = [one for each in storms for one in each.refused_s]
        metrics |= quantiles_ms(refused_s, "crowd_refused_ms")
        missing = sum(each.without_retry for each in all_of_them)
        metrics["crowd_without_retry"] = exact(missing, len(refused_s), "clients")
        metrics |= quantiles_ms(before, "crowd_answered_ms_before")
        metrics |= quantiles_ms(during, "crowd_answered_ms_during")
        cpu_ms = 1000 * float(np.mean([each.cpu_s for each in all_of_them]))
        note = f"crowd: {self.clients} clients themselves took {cpu_ms:.0f} ms of a core each time"
        return Outcome(metrics, notes=(note,))

    async def _talk(
        self, port: int, pool: ProcessPoolExecutor
    ) -> tuple[list[float], list[float], list[Storm]]:
        """How long the frames of those who are served took until they were answered, before others
        came and while they did."""
        callers = [WebCaller(port, "live", key=_KEY) for _ in range(self.slots)]
        storms = []
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(_call(one, _LONGER * self.seconds)) for one in callers]
            await asyncio.sleep(self.seconds)
            others_s = time.monotonic()
            for _ in range(int(self.seconds / _EACH_S)):
                running = asyncio.get_running_loop().run_in_executor(
                    pool, storm, port, self.clients
                )
                storms.append(await running)
                await asyncio.sleep(_EACH_S)
            for call in calls:
                call.cancel()
        answered = [one for caller in callers for one in answered_s(caller)]
        before = [took_s for said_s, took_s in answered if said_s < others_s]
        return before, [took_s for said_s, took_s in answered if said_s >= others_s], storms


def storm(port: int, clients: int) -> Storm:
    """All of them have a connection when the first sends its handshake; they leave when the last
    has been answered."""
    found, selector = Storm(), selectors.DefaultSelector()
    request = _REQUEST.format(key=_KEY).encode()
    sockets = [socket.create_connection(("127.0.0.1", port), _WAIT_S) for _ in range(clients)]
    time.sleep(0.2)  # until the server has all of them
    begun_s, sent_s, answers = time.process_time(), {}, dict.fromkeys(sockets, b"")
    for one in sockets:
        one.setblocking(False)
        selector.register(one, selectors.EVENT_READ)
        sent_s[one] = time.monotonic()
        one.send(request)
    while selector.get_map():
        ready = selector.select(_WAIT_S)
        if not ready:
            raise RuntimeError(f"{len(selector.get_map())} clients were not answered")
        for key, _ in ready:
            one = key.fileobj
            assert isinstance(one, socket.socket)
            answers[one] += (data := one.recv(65_536))
            if not data or _is_whole(answers[one]):
                selector.unregister(one)
                _count(answers[one], time.monotonic() - sent_s[one], found)
    found.cpu_s = time.process_time() - begun_s
    for one in sockets:
        one.close()
    return found


def _is_whole(answer: bytes) -> bool:
    """Whether an answer to a handshake is: its head, and as much of a body as that says."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return head != answer and len(body) >= (int(length[1]) if length else 0)


def _count(answer: bytes, took_s: float, found: Storm) -> None:
    if answer.startswith(b"HTTP/1.1 101"):
        found.served += 1
        return
    if not answer.startswith((b"HTTP/1.1 503", b"HTTP/1.1 429")):
        raise RuntimeError(f"was to be refused: {answer[:200]}")
    found.refused_s.append(took_s)
    head, _, body = answer.partition(b"\r\n\r\n")
    has_field = json.loads(body)["error"].get("retry_after", 0) > 0
    found.without_retry += not (has_field and b"retry-after" in head.lower())


async def _call(caller: WebCaller, seconds: float) -> None:
    async with caller:
        await caller.say(numbered(round(seconds / FRAME_S)), FRAME_S)


def answered_s(caller: WebCaller) -> list[tuple[float, float]]:
    """When each frame of a caller at 24 kHz, in front of a scripted engine, was said, and how long
    it took until its answer was there."""
    told = [(stamp_of(pcm).number, had_s) for pcm, had_s in caller.had]
    return [(caller.said[number], had_s - caller.said[number]) for number, had_s in told if number]
