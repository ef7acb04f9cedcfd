"""An engine in a process of its own, as it is deployed, that can be asked and killed."""

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import psutil

_MIB = 2**20


class EngineProcess:
    """`python -m serve.engine` at `address`, warmed up when it is entered.

    It lets in whoever there is a slot for; `settings` are those of `EngineConfig`. Raises
    ValueError where it does not start, having said why.
    """

    def __init__(self, checkpoint: str, threads: int, **settings: object) -> None:
        self._folder = TemporaryDirectory()
        self.address = f"ipc://{self._folder.name}/engine"
        self._metrics_port = free_port()
        given = {"checkpoint": checkpoint, "address": self.address, "threads": threads}
        given |= {"metrics_port": self._metrics_port, "engine.most_share": 1000}
        given |= {f"engine.{name}": value for name, value in settings.items()}
        self._command = [sys.executable, "-m", "serve.engine"]
        self._command += [f"{name}={value}" for name, value in given.items()]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise ValueError(f"the engine did not start: {' '.join(self._command)}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def kill(self) -> None:
        """As a machine that fails does: with SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def resident_mib(self) -> float:
        """Memory that it holds."""
        return psutil.Process(self._process.pid).memory_info().rss / _MIB

    def counted(self, name: str) -> float:
        """What it counts under a name of serve/engine/metrics.py, all labels together."""
        return counted(self._metrics_port, name)


def counted(port: int, name: str) -> float:
    """What the process there tells Prometheus under a name, all labels together."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        told = reply.read().decode()
    values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", told, re.MULTILINE)
    return sum(map(float, values))


def free_port() -> int:
    """Of TCP, at the moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
