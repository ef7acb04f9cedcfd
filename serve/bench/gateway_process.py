"""A gateway in a process of its own, as it is deployed, in front of an engine that stands in."""

import hashlib
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import psutil

from serve.bench.engine_process import counted, free_port

_MIB = 2**20
_START_S = 60.0


class GatewayProcess:
    """`python -m serve.run` at `port`, ready when it is entered; `settings` are those of
    conf/serve.yaml. The engine behind it is a stand-in of that `kind` with so many slots. Each
    name of `tenants` is its key as well, with what it is allowed; without any the gateway knows no
    tenants.

    Raises ValueError where it does not start.
    """

    def __init__(
        self,
        slots: int,
        kind: str = "script",
        tenants: Mapping[str, Mapping[str, int]] | None = None,
        **settings: object,
    ) -> None:
        self._folder = TemporaryDirectory()
        self.port = free_port()
        self._log = Path(self._folder.name, "log")
        address = f"ipc://{self._folder.name}/engine"
        given: dict[str, object] = {"tools.audit": Path(self._folder.name, "audit.sqlite")}
        given |= settings | {"port": self.port, "addresses": f"[{address}]"}
        if tenants:
            given["tenants"] = _written(tenants, Path(self._folder.name, "tenants.yaml"))
        self._engine_command = [sys.executable, "-m", "serve.bench.stand_in"]
        self._engine_command += [address, str(slots), kind]
        self._command = [sys.executable, "-m", "serve.run"]
        self._command += [f"{name}={value}" for name, value in given.items()]

    def __enter__(self) -> Self:
        self._engine = subprocess.Popen(self._engine_command, stdout=subprocess.PIPE, text=True)
        try:
            assert self._engine.stdout is not None
            self._engine.stdout.readline()
            with self._log.open("w") as log:
                self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
            self._wait()
        except BaseException:
            self._engine.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._engine.kill()
        self._engine.wait()
        self._folder.cleanup()

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text(errors="replace")

    def resident_mib(self) -> float:
        """Memory that it holds."""
        return psutil.Process(self._process.pid).memory_info().rss / _MIB

    def open_sockets(self) -> int:
        """That it holds, to clients and to its engine."""
        folder = Path(f"/proc/{self._process.pid}/fd")
        return sum(_target(one).startswith("socket:") for one in folder.iterdir())

    def counted(self, name: str) -> float:
        """What it counts under a name of serve/gateway/metrics.py, all labels together."""
        return counted(self.port, name)

    def wait_for_sessions(self, most: int, wait_s: float = 10.0) -> int:
        """Until there are no more than so many, or for so long; how many there are then."""
        ends_s = time.monotonic() + wait_s
        while (count := int(self.counted("duologue_gateway_sessions"))) > most:
            if time.monotonic() > ends_s:
                break
            time.sleep(0.1)
        return count

    def quantile_s(self, name: str, quantile: float) -> float:
        """Of a histogram's: the upper edge of the bucket that it is in, infinite in the last."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as reply:
            told = reply.read().decode()
        buckets = re.findall(rf'^{name}_bucket{{le="(\S+)"}} (\S+)$', told, re.MULTILINE)
        below = [(float(edge), float(count)) for edge, count in buckets]
        return next(edge for edge, count in below if count >= quantile * below[-1][1])

    def _wait(self) -> None:
        ends_s = time.monotonic() + _START_S
        while self.is_alive and time.monotonic() < ends_s:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz"):
                    return
            except OSError:
                time.sleep(0.05)
        self._process.kill()
        raise ValueError(f"the gateway did not start: {self.log[-1000:]}")


def _target(link: Path) -> str:
    """Where it leads, "" where it has gone meanwhile."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def _written(tenants: Mapping[str, Mapping[str, int]], file: Path) -> Path:
    entries = ["tenants:"]
    for name, allowance in tenants.items():
        key = hashlib.sha256(name.encode()).hexdigest()
        rates = ", ".join(f"{what}: {amount}" for what, amount in allowance.items())
        entries.append(f"  - {{name: {name}, keys: ['{key}'], allowance: {{{rates}}}}}")
    file.write_text("\n".join(entries))
    return file
