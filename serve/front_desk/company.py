"""A small company in SQLite, for the front desk to work at.

All that it is made of are values of the domain (`data/domains/front_desk.yaml`), drawn by a seed.
A day is what callers call it: the company keeps no calendar of dates. Numbers that end in 0 were
never given out.
"""

import json
import random
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from data.scripts.slots import read_slot

_DOMAIN = Path(__file__).parents[2] / "data" / "domains" / "front_desk.yaml"
_OPEN = 0.8  # share of a person's days on which nothing is booked at first
_NOON = "12:00"
_TABLES = """
create table orders (order_id text primary key, status text, eta text) without rowid;
create table policies (topic text primary key, answer text) without rowid;
create table busy (person text, day text, time text, primary key (person, day, time)) without rowid;
create table demos (person text, day text, time text, room text, session text);
create table appointments (session text primary key, day text, time text, status text);
create table messages (addressee text, priority text, status text, session text);
create table leads (name text, phone text, interest text, callback text);
create table cancelled_accounts (account_id text primary key, ends text);
create table transfers (department text, session text);
create table handoffs (reason text, session text);
create table written (key text primary key, result text);
"""


class Company:
    """`database` is a file, or `:memory:`. What is in it stays, whatever the seed. Any thread may
    ask: one at a time is answered."""

    def __init__(self, database: str, seed: int) -> None:
        self._seed = seed
        slots = msgspec.yaml.decode(_DOMAIN.read_bytes())["slots"]
        self._slots = {name: read_slot(name, given) for name, given in slots.items()}
        self._lock = threading.Lock()
        self._database = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        with self._transaction() as found:
            if not found.execute("pragma user_version").fetchone()[0]:
                for table in _TABLES.strip().splitlines():
                    found.execute(table)
                self._fill(found, random.Random(seed))
                found.execute("pragma user_version = 1")

    def values(self, slot: str) -> list[str]:
        """What may be named there; of times, every half hour within office hours."""
        if times := self._slots[slot].times:
            half_hours = [f"{hour:02}:{minute}" for hour in range(24) for minute in ("00", "30")]
            return [time for time in half_hours if times[0] <= time <= times[1]]
        return list(self._slots[slot].values or ())

    def draw(self, slot: str, *about: str) -> str:
        """One of its values, always the same for the same."""
        return random.Random(f"{self._seed} {slot} {about}").choice(self.values(slot))

    def rows(self, query: str, *given: str) -> list[tuple[str, ...]]:
        """What a query finds."""
        with self._transaction() as database:
            return database.execute(query, given).fetchall()

    def write_once(
        self, key: str, result: dict[str, Any], statements: Mapping[str, Sequence[str]]
    ) -> dict[str, Any]:
        """Writes by `statements` (with what goes into each) all or nothing, and at most once under
        one key: `result`, or what it was the first time. Raises sqlite3.IntegrityError where what
        would be written is there already."""
        with self._transaction() as database:
            found = database.execute("select result from written where key = ?", [key]).fetchone()
            if found:
                return json.loads(found[0])
            for statement, given in statements.items():
                database.execute(statement, given)
            database.execute("insert into written values (?, ?)", [key, json.dumps(result)])
            return result

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._database:
            self._database.execute("begin immediate")
            yield self._database

    def _fill(self, database: sqlite3.Connection, rng: random.Random) -> None:
        numbers = [f"{number:05}" for number in range(100_000) if number % 10]
        statuses = rng.choices(self.values("order_state"), k=len(numbers))
        etas = rng.choices(self.values("eta"), k=len(numbers))
        orders = zip(numbers, statuses, etas, strict=True)
        database.executemany("insert into orders values (?, ?, ?)", orders)
        for topic in self.values("topic"):
            answer = rng.choice(self.values(f"answer_{topic}"))
            database.execute("insert into policies values (?, ?)", [topic, answer])
        for person in self.values("person"):
            for day in self.values("day"):
                free = "open" if rng.random() < _OPEN else rng.choice(self.values("free"))
                busy = [
                    [person, day, time] for time in self.values("time") if not _is_free(time, free)
                ]
                database.executemany("insert into busy values (?, ?, ?)", busy)

    def free(self, person: str, day: str) -> str:
        """When somebody has time, in the domain's words (slot `free`)."""
        query = "select time from busy where person = ? and day = ?"
        left = {*self.values("time")} - {time for (time,) in self.rows(query, person, day)}
        for words in self.values("free"):
            if all(time in left for time in self.values("time") if _is_free(time, words)):
                return words
        raise AssertionError("nothing is free of `booked`")


def _is_free(time: str, free: str) -> bool:
    """Whether somebody has time then, of whom these words are true."""
    match free:
        case "open":
            return True
        case "morning":
            return time < _NOON
        case "afternoon":
            return time >= _NOON
        case _:
            return time == free  # never where he is booked
