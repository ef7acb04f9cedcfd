"""Where an audit log is: an SQLite file, or a PostgreSQL database. Both refuse to change lines."""

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from serve.tools.audit_chain import COLUMNS, Line

# Of an SQLite file. Where its schema is damaged, not even the error's message is text.
DAMAGES = (sqlite3.Error, UnicodeDecodeError)
_PATIENCE_S = 5  # for other processes that write, and for a server that does not answer
_TABLE = """CREATE TABLE audit (
    place bigint PRIMARY KEY,
    time text NOT NULL, tenant text NOT NULL, session text NOT NULL, call_id text NOT NULL,
    kind text NOT NULL, actor text NOT NULL, before text NOT NULL, after text NOT NULL,
    salt text, details text, details_hash text NOT NULL, previous text NOT NULL,
    hash text NOT NULL
)"""
_INDICES = (
    "CREATE INDEX audit_by_call ON audit (call_id, place)",
    "CREATE INDEX audit_by_session ON audit (session, place)",
)


@dataclass(frozen=True)
class Selection:
    """Lines that have these; None is any. `since` and `until` (exclusive) are as a line's time."""

    tenant: str | None = None
    session: str | None = None
    call_id: str | None = None
    since: str | None = None
    until: str | None = None

    def as_sql(self) -> tuple[str, list[object]]:
        """A condition, and what stands for its question marks."""
        compared = {
            "tenant = ?": self.tenant,
            "session = ?": self.session,
            "call_id = ?": self.call_id,
            "time >= ?": self.since,
            "time < ?": self.until,
        }
        given = {test: value for test, value in compared.items() if value is not None}
        return " AND ".join(given) or "1 = 1", list(given.values())


