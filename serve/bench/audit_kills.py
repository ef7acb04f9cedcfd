"""An audit log whose writer, and whose database, is killed while it writes; and how long it takes.

`python -m serve.bench.audit_kills LOG FILE` is the writer: it never ends, and of each effect that
it has it writes to FILE which line of the log was there before.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from serve.bench.postgres_cluster import PostgresCluster
from serve.tools.audit import Audit
from serve.tools.audit_database import opened
from serve.tools.audit_upkeep import verify
from serve.tools.journal import Entry
from train.intervals import Metric, exact
from train.report import Outcome

_SESSIONS = 8  # that write at once, while they are killed
_LIVES_S = 0.05  # at most, from its first effect on
_START_S = 60.0
_EACH_S = 0.1  # between two entries of a session whose time is taken
_ENTRY = Entry("shop", "s", "c", "call", "agent", "committed", "running", {"tool": "book"})


@dataclass(frozen=True)
class AuditKills:
    """So many `cycles` of writing and SIGKILL: in SQLite of the writer, in PostgreSQL of the writer
    and every second time of the server before. Then `sessions` write for `seconds`, not killed."""

    cycles: int
    sessions: int
    seconds: float

    def __post_init__(self) -> None:
        if min(vars(self).values()) <= 0:
            raise ValueError(f"{self}: all must be above 0")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """Kills after which the log is not whole; effects without their line; milliseconds that an
        entry takes. Without PostgreSQL those of SQLite alone."""
        with TemporaryDirectory() as folder:
            metrics = self._measure(Path(folder), "sqlite", f"{folder}/audit.db", None)
            try:
                cluster = PostgresCluster()
            except FileNotFoundError as error:
                return Outcome(metrics, notes=(f"audit_postgres: {error}",))
            with cluster:
                metrics |= self._measure(Path(folder), "postgres", cluster.url, cluster)
        return Outcome(metrics)

    def _measure(
        self, folder: Path, name: str, url: str, server: PostgresCluster | None
    ) -> dict[str, Metric]:
        effects = folder / name
        effects.touch()
        broken = 0
        for cycle in tqdm(range(self.cycles), unit="kill", desc=f"audit {name}"):
            is_server_killed = server is not None and cycle % 2 == 1
            _write_and_die(url, effects, cycle, server if is_server_killed else None)
            broken += bool(verify(url).fault)
        took_ms = 1000 * np.array(asyncio.run(self._append(url)))
        lost, count = _without_line(url, effects)
        return {
            f"audit_{name}_kills_broken": exact(broken, self.cycles, "kills"),
            f"audit_{name}_kills_lost": exact(lost, count, "effects"),
            f"audit_{name}_append_ms_p50": exact(np.percentile(took_ms, 50), len(took_ms), "ms"),
            f"audit_{name}_append_ms_p99": exact(np.percentile(took_ms, 99), len(took_ms), "ms"),
        }

    async def _append(self, url: str) -> list[float]:
        audit, took_s = Audit(url), []

        async def write(rng: random.Random) -> None:
            for _ in range(int(self.seconds / _EACH_S)):
                await asyncio.sleep(rng.uniform(0, 2 * _EACH_S))
                begun_s = time.perf_counter()
                await audit.append(_ENTRY)
                took_s.append(time.perf_counter() - begun_s)

        await asyncio.gather(*(write(random.Random(seed)) for seed in range(self.sessions)))
        audit.close()
        return took_s


def _write_and_die(url: str, effects: Path, seed: int, server: PostgresCluster | None) -> None:
    before, ends_s = effects.stat().st_size, time.monotonic() + _START_S
    command = [sys.executable, "-m", "serve.bench.audit_kills", url, effects]
    with subprocess.Popen(command) as writer:
        try:
            while effects.stat().st_size == before:
                if writer.poll() is not None or time.monotonic() > ends_s:
                    raise RuntimeError("the writer of an audit log does not write")
                time.sleep(0.001)
            time.sleep(random.Random(seed).uniform(0, _LIVES_S))
            if server:
                server.kill()
        finally:
            writer.kill()
    if server:
        server.start()


def _without_line(url: str, effects: Path) -> tuple[int, int]:
    """Effects that have none, of how many."""
    told = effects.read_text().splitlines()
    with opened(url) as database:
        there = {f"{line.place} {line.call_id}" for line in database.lines()}
    return len(set(told) - there), len(told)


async def _have_effects(url: str, effects: str) -> None:
    audit = Audit(url)
    file = os.open(effects, os.O_WRONLY | os.O_APPEND)

    async def have() -> None:
        while True:
            entry = Entry("shop", "s", uuid.uuid4().hex, "call", "agent", "committed", "running")
            try:
                place = await audit.append(entry)
            except OSError:  # the server is down: no effect
                await asyncio.sleep(0.01)
                continue
            os.write(file, f"{place} {entry.call_id}\n".encode())

    await asyncio.gather(*(have() for _ in range(_SESSIONS)))


if __name__ == "__main__":
    asyncio.run(_have_effects(*sys.argv[1:]))
