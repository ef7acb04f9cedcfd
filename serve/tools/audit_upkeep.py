"""What is done to an audit log from outside: it is checked, old lines go, and details are erased.

What goes is told by a line of its own, in the same transaction. Where a log is not whole nothing
goes: the traces would go along.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from serve.tools.audit_chain import ERASED, PRUNED, Line, Verdict, Written, check, follow, iso
from serve.tools.audit_database import DAMAGES, Database, Selection, opened
from serve.tools.call import State
from serve.tools.journal import Entry

_MOST_AT_ONCE = 10_000  # lines of one transaction: whoever appends waits for it


def verify(url: str, key: bytes = b"", head: str = "") -> Verdict:
    """Of a whole log, as `check`. Raises OSError where it can't be opened."""
    with opened(url) as database:
        return _verdict(database, key, head)


def prune(url: str, before: str, actor: str, key: bytes = b"") -> int:
    """Deletes from the beginning all lines up to the first that is not older than `before` (as a
    line's time), and returns how many. Raises OSError; ValueError where the log is not whole, or
    `before` is still to come."""
    if before > iso(datetime.now(UTC)):
        raise ValueError(f"{before} is still to come")
    pruned = 0
    with opened(url) as database:
        _assert_whole(database, key)
        while lines := list(database.lines(most=_MOST_AT_ONCE)):
            old = list(takewhile(lambda line: line.time < before, lines))
            if not old:
                break
            with database.unguarded():
                told = {"place": old[-1].place, "hash": old[-1].hash}
                _tell(database, PRUNED, actor, told, key)
                database.execute("DELETE FROM audit WHERE place <= ?", [old[-1].place])
            pruned += len(old)
    return pruned


def erase(url: str, selection: Selection, actor: str, key: bytes = b"") -> int:
    """Erases the details of these lines, and returns of how many. Raises OSError; ValueError where
    the log is not whole."""
    with opened(url) as database:
        _assert_whole(database, key)
        places = [
            line.place
            for line in database.lines(selection)
            if not line.is_erased and line.kind not in (ERASED, PRUNED)
        ]
        for start in range(0, len(places), _MOST_AT_ONCE):
            some = places[start : start + _MOST_AT_ONCE]
            with database.unguarded():
                _tell(database, ERASED, actor, {"places": some}, key)
                database.execute_each(
                    "UPDATE audit SET salt = NULL, details = NULL WHERE place = ?",
                    [[place] for place in some],
                )
    return len(places)


def unfinished(lines: Iterable[Line]) -> list[Line]:
    """Where calls began that have no end among these lines: nobody knows whether they had their
    effect, where the server that ran them is no more."""
    begun: dict[str, Line] = {}
    for line in lines:
        if line.kind == "call" and line.after == State.RUNNING:
            begun[line.call_id] = line
        elif line.kind == "call":
            begun.pop(line.call_id, None)
    return [*begun.values()]


def _tell(database: Database, kind: str, actor: str, told: dict[str, Any], key: bytes) -> None:
    entry = Entry("", "", "", kind, actor, details=told)
    database.insert([follow(database.last(), Written.now(entry), key)])


def _verdict(database: Database, key: bytes, head: str = "") -> Verdict:
    read = 0

    def lines() -> Iterator[Line]:
        nonlocal read
        for line in database.lines():
            read = line.place
            yield line

    try:
        verdict = check(lines(), key, head)
        return dataclasses.replace(verdict, fault=verdict.fault or database.damage())
    except DAMAGES as error:
        return Verdict(f"line {read + 1} can't be read: {error}", 0, 0, "")


def _assert_whole(database: Database, key: bytes) -> None:
    if fault := _verdict(database, key).fault:
        raise ValueError(f"the audit log is not whole, nothing was done: {fault}")
