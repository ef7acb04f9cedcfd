"""A caller like any other, while others send what makes no sense, do not read, or say nothing."""

import asyncio
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Sequence
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
_EACH_S = 0.5  # from one look at the gateway to the next
_LAST_S = 1.0  # whose answers may still be under way


@dataclass
class _Attack:
    """From when until when there were others, and what they found; MiB of the gateway's when all
    was as before; sockets that it still has for those who are deaf."""

    begun_s: float
    over_s: float
    found: Found
    flooded: Counter[str]
    memory: float
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
        gateway's log, what it does not give back, and how the good caller fared. There are two
        attacks, each of half of the messages: what malloc keeps of the first does for the other."""
        with GatewayProcess(_ROOM, tenants=_TENANTS, **_LIMITS) as gateway:
            sockets, caller = gateway.open_sockets(), WebCaller(gateway.port, "live", key="good")
            attacks = asyncio.run(self._attacks(gateway, caller))
            sessions = gateway.wait_for_sessions(0)
            sockets = gateway.open_sockets() - sockets
            faults = _faults(gateway.log)
        before = [took_s for said_s, took_s in answered_s(caller) if said_s < attacks[0].begun_s]
        told = [took_s for said_s, took_s in answered_s(caller) if _is_during(said_s, attacks)]
        said = [number for number, at_s in enumerate(caller.said) if _is_during(at_s, attacks)]
        unanswered = {*said} - {stamp_of(pcm).number for pcm, _ in caller.had}
        messages = sum(one.found.messages for one in attacks)
        errors = sum(one.found.errors for one in attacks)
        closes = sum((one.found.closes for one in attacks), Counter[int]())
        growth = attacks[1].memory / attacks[0].memory - 1
        late = float(np.mean([took_s > FRAME_S for took_s in told]))
        deaf_left = max(one.deaf_left for one in attacks)
        metrics = {
            "hostile_untyped": exact(sum(len(a.found.untyped) for a in attacks), errors, "errors"),
            "hostile_abrupt": exact(
                sum(one.found.abrupt for one in attacks), closes.total(), "connections"
            ),
            "hostile_faults": exact(faults, messages, "faults"),
            "hostile_sessions_left": exact(sessions, messages, "sessions"),
            "hostile_sockets_left": exact(sockets, messages, "sockets"),
            "hostile_deaf_left": exact(deaf_left, 5 * self.deaf or 1, "sockets"),
            "hostile_memory_growth": exact(growth, len(attacks), "share"),
            "hostile_unanswered": exact(len(unanswered), len(said), "frames"),
            "hostile_late": exact(late, len(told), "share"),
        }
        metrics |= quantiles_ms(before, "hostile_answered_ms_before")
        metrics |= quantiles_ms(told, "hostile_answered_ms_during")
        took_s = sum(one.over_s - one.begun_s for one in attacks)
        flooded = sum((one.flooded for one in attacks), Counter[str]())
        notes = (
            f"hostile: {messages} messages in {took_s:.0f} s, {errors} errors; closed with "
            f"{dict(closes)}; memory {attacks[0].memory:.0f}, then {attacks[1].memory:.0f} MiB",
            f"hostile: who floods is told {dict(flooded)}",
        )
        return Outcome(metrics, notes=notes)

    async def _attacks(self, gateway: GatewayProcess, caller: WebCaller) -> list[_Attack]:
        """The good caller talks all the time. Those who are deaf stay until the end."""
        spawn = multiprocessing.get_context("spawn")
        # What others do themselves is not to keep the gateway from its work.
        with ProcessPoolExecutor(3, spawn, initializer=os.nice, initargs=(_NICE,)) as pool:
            list(pool.map(time.sleep, [_START_S] * 3))  # all three are there
            async with caller:
                frames = numbered(int(_LONGEST_S / FRAME_S))
                talking = asyncio.create_task(caller.say(frames, FRAME_S))
                sockets = gateway.open_sockets()
                await asyncio.sleep(self.before_s)
                attacks = [await self._attack(gateway, pool, sockets, seed) for seed in (0, 1)]
                talking.cancel()
        return attacks

    async def _attack(
        self, gateway: GatewayProcess, pool: ProcessPoolExecutor, sockets: int, seed: int
    ) -> _Attack:
        loop, port, begun_s = asyncio.get_running_loop(), gateway.port, time.monotonic()
        await loop.run_in_executor(pool, deaf, port, "others", self.deaf)
        attacking = loop.run_in_executor(pool, attack, port, "fuzz", self.messages // 2, seed)
        flooding = loop.run_in_executor(pool, flood, port, "others", self.messages // 40)
        found, flooded = await attacking, await flooding
        over_s = time.monotonic()
        while gateway.open_sockets() > sockets and time.monotonic() < over_s + self.settle_s:
            await asyncio.sleep(_EACH_S)
        left = (gateway.resident_mib(), gateway.open_sockets() - sockets)
        return _Attack(begun_s, over_s, found, flooded, *left)


def _is_during(at_s: float, attacks: Sequence[_Attack]) -> bool:
    return any(one.begun_s <= at_s < one.over_s - _LAST_S for one in attacks)


def _faults(log: str) -> int:
    """Tracebacks in it, but for those that uvicorn writes where a text is none."""
    return sum("Traceback" in one and "Invalid UTF-8" not in one for one in log.splitlines())
