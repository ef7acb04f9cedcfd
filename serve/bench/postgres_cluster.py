"""A PostgreSQL server of our own, for as long as it is needed."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import psycopg

_START_S = 30.0
_DEBIAN = "/usr/lib/postgresql"


class PostgresCluster:
    """Ready at `url` when it is entered, over a socket in a folder of its own that goes with it.
    PostgreSQL refuses to run as root: root runs it as its package's user `postgres`.

    Raises FileNotFoundError where PostgreSQL is not installed.
    """

    def __init__(self) -> None:
        folders = [*os.get_exec_path(), *map(str, sorted(Path(_DEBIAN).glob("*/bin"))[::-1])]
        initdb = shutil.which("initdb", path=os.pathsep.join(folders))
        if initdb is None:
            raise FileNotFoundError("PostgreSQL is not installed (Debian: postgresql)")
        self._initdb = Path(initdb).resolve()
        self._user = "postgres" if os.geteuid() == 0 else None

    def __enter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="postgres-")
        if self._user:
            shutil.chown(self._folder, self._user)
        self.url = f"postgresql://postgres@/postgres?host={self._folder}"
        self._data = f"{self._folder}/data"
        self._run(self._initdb, "-D", self._data, "-U", "postgres", "-A", "trust", "-N").wait()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """The server, and waits until it answers. Raises RuntimeError where it does not."""
        options = ("-k", self._folder, "-c", "listen_addresses=")
        self._server = self._run(self._initdb.with_name("postgres"), "-D", self._data, *options)
        ends_s = time.monotonic() + _START_S
        while self._server.poll() is None and time.monotonic() < ends_s:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.02)
        log = Path(self._folder, "log").read_text()
        raise RuntimeError(f"PostgreSQL did not start: {log[-1000:]}")

    def kill(self) -> None:
        """All its processes, as a machine that fails does: with SIGKILL."""
        try:
            server = psutil.Process(self._server.pid)
            processes = [server, *server.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            process.kill()
        self._server.wait()
        psutil.wait_procs(processes)

    def _run(self, program: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with Path(self._folder, "log").open("a") as log:
            return subprocess.Popen(
                [program, *arguments], cwd=self._folder, user=self._user, stdout=log, stderr=log
            )
