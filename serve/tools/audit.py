"""The audit log: append-only, hash-chained, on disk before anything comes of an entry."""

import asyncio
import threading
from concurrent.futures import Future
from queue import SimpleQueue

from serve.tools import audit_database
from serve.tools.audit_chain import Line, Written, fault_of, follow
from serve.tools.audit_database import Database, Selection, opened
from serve.tools.journal import Entry

_MOST_AT_ONCE = 1000  # entries of one transaction
_MOST_WAITING = 100_000
_TIDY_EACH = 500  # entries


class Audit:
    """A Journal at `url`: `postgresql://...`, or the path of an SQLite file, made where there is
    none. `key` makes a chain that nobody can make without it.

    One thread writes. Entries that come while it does are written together after that. Several
    processes may have the same log.
    """

    def __init__(self, url: str, key: bytes = b"") -> None:
        """Raises OSError where it can't be opened, ValueError where it is another key's."""
        self._url, self._key = url, key
        audit_database.create(url)
        with opened(url) as database:
            last = database.last()
        if last and (fault := fault_of(last, key)):
            raise ValueError(f"the audit log's line {last.place}: {fault}")
        self._place = last.place if last else 0  # of the last line that is known
        self._waiting: SimpleQueue[tuple[Written, Future[int]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._keep_writing, name="audit", daemon=True)
        self._thread.start()

    async def append(self, entry: Entry) -> int:
        """As in Journal. Raises ValueError or TypeError on what no log can hold. Where it is
        cancelled, the entry is written or not."""
        written = Written.now(entry)
        if not self._thread.is_alive() or self._waiting.qsize() >= _MOST_WAITING:
            raise OSError("the audit log is closed, or too many wait for it")
        future: Future[int] = Future()
        self._waiting.put((written, future))
        return await asyncio.wrap_future(future)

    async def trail(self, call_id: str) -> list[Line]:
        """All that happened to a call. Raises OSError."""
        return await asyncio.to_thread(self._read, Selection(call_id=call_id), None)

    async def recent(self, session: str, most: int = 100) -> list[Line]:
        """The last lines of a session's, in order. Raises OSError."""
        return await asyncio.to_thread(self._read, Selection(session=session), most)

    def close(self) -> None:
        """Once all that waits is written."""
        self._waiting.put(None)
        self._thread.join()

    def _read(self, selection: Selection, most: int | None) -> list[Line]:
        with opened(self._url) as database:
            return [*database.lines(selection, most, newest_first=True)][::-1]

    def _keep_writing(self) -> None:
        group, untidy = self._next_group(), 0
        while group:
            try:
                with opened(self._url) as database:
                    while group and database.is_there():
                        self._write(database, group)
                        untidy += len(group)
                        if untidy >= _TIDY_EACH:
                            group, untidy = [], 0  # nobody waits if that fails
                            database.tidy()
                        group = self._next_group()
            except Exception as error:  # whatever it is, nobody may wait for ever
                for _, future in group:
                    future.set_exception(OSError(f"not written: {error}"))
                group = self._next_group()

    def _next_group(self) -> list[tuple[Written, Future[int]]]:
        """All that wait; none once the log is closed."""
        group = []
        while not group or (len(group) < _MOST_AT_ONCE and not self._waiting.empty()):
            one = self._waiting.get()
            if one is None:
                if group:
                    self._waiting.put(None)
                break
            if one[1].set_running_or_notify_cancel():
                group.append(one)
        return group

    def _write(self, database: Database, group: list[tuple[Written, Future[int]]]) -> None:
        lines = []
        with database.transaction():
            last = database.last()
            if (last.place if last else 0) < self._place:
                raise OSError(f"line {self._place} of the audit log has gone")
            for written, _ in group:
                last = follow(last, written, self._key)
                lines.append(last)
            database.insert(lines)
        self._place = lines[-1].place
        for (_, future), line in zip(group, lines, strict=True):
            future.set_result(line.place)
