"""The gateway's own share of latency: one caller in front of an engine that answers at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.frame import FRAME_S
from serve.bench.gateway_process import GatewayProcess
from serve.bench.stand_in import numbered, stamp_of
from serve.bench.web_caller import Protocol, WebCaller
from train.intervals import Metric, exact
from train.report import Outcome, Table

_COLD_FRAMES = 12  # which do not count
_PIECE_S = 0.02  # of sound in a message, as microphones and telephones have it
_QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Wire:
    """A caller of each of `protocols`, one after the other, for so many `seconds`."""

    protocols: tuple[Protocol, ...]
    seconds: float

    def __post_init__(self) -> None:
        if not self.protocols or self.seconds <= _COLD_FRAMES * FRAME_S:
            raise ValueError(f"{self}: must be a protocol and more than {_COLD_FRAMES} frames")
        if "twilio" in self.protocols:
            raise ValueError("protocols: no frame says its number through a telephone (twilio)")

    def measure(self, _checkpoint: str, _threads: int, _speech: str) -> Outcome:
        """From when a client begins to send the message that makes a frame whole until that frame
        is at the engine, and from when the engine begins to answer until the client has it; and
        what the gateway says of itself."""
        metrics, rows = {}, []
        for protocol in self.protocols:
            with GatewayProcess(slots=1) as gateway:
                caller = WebCaller(gateway.port, protocol)
                asyncio.run(_talk(caller, self.seconds))
                for way in ("in", "out"):
                    own_s = gateway.quantile_s(f"duologue_gateway_{way}_seconds", 0.99)
                    count = int(gateway.counted(f"duologue_gateway_{way}_seconds_count"))
                    name = f"gateway_own_{way}_ms_p99_{protocol}"
                    metrics[name] = exact(1000 * min(own_s, 1.0), count, "ms")
            for way, seconds in zip(("in", "out"), shares_s(caller), strict=True):
                found = quantiles_ms(seconds, f"gateway_{way}_ms", f"_{protocol}")
                metrics |= found
                own = f"gateway_own_{way}_ms_p99_{protocol}"
                rows.append((f"{protocol}, {way}", (*found, own)))
        columns = (*_QUANTILES, "p99, as the gateway says it, at most")
        return Outcome(metrics, (Table("The gateway's share of latency", columns, (*rows,)),))


async def _talk(caller: WebCaller, seconds: float) -> None:
    async with caller:
        await caller.say(numbered(round(seconds / FRAME_S)), _PIECE_S)


def shares_s(caller: WebCaller) -> tuple[list[float], list[float]]:
    """Of a caller at 24 kHz with a scripted engine: how long each of his frames and of the answers
    was under way in the gateway, the first ones left out."""
    stamps = [(stamp_of(pcm), had_s) for pcm, had_s in caller.had]
    warm = [(stamp, had_s) for stamp, had_s in stamps if stamp.number >= _COLD_FRAMES]
    came_s = [stamp.came_s - caller.said[stamp.number] for stamp, _ in warm]
    return came_s, [had_s - stamp.went_s for stamp, had_s in warm]


def quantiles_ms(seconds: Sequence[float], prefix: str, suffix: str = "") -> dict[str, Metric]:
    """By names that begin with `prefix`."""
    return {
        f"{prefix}_{name}{suffix}": exact(1000 * np.quantile(seconds, q), len(seconds), "ms")
        for name, q in _QUANTILES.items()
    }