class Database(ABC):
    """A connection, for one thread. Statements have `?` for values."""

    @abstractmethod
    def set_up(self) -> None:
        """Comes first."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more is asked of it."""

    @abstractmethod
    def create(self) -> None:
        """A new log, unless there is one."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether this connection still leads to the log."""

    @abstractmethod
    def execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        """A cursor."""

    @abstractmethod
    def execute_each(self, statement: str, values: Sequence[Sequence[object]]) -> None:
        """Once with each."""

    @abstractmethod
    def rows(self, query: str, values: Sequence[object]) -> Iterator[Sequence[Any]]:
        """As they were at one moment, not all in memory at once."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, while nobody else appends; on disk once it has ended."""

    @abstractmethod
    def unguarded(self) -> AbstractContextManager[None]:
        """A transaction that may change lines."""

    @abstractmethod
    def tidy(self) -> None:
        """Now and then, while nobody waits for what was written."""

    @abstractmethod
    def damage(self) -> str:
        """What is wrong with the database itself, "" for nothing."""

    def lines(
        self,
        selection: Selection = Selection(),
        most: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[Line]:
        """In order."""
        condition, values = selection.as_sql()
        order = "DESC" if newest_first else "ASC"
        query = f"SELECT {', '.join(COLUMNS)} FROM audit WHERE {condition} ORDER BY place {order}"
        if most is not None:
            query, values = f"{query} LIMIT ?", [*values, most]
        return (Line(*row) for row in self.rows(query, values))

    def last(self) -> Line | None:
        """The line that the next one follows."""
        row = self.execute(
            f"SELECT {', '.join(COLUMNS)} FROM audit ORDER BY place DESC LIMIT 1"
        ).fetchone()
        return row and Line(*row)

    def insert(self, lines: Sequence[Line]) -> None:
        """Behind the last one."""
        marks = ", ".join("?" for _ in COLUMNS)
        statement = f"INSERT INTO audit ({', '.join(COLUMNS)}) VALUES ({marks})"
        self.execute_each(statement, [[getattr(line, name) for name in COLUMNS] for line in lines])


# Names and occasions. To insert a line in place of another would not count as to delete that.
_SQLITE_GUARDS = (
    ("audit_no_update", "BEFORE UPDATE ON audit"),
    ("audit_no_delete", "BEFORE DELETE ON audit"),
    (
        "audit_no_replacement",
        "BEFORE INSERT ON audit WHEN new.place <= (SELECT max(place) FROM audit)",
    ),
)


class Sqlite(Database):
    """The file at `path`, which must be there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = sqlite3.connect(
            f"file:{quote(path)}?mode=rw", timeout=_PATIENCE_S, isolation_level=None, uri=True
        )
        self._file = self._identity()
        # A damaged text must be read as what it is, not be an error somewhere on the way.
        self._connection.text_factory = lambda text: text.decode(errors="surrogateescape")

    def set_up(self) -> None:
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = FULL")
        self.execute("PRAGMA wal_autocheckpoint = 0")  # which is done while somebody waits: `tidy`
        self.execute("PRAGMA secure_delete = ON")  # what is erased is not to stay in the file

    def close(self) -> None:
        self._connection.close()

    def create(self) -> None:
        with self.transaction():
            if not self.execute("SELECT 1 FROM sqlite_schema WHERE name = 'audit'").fetchone():
                # This `INTEGER PRIMARY KEY` is the rowid: places are never given out twice.
                table = _TABLE.replace("bigint", "INTEGER")
                for statement in (f"{table} STRICT", *_INDICES):
                    self.execute(statement)
                self._guard()

    def is_there(self) -> bool:
        return self._identity() == self._file

    def execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        return self._connection.execute(statement, values)

    def execute_each(self, statement: str, values: Sequence[Sequence[object]]) -> None:
        self._connection.executemany(statement, values)

    def rows(self, query: str, values: Sequence[object]) -> Iterator[Sequence[Any]]:
        yield from self.execute(query, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection:
            self.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        with self.transaction():
            for name, _ in _SQLITE_GUARDS:
                self.execute(f"DROP TRIGGER {name}")
            yield
            self._guard()
        # What was erased is in the journal too.
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def tidy(self) -> None:
        self.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def damage(self) -> str:
        found = [text for (text,) in self.execute("PRAGMA integrity_check")]
        return "" if found == ["ok"] else "; ".join(found)

    def _identity(self) -> tuple[int, int]:
        status = os.stat(self._path)
        return status.st_dev, status.st_ino

    def _guard(self) -> None:
        refusal = "SELECT RAISE(ABORT, 'the audit log only grows')"
        for name, occasion in _SQLITE_GUARDS:
            self.execute(f"CREATE TRIGGER {name} {occasion} BEGIN {refusal}; END")


_POSTGRES_GUARD = """
    CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$;
    CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
    REVOKE UPDATE, DELETE, TRUNCATE ON audit FROM PUBLIC, CURRENT_USER"""


class Postgres(Database):
    """The table `audit` of a database."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(
            url, autocommit=True, connect_timeout=_PATIENCE_S,
            tcp_user_timeout=1000 * _PATIENCE_S,
        )  # fmt: skip

    def set_up(self) -> None:
        self.execute("SET synchronous_commit = on")
        self.execute(f"SET lock_timeout = '{_PATIENCE_S}s'")

    def close(self) -> None:
        self._connection.close()

    def create(self) -> None:
        with self.transaction():
            if self.execute("SELECT to_regclass('audit')").fetchone() == (None,):
                for statement in (_TABLE, *_INDICES, _POSTGRES_GUARD):
                    self.execute(statement)

    def is_there(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        return self._connection.execute(_marked(statement), values or None)

    def execute_each(self, statement: str, values: Sequence[Sequence[object]]) -> None:
        self._connection.cursor().executemany(_marked(statement), values)

    def rows(self, query: str, values: Sequence[object]) -> Iterator[Sequence[Any]]:
        with self._connection.cursor("audit", withhold=True) as cursor:
            yield from cursor.execute(_marked(query), values or None)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            # A table's own lock would need more rights than to insert.
            self.execute("SELECT pg_advisory_xact_lock(hashtext('audit'))")
            yield

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        with self.transaction():
            self.execute("ALTER TABLE audit DISABLE TRIGGER audit_only_grows")
            self.execute("GRANT UPDATE, DELETE ON audit TO CURRENT_USER")
            yield
            self.execute("REVOKE UPDATE, DELETE ON audit FROM CURRENT_USER")
            self.execute("ALTER TABLE audit ENABLE TRIGGER audit_only_grows")

    def tidy(self) -> None:
        pass

    def damage(self) -> str:
        return ""


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """A log that is there: `postgresql://...`, or else a path. Whatever a database can't do, is an
    OSError here."""
    try:
        database = Postgres(url) if _is_postgres(url) else Sqlite(url)
        with closing(database):
            database.set_up()
            yield database
    except (*DAMAGES, psycopg.Error) as error:
        raise OSError(f"the audit log can't be read or written: {str(error).strip()}") from error


def create(url: str) -> None:
    """A new log, unless there is one. Raises OSError."""
    if not _is_postgres(url):
        # Only for its owner: SQLite gives its other files the same rights.
        Path(url).touch(mode=0o600)
    with opened(url) as database:
        database.create()


def _marked(statement: str) -> bytes:
    """As psycopg wants it."""
    return statement.replace("?", "%s").encode()


def _is_postgres(url: str) -> bool:
    return url.startswith(("postgresql://", "postgres://"))
