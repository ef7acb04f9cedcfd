"""How long a call waits in the gateway before its tool begins, and what begins after tools were
switched off."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from model.frame import FRAME_S
from serve.bench.gateway_process import GatewayProcess
from serve.bench.stand_in import CALL_EACH, LOOK_UP
from serve.bench.web_caller import WebCaller
from serve.bench.wire import quantiles_ms
from serve.gateway.audio import AudioFormat
from train.intervals import exact
from train.report import Outcome

_TELEPHONE = AudioFormat("mulaw", 8000)
_OFF_S = 10.0  # that callers go on once tools are off


def tools(file: str) -> list[Callable[..., float]]:
    """One that writes into `file` when it was called for and when it has begun."""

    def look_up(made_s: float) -> float:
        """Says how long its call has waited."""
        began_s = time.monotonic()
        with Path(file).open("a") as written:
            written.write(f"{made_s} {began_s}\n")
        return began_s - made_s

    return [look_up]


@dataclass(frozen=True)
class ToolStart:
    """So many `callers` for so many `seconds`, each of whose agents calls a tool every two."""

    callers: int
    seconds: float

    def __post_init__(self) -> None:
        if self.callers < 1 or self.seconds < 2:
            raise ValueError(f"{self}: must be a caller and 2 seconds")

    def measure(self, _checkpoint: str, _threads: int, _speech: str) -> Outcome:
        """From when the engine begins to send a call that is whole until its function begins, each
        call being in the audit log (SQLite) before; and starts later than a frame after the file
        that switches tools off was there."""
        with TemporaryDirectory() as folder:
            off_s = asyncio.run(self._talk(Path(folder)))
            lines = Path(folder, "begun").read_text().splitlines()
        began = [tuple(map(float, line.split())) for line in lines]
        waited_s = [began_s - made_s for made_s, began_s in began if began_s < off_s]
        late = sum(began_s > off_s + FRAME_S for _, began_s in began)
        metrics = quantiles_ms(waited_s, "tool_start_ms")
        return Outcome(metrics | {"tool_starts_after_off": exact(late, len(began), "calls")})

    async def _talk(self, folder: Path) -> float:
        """When tools were switched off."""
        sound = bytes(round((self.seconds + _OFF_S) * _TELEPHONE.rate_hz))
        with GatewayProcess(slots=self.callers, **_settings(folder)) as gateway:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.callers):
                    caller = WebCaller(gateway.port, "twilio", _TELEPHONE, _TELEPHONE)
                    group.create_task(_call(caller, sound))
                    await asyncio.sleep(CALL_EACH * FRAME_S / self.callers)  # not all at once
                await asyncio.sleep(self.seconds)
                off_s = time.monotonic()
                (folder / "modes").write_text("all off")
        return off_s


async def _call(caller: WebCaller, sound: bytes) -> None:
    async with caller:
        await caller.say(sound, FRAME_S)


def _settings(folder: Path) -> dict[str, Any]:
    """Of the gateway, whose files are in `folder`."""
    make = f"{__name__}:tools"
    settings = {"file": str(folder / "begun")}
    sources = {"bench": {"kind": "functions", "make": make, "settings": settings}}
    policy = {"tools": {LOOK_UP: {"effect": "read", "confirmation": "none", "speculation": True}}}
    files = {"sources": sources, "policy": policy}
    for name, content in files.items():
        (folder / name).write_bytes(msgspec.json.encode(content))  # JSON is YAML
    return {f"tools.{name}": folder / name for name in (*files, "modes")}
