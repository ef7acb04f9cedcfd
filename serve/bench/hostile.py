"""A caller like any other, while others send what makes no sense, do not read, or say nothing."""

import asyncio
import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.frame import FRAME_S
from serve.bench.attack import Found, attack, deaf, flood
from serve.bench.crowd import answered_s
from serve.bench.gateway_process import GatewayProcess
from serve.bench.stand_in import numbered, stamp_of
from serve.bench.web_caller import WebCaller
from serve.bench.wire import quantiles_ms
from train.intervals import exact
from train.report import Outcome

_ROOM = 64  # slots, more than anybody needs
_MUCH = {"events_per_second": 1_000_000, "bytes_per_second": 1_000_000_000}
_TENANTS = {"good": {}, "fuzz": {"sessions": _ROOM, **_MUCH}, "others": {"sessions": _ROOM}}
_LIMITS: dict[str, Any] = {
    "gateway.resume_s": 2,
    "limits.sessions_per_address": 4 * _ROOM,
    "limits.attempts_per_minute": 10**9,
}
_LONGEST_S = 1200.0  # that the good caller talks
_NICE, _START_S = 10, 1.0  # of each process of others
_EACH_S = 0.5  # from one look at the gateway's memory to the next
_WARM = 0.5  # share of the attack after which memory is to stay as it is; tables fill before
_LAST_S = 1.0  # whose answers may still be under way


@dataclass
class _Seen:
    """From when until when there were others, and what they found; MiB of the gateway's; files that
    the gateway still has for those who are deaf."""

    begun_s: float
    over_s: float
    found: Found
    flooded: Counter[str]
    memory: list[float]
    deaf_left: int


@dataclass(frozen=True)
class Hostile:
    """So many `messages` that make no sense; `deaf` of each kind who do not read; `before_s` in
    which nobody attacks, and `settle_s` in which all must be again as it was: pings take 40 s to
    find out who does not answer."""

    messages: int
    deaf: int
    before_s: float
    settle_s: float

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0 or self.messages < 100 or not self.before_s:
            raise ValueError(f"{self}: at least 100 messages, some time before, none below 0")

    def measure(self, _checkpoint: str, _threads: int, _speech: str) -> Outcome:
        """Errors without a type, connections that were closed without a word, faults in the
        gateway's log, what it does not give back, and how the good caller fared."""
        with GatewayProcess(_ROOM, tenants=_TENANTS, **_LIMITS) as gateway:
            files, caller = gateway.open_files(), WebCaller(gateway.port, "live", key="good")
            seen = asyncio.run(self._attack(gateway, caller))
            sessions = gateway.wait_for_sessions(0)
            files = gateway.open_files() - files
            faults = _faults(gateway.log)
        before = [took_s for said_s, took_s in answered_s(caller) if said_s < seen.begun_s]
        ends_s = seen.over_s - _LAST_S
        said = [number for number, at_s in enumerate(caller.said) if seen.begun_s <= at_s < ends_s]
        told = [took_s for said_s, took_s in answered_s(caller) if seen.begun_s <= said_s < ends_s]
        unanswered = {*said} - {stamp_of(pcm).number for pcm, _ in caller.had}
        found, first = seen.found, seen.memory[int(_WARM * len(seen.memory))]
        growth, late = seen.memory[-1] / first - 1, np.mean([took_s > FRAME_S for took_s in told])
        metrics = {
            "hostile_untyped": exact(len(found.untyped), found.errors, "errors"),
            "hostile_abrupt": exact(found.abrupt, found.closes.total(), "connections"),
            "hostile_faults": exact(faults, found.messages, "faults"),
            "hostile_sessions_left": exact(sessions, found.messages, "sessions"),
            "hostile_files_left": exact(files, found.messages, "files"),
            "hostile_deaf_left": exact(seen.deaf_left, 5 * self.deaf or 1, "files"),
            "hostile_memory_growth": exact(growth, len(seen.memory), "share"),
            "hostile_unanswered": exact(len(unanswered), len(said), "frames"),
            "hostile_late": exact(float(late), len(told), "share"),
        }
        metrics |= quantiles_ms(before, "hostile_answered_ms_before")
        metrics |= quantiles_ms(told, "hostile_answered_ms_during")
        notes = (
            f"hostile: {found.messages} messages in {seen.over_s - seen.begun_s:.0f} s, "
            f"{found.errors} errors; closed with {dict(found.closes)}; "
            f"refused {dict(found.refused)}",
            f"hostile: who floods is told {dict(seen.flooded)}",
        )
        return Outcome(metrics, notes=notes)

    async def _attack(self, gateway: GatewayProcess, caller: WebCaller) -> _Seen:
        """The good caller talks all the time. Those who are deaf stay until the end."""
        loop, port, memory = asyncio.get_running_loop(), gateway.port, list[float]()
        spawn = multiprocessing.get_context("spawn")
        # What others do themselves is not to keep the gateway from its work.
        with ProcessPoolExecutor(3, spawn, initializer=os.nice, initargs=(_NICE,)) as pool:
            list(pool.map(time.sleep, [_START_S] * 3))  # all three are there
            async with caller:
                frames = numbered(int(_LONGEST_S / FRAME_S))
                talking = asyncio.create_task(caller.say(frames, FRAME_S))
                files = gateway.open_files()
                await asyncio.sleep(self.before_s)
                begun_s = time.monotonic()
                await loop.run_in_executor(pool, deaf, port, "others", self.deaf)
                attacking = loop.run_in_executor(pool, attack, port, "fuzz", self.messages, 0)
                flooding = loop.run_in_executor(pool, flood, port, "others", self.messages // 20)
                while not (attacking.done() and flooding.done()):
                    memory.append(gateway.resident_mib())
                    await asyncio.sleep(_EACH_S)
                over_s = time.monotonic()
                while gateway.open_files() > files and time.monotonic() < over_s + self.settle_s:
                    await asyncio.sleep(_EACH_S)
                memory.append(gateway.resident_mib())
                talking.cancel()
                deaf_left = gateway.open_files() - files
            return _Seen(begun_s, over_s, await attacking, await flooding, memory, deaf_left)


def _faults(log: str) -> int:
    """Tracebacks in it, but for those that uvicorn writes where a text is none."""
    return sum("Traceback" in one and "Invalid UTF-8" not in one for one in log.splitlines())
