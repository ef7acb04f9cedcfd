"""The real server over an engine with a scripted agent, each in a process of its own."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

_TESTS = Path(__file__).parent


@contextlib.contextmanager
def scripted_engine(address: str, slots: int = 4) -> Iterator[subprocess.Popen[str]]:
    """Ready when it is entered."""
    command = [sys.executable, str(_TESTS / "scripted_engine.py"), address, str(slots)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        try:
            assert engine.stdout is not None
            assert engine.stdout.readline()
            yield engine
        finally:
            engine.kill()


@contextlib.contextmanager
def scripted_server(*overrides: str, slots: int = 4) -> Iterator[str]:
    """Its address, `http://127.0.0.1:PORT`; `overrides` are those of conf/serve.yaml."""
    with TemporaryDirectory() as folder:
        address = f"ipc://{folder}/engine"
        with scripted_engine(address, slots), gateway(address, *overrides) as url:
            yield url


@contextlib.contextmanager
def gateway(address: str, *overrides: str) -> Iterator[str]:
    """The server in front of engines that run already: `address` may be several, with commas."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "serve.run", f"port={port}", f"addresses=[{address}]"]
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(
            [*command, f"tools.audit={folder}/audit.sqlite", *overrides], cwd=_TESTS.parent
        ) as server,
    ):
        try:
            _wait_for(f"{url}/readyz", server)
            yield url
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(5)
            server.kill()


def free_port() -> int:
    """Of TCP, at the moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "the server has ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")
