"""What is still to be sent, in an SQLite file: it outlives the process."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from serve.webhooks.events import CloudEvent

T = TypeVar("T")

_DAY_S = 86_400
_KEPT_S = 1 * _DAY_S  # what was delivered; it is not taken once more as long
_GIVEN_UP_S = 7 * _DAY_S
_PATIENCE_S = 5  # for another process that ends
_SETTINGS = (
    "PRAGMA locking_mode = EXCLUSIVE",  # two that send would send twice, in no order
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
)
_TABLES = (
    """CREATE TABLE IF NOT EXISTS events (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE, session TEXT NOT NULL, body BLOB NOT NULL, put_at REAL NOT NULL
    ) STRICT""",
    # Those that are still to come.
    """CREATE TABLE IF NOT EXISTS deliveries (
        place INTEGER NOT NULL, receiver TEXT NOT NULL, PRIMARY KEY (place, receiver)
    ) STRICT, WITHOUT ROWID""",
)


class Delivery(NamedTuple):
    """A receiver is to be sent the event at that place in the outbox."""

    receiver: str
    session: str
    place: int


class Letter(NamedTuple):
    """An event, as JSON."""

    id: str
    body: str


class Outbox:
    """The file at `path`, made where there is none, for one process at a time. One thread does what
    is asked, in order. Everything raises OSError where the file can't be read or written. `clock`
    gives Unix time."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._thread = ThreadPoolExecutor(1, "outbox")

    async def open(self) -> None:
        """Before anything else."""
        await self._in_thread(self._open)

    async def put(self, event: CloudEvent, receivers: Sequence[str]) -> int | None:
        """The event's place, once it is on disk for these (URLs); None where it was there already.
        Raises ValueError or TypeError on what JSON can't hold."""

        def work() -> int | None:
            body = msgspec.json.encode(event)
            row = self._connection.execute(
                "INSERT INTO events (id, session, body, put_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO NOTHING RETURNING place",
                (event.id, event.subject, body, self._clock()),
            ).fetchone()
            if row is None:
                return None
            self._connection.executemany(
                "INSERT INTO deliveries (place, receiver) VALUES (?, ?)",
                [(row[0], receiver) for receiver in receivers],
            )
            return row[0]

        return await self._do(work)

    async def to_come(self) -> list[Delivery]:
        """All deliveries that have not been made, in the order in which they were put."""
        query = "SELECT receiver, session, place FROM deliveries JOIN events USING (place)"
        rows = await self._do(
            lambda: self._connection.execute(f"{query} ORDER BY place").fetchall()
        )
        return [Delivery(*row) for row in rows]

    async def letter(self, place: int) -> Letter | None:
        """None where it has been given up."""
        query = "SELECT id, body FROM events WHERE place = ?"
        row = await self._do(lambda: self._connection.execute(query, (place,)).fetchone())
        return row and Letter(row[0], row[1].decode())

    async def delivered(self, receiver: str, place: int) -> None:
        """It has been taken."""
        statement = "DELETE FROM deliveries WHERE place = ? AND receiver = ?"
        await self._do(lambda: self._connection.execute(statement, (place, receiver)))

    async def tidy(self) -> int:
        """Removes what is old. The number of deliveries that were given up."""

        def work() -> int:
            now_s = self._clock()
            given_up = self._connection.execute(
                "DELETE FROM deliveries WHERE place IN (SELECT place FROM events WHERE put_at < ?)",
                (now_s - _GIVEN_UP_S,),
            ).rowcount
            self._connection.execute(
                "DELETE FROM events WHERE put_at < ?"
                " AND place NOT IN (SELECT place FROM deliveries)",
                (now_s - _KEPT_S,),
            )
            return given_up

        return await self._do(work)

    async def close(self) -> None:
        """Once all that was asked is done."""
        await self._in_thread(lambda: self._connection.close())
        self._thread.shutdown()

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Only for its owner: SQLite gives its other files the same rights.
        self._path.touch(mode=0o600)
        self._connection = sqlite3.connect(
            self._path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
        )
        for statement in (*_SETTINGS, *_TABLES):
            self._connection.execute(statement)

    async def _do(self, work: Callable[[], T]) -> T:
        """All of it or nothing; on disk once it returns."""

        def do() -> T:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                return work()

        return await self._in_thread(do)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise OSError(f"{self._path.name} can't be read or written: {error}") from error
