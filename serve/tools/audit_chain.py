"""What a line of the audit log is, how one follows another, and how a log is checked.

A line's hash covers all of it, the hash of the line before too, but of its details only their
hash: so details may be erased later, and the chain still holds. That hash is salted, so that
nobody finds erased details by trying all that they might have been. Pruning takes lines from the
beginning. What was erased and what was pruned is itself said by a later line of the log.
"""

import dataclasses
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from serve.tools.journal import Entry

ERASED, PRUNED = "audit.erased", "audit.pruned"  # kinds of lines that tell what was done to others


@dataclass(frozen=True)
class Line:
    """`place` counts from 1; `time` is UTC as ISO 8601 with microseconds. `salt` and `details`
    (canonical JSON) are None once they are erased. `previous` is the hash of the line before, ""
    in the first. All hashes are in hex."""

    place: int
    time: str
    tenant: str
    session: str
    call_id: str
    kind: str
    actor: str
    before: str
    after: str
    salt: str | None
    details: str | None
    details_hash: str
    previous: str
    hash: str

    @property
    def is_erased(self) -> bool:
        """Whether its details are gone."""
        return self.salt is None and self.details is None

    def as_json(self) -> dict[str, Any]:
        """Details as an object, None once they are erased."""
        details = None if self.details is None else json.loads(self.details)
        return dataclasses.asdict(self) | {"details": details}


COLUMNS = tuple(field.name for field in dataclasses.fields(Line))
_OF_ENTRY = tuple(field.name for field in dataclasses.fields(Entry) if field.name != "details")


@dataclass(frozen=True)
class Written:
    """An entry as it will stand in a log, but for its place."""

    entry: Entry
    details: str
    time: str

    @classmethod
    def now(cls, entry: Entry) -> "Written":
        """Raises ValueError or TypeError on what no log can hold."""
        for name in _OF_ENTRY:
            if not (text := getattr(entry, name)).isprintable():
                raise ValueError(f"{name} {text!r} must be printable")
        return cls(entry, canonical(entry.details), iso(datetime.now(UTC)))


def iso(time: datetime) -> str:
    """As times are written in a log: sorted as text they are sorted in time."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(value: Mapping[str, Any]) -> str:
    """The one way to write it as JSON, in ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def follow(last: Line | None, written: Written, key: bytes) -> Line:
    """The line behind `last`. With a `key`, nobody who has not got it can make one."""
    salt = secrets.token_hex(16)
    line = Line(
        place=1 if last is None else last.place + 1,
        time=written.time,
        **{name: getattr(written.entry, name) for name in _OF_ENTRY},
        salt=salt,
        details=written.details,
        details_hash=_details_hash(salt, written.details),
        previous="" if last is None else last.hash,
        hash="",
    )
    return dataclasses.replace(line, hash=_hash(line, key))


def fault_of(line: Line, key: bytes) -> str:
    """What is wrong within a line; "" where nothing is."""
    if not hmac.compare_digest(str(line.hash).encode(errors="replace"), _hash(line, key).encode()):
        return "its hash is another (it was changed, or the key is another)"
    if not line.is_erased and line.details_hash != _details_hash(line.salt, line.details):
        return "its details were changed"
    return ""


@dataclass(frozen=True)
class Verdict:
    """What came of checking a log. `fault` names the first line that is wrong, "" where none is;
    `head` is the hash of the last line."""

    fault: str
    lines: int
    erased: int
    head: str


def check(lines: Iterable[Line], key: bytes, head: str = "") -> Verdict:
    """Of a whole log. With a `head` that was remembered from before, lines that were cut from the
    end since are noticed too. Where a line was changed, what other lines say of erasing and
    pruning is not looked at."""
    first = last = None
    count, erased, attested, pruned = 0, [], set(), None
    is_head_there = not head
    for line in lines:
        if fault := _fault_behind(last, line, key):
            return Verdict(fault, count, len(erased), last.hash if last else "")
        if line.kind == ERASED:
            attested.update(line.as_json()["details"]["places"])
        elif line.kind == PRUNED:
            pruned = line.as_json()["details"]
        if line.is_erased:
            erased.append(line.place)
        is_head_there = is_head_there or line.hash == head
        first, last, count = first or line, line, count + 1
    fault = ""
    if first and first.place > 1 and pruned != {"place": first.place - 1, "hash": first.previous}:
        fault = f"line {first.place - 1} is missing, and no line says that it was pruned"
    elif missing := [place for place in erased if place not in attested]:
        fault = f"line {missing[0]}: its details are gone, and no line says that they were erased"
    elif not is_head_there:
        place = last.place if last else 0
        fault = f"line {place + 1} is missing: none before it has the remembered hash"
    return Verdict(fault, count, len(erased), last.hash if last else "")


def _fault_behind(last: Line | None, line: Line, key: bytes) -> str:
    if fault := fault_of(line, key):
        return f"line {line.place}: {fault}"
    if last and line.place != last.place + 1:
        return f"line {last.place + 1} is missing"
    if line.kind in (ERASED, PRUNED) and line.is_erased:
        return f"line {line.place}: its details are gone"
    if line.previous != (last.hash if last else "") and (last or line.place == 1):
        return f"line {line.place} does not follow on the line before: one of them was changed"
    return ""


def _hash(line: Line, key: bytes) -> str:
    covered = {
        name: value for name, value in vars(line).items() if name not in ("salt", "details", "hash")
    }
    text = _any_json(covered)
    return hmac.digest(key, text, "sha256").hex() if key else hashlib.sha256(text).hexdigest()


def _details_hash(salt: str | None, details: str | None) -> str:
    return hashlib.sha256(_any_json([salt, details])).hexdigest()


def _any_json(value: object) -> bytes:
    # In a damaged database there may be bytes where text was.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr).encode()
