"""The audit log, in SQLite and in PostgreSQL: nothing is lost, and no change goes unnoticed."""

import asyncio
import dataclasses
import json
import os
import resource
import shutil
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serve import audit as command
from serve.bench.audit_kills import AuditKills
from serve.bench.postgres_cluster import PostgresCluster
from serve.tools.audit import Audit
from serve.tools.audit_chain import COLUMNS, Line, Written, follow
from serve.tools.audit_database import Selection, opened
from serve.tools.audit_upkeep import erase, prune, verify
from serve.tools.journal import Entry

SECRET = "Herr Muster, 0171 2345678"
KEY = b"a key of the chain"
FUTURE = "2999-01-01T00:00:00.000000Z"
ALL = Selection()


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    try:
        cluster = PostgresCluster()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with cluster:
        yield cluster


@pytest.fixture
def postgres(cluster: PostgresCluster) -> str:
    """A schema of its own."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    return f"{cluster.url}&options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "audit.db")
    return request.getfixturevalue("postgres")


def entry(number: int, session: str = "s1", **changed: object) -> Entry:
    details = {"tool": "book", "arguments": {"name": SECRET, "n": number}}
    made = Entry("shop", session, f"c{number}", "call", "agent", "draft", "committed", details)
    return dataclasses.replace(made, **changed)


def write(url: str, *entries: Entry, key: bytes = b"") -> list[int]:
    audit = Audit(url, key)

    async def append() -> list[int]:
        return [await audit.append(entry) for entry in entries]

    try:
        return asyncio.run(append())
    finally:
        audit.close()


def read(url: str, selection: Selection = ALL) -> list[Line]:
    with opened(url) as database:
        return list(database.lines(selection))


def tamper(url: str, *statements: str) -> None:
    """As somebody does who owns the database."""
    with opened(url) as database, database.unguarded():
        for statement in statements:
            database.execute(statement)


def with_an_eventful_life(url: str, key: bytes = b"") -> None:
    """Lines 4 to 15: those of session s2 are erased; one that was erased before is pruned."""
    write(url, *(entry(n) for n in range(1, 3)), key=key)
    erase(url, Selection(call_id="c1"), "operator:ann", key)
    write(url, *(entry(n, session=f"s{n % 3}") for n in range(4, 14)), key=key)
    prune(url, read(url)[3].time, "operator:ann", key)
    erase(url, Selection(session="s2"), "operator:ann", key)


def test_an_entry_stands_in_the_log_once_it_is_appended(url):
    audit = Audit(url)

    async def append() -> None:
        for number in range(1, 4):
            assert await audit.append(entry(number)) == number
            assert [line.place for line in read(url)] == [*range(1, number + 1)]

    asyncio.run(append())
    audit.close()
    line = read(url)[1]
    assert line.as_json()["details"] == entry(2).details
    assert (line.tenant, line.session, line.call_id, line.kind) == ("shop", "s1", "c2", "call")
    assert (line.actor, line.before, line.after) == ("agent", "draft", "committed")
    assert verify(url).lines == 3


def test_entries_of_many_at_once_are_written_each_in_its_order(url):
    audits = [Audit(url), Audit(url)]  # two processes that share a log

    async def append(audit: Audit, session: str) -> list[int]:
        return [await audit.append(entry(n, session)) for n in range(20)]

    async def all_of_them() -> list[list[int]]:
        return await asyncio.gather(*(append(audits[n % 2], f"s{n}") for n in range(10)))

    places = asyncio.run(all_of_them())
    for audit in audits:
        audit.close()
    assert sorted(place for some in places for place in some) == [*range(1, 201)]
    assert all(some == sorted(some) for some in places)
    assert verify(url).fault == ""


def test_waiting_entries_are_written_together(tmp_path, monkeypatch):
    audit = Audit(str(tmp_path / "audit.db"))
    groups = []
    write_group = audit._write
    monkeypatch.setattr(audit, "_write", lambda d, g: (groups.append(len(g)), write_group(d, g)))

    async def append() -> None:
        await asyncio.gather(*(audit.append(entry(n)) for n in range(300)))

    asyncio.run(append())
    audit.close()
    assert sum(groups) == 300
    assert len(groups) < 150


@pytest.mark.parametrize(
    "wrong", [{"session": "a\0b"}, {"actor": "\ud800"}, {"details": {"x": float("nan")}}]
)
def test_what_no_log_can_hold_disturbs_nobody_else(url, wrong):
    audit = Audit(url)

    async def append() -> list[object]:
        entries = [entry(1), entry(2, **wrong), entry(3)]
        return await asyncio.gather(*map(audit.append, entries), return_exceptions=True)

    first, refused, last = asyncio.run(append())
    audit.close()
    assert (first, last) == (1, 2)
    assert isinstance(refused, ValueError)


def test_a_log_goes_on_where_it_ended(url):
    write(url, entry(1))
    assert write(url, entry(2)) == [2]
    assert verify(url).fault == ""


def test_trail_and_recent(url):
    write(url, *(entry(n % 3, session=f"s{n % 2}") for n in range(12)))
    audit = Audit(url)
    trail = asyncio.run(audit.trail("c1"))
    recent = asyncio.run(audit.recent("s1", most=4))
    assert [line.place for line in trail] == [2, 5, 8, 11]
    assert [line.place for line in recent] == [6, 8, 10, 12]
    assert asyncio.run(audit.trail("")) == []
    audit.close()


def test_nothing_is_appended_to_a_closed_log(url):
    audit = Audit(url)
    audit.close()
    with pytest.raises(OSError, match="closed"):
        asyncio.run(audit.append(entry(1)))
    assert read(url) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'caller' WHERE place = 2",
        "UPDATE audit SET salt = NULL, details = NULL",
        "DELETE FROM audit WHERE place = 3",
        "INSERT INTO audit SELECT * FROM audit WHERE place = 2"
        " ON CONFLICT (place) DO UPDATE SET actor = 'caller'",
    ],
)
def test_the_database_refuses_changes(url, statement):
    write(url, *map(entry, range(3)))
    before = read(url)
    with pytest.raises(OSError, match=r"only grows|permission denied"), opened(url) as database:
        database.execute(statement)
    assert read(url) == before


def test_sqlite_refuses_to_replace_a_line(tmp_path):
    url = str(tmp_path / "audit.db")
    write(url, *map(entry, range(3)))
    with pytest.raises(OSError, match="only grows"), opened(url) as database:
        database.execute("INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE place = 2")


def test_postgres_takes_the_rights_away_too(postgres):
    write(postgres, entry(1))
    with opened(postgres) as database:
        database.execute("CREATE ROLE writer LOGIN")
        schema = database.execute("SELECT current_schema()").fetchone()[0]
        database.execute(f"GRANT USAGE ON SCHEMA {schema} TO writer")
        database.execute("GRANT SELECT, INSERT ON audit TO writer")
    as_writer = postgres.replace("postgres@", "writer@")
    assert write(as_writer, entry(2)) == [2]  # it needs no more
    for statement in ("TRUNCATE audit", "DELETE FROM audit", "UPDATE audit SET actor = ''"):
        with pytest.raises(OSError, match="permission denied"), opened(as_writer) as database:
            database.execute(statement)
    with pytest.raises(OSError, match="only grows"), opened(postgres) as database:
        database.execute("TRUNCATE audit")  # by a superuser, who has all rights
    assert verify(postgres).lines == 2


def test_not_even_the_owner_has_the_rights(postgres):
    with opened(postgres) as database:
        database.execute("CREATE ROLE owner LOGIN")
        schema = database.execute("SELECT current_schema()").fetchone()[0]
        database.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO owner")
    as_owner = postgres.replace("postgres@", "owner@")
    write(as_owner, entry(1), entry(2))
    for _ in range(2):
        with pytest.raises(OSError, match="permission denied"), opened(as_owner) as database:
            database.execute("UPDATE audit SET actor = 'caller'")
        assert erase(as_owner, Selection(call_id="c1"), "operator:ann") <= 1  # by itself it can
    assert verify(as_owner).erased == 1


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    """A log that was pruned, and erased in part."""
    made: dict[bytes, Path] = {}

    def of(key: bytes) -> Path:
        if key not in made:
            made[key] = tmp_path_factory.mktemp("eventful") / "audit.db"
            with_an_eventful_life(str(made[key]), key)
        return made[key]

    return of


@given(data=st.data(), key=st.sampled_from([b"", KEY]))
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_is_named(eventful, data, key):
    original = eventful(key)
    changed = original.with_name("changed.db")
    shutil.copy(original, changed)
    line = data.draw(st.sampled_from(read(str(original))))
    column = data.draw(st.sampled_from(COLUMNS))
    old = getattr(line, column)
    if column == "place":
        new = str(data.draw(st.integers(-3, 30)))
        assume(all(int(new) != other.place for other in read(str(original))))
    elif old is None:
        new = data.draw(st.sampled_from(["''", "'x'", "'{}'"]))
    else:
        text = bytearray(old.encode())
        at = data.draw(st.integers(0, len(text)))
        what = data.draw(st.sampled_from(["changed", "inserted", "deleted"]))
        byte = data.draw(st.binary(min_size=1, max_size=1))
        text[at : at + (what != "inserted")] = b"" if what == "deleted" else byte
        assume(text != old.encode())
        new = f"CAST(x'{text.hex()}' AS TEXT)"
    tamper(str(changed), f"UPDATE audit SET {column} = {new} WHERE place = {line.place}")
    fault = verify(str(changed), key).fault
    names = {line.place} | ({int(new)} if column == "place" else set())
    assert any(fault.startswith(f"line {place}") for place in names), fault


def test_a_changed_field_is_named_in_postgres(postgres):
    with_an_eventful_life(postgres)
    assert verify(postgres).fault == ""
    for line in read(postgres)[::4]:
        for column in COLUMNS[1:]:
            old = getattr(line, column)
            new = "x" if old is None else ("x" if old[:1] != "x" else "y") + old[1:]
            change = f"UPDATE audit SET {column} = '{new}' WHERE place = {line.place}"
            back = "NULL" if old is None else f"'{old}'"
            tamper(postgres, change)
            assert verify(postgres).fault.startswith(f"line {line.place}"), (line, column)
            tamper(postgres, change.replace(f"'{new}'", back))
    assert verify(postgres).fault == ""


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_byte_changed_in_the_file_is_named_or_changes_nothing(eventful, data):
    original = eventful(b"")
    changed = original.with_name("changed.db")
    for file in changed.parent.glob("changed.db-*"):
        file.unlink()
    content = bytearray(original.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    changed.write_bytes(content)
    try:
        fault = verify(str(changed)).fault
    except OSError:  # no database any more
        return
    if not fault:
        calls = [ALL, *(Selection(call_id=f"c{n}") for n in range(14))]
        assert [read(str(changed), call) for call in calls] == [
            read(str(original), call) for call in calls
        ]


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["DELETE FROM audit WHERE place = 6"], "line 6 is missing"),
        (["DELETE FROM audit WHERE place <= 5"], "line 5 is missing"),
        (["UPDATE audit SET place = 99 WHERE place = 6"], "line 6 is missing"),
        (
            [
                f"UPDATE audit SET place = {new} WHERE place = {old}"
                for old, new in ((6, 99), (7, 6), (99, 7))
            ],
            "line 6: ",
        ),
        (["UPDATE audit SET details = NULL, salt = NULL WHERE place = 6"], "line 6: its details"),
        (["UPDATE audit SET details = NULL, salt = NULL WHERE place = 14"], "line 14: its details"),
        (["UPDATE audit SET details = NULL, salt = NULL WHERE place = 15"], "line 15: its details"),
    ],
)
def test_a_missing_moved_or_emptied_line_is_named(url, statements, named):
    with_an_eventful_life(url)
    assert verify(url).fault == ""
    tamper(url, *statements)
    assert verify(url).fault.startswith(named)


def test_a_line_made_anew_is_not_followed(url):
    write(url, *map(entry, range(6)))
    lines = read(url)
    made = follow(lines[2], Written(entry(99), "{}", lines[3].time), b"")
    changes = ", ".join(f"{name} = '{getattr(made, name)}'" for name in COLUMNS)
    tamper(url, f"UPDATE audit SET {changes} WHERE place = 4")
    assert verify(url).fault.startswith("line 5 does not follow")


def test_a_damaged_index_is_noticed(eventful):
    content = eventful(b"").read_bytes()
    damaged = eventful(b"").with_name("damaged.db")
    at = content.find(b"c13")
    while at >= 0:  # in the table, and in the index by call
        damaged.write_bytes(content[:at] + b"d" + content[at + 1 :])
        assert verify(str(damaged)).fault
        at = content.find(b"c13", at + 1)


def test_a_cut_tail_is_noticed_by_the_remembered_head(url):
    write(url, *map(entry, range(6)))
    head = verify(url).head
    write(url, entry(6))
    assert verify(url, head=head).fault == ""  # it may have grown since
    tamper(url, "DELETE FROM audit WHERE place >= 5")
    assert verify(url).fault == ""
    assert verify(url, head=head).fault.startswith("line 5 is missing")


def forge(url: str, key: bytes) -> None:
    """A chain of one's own, in which no name is left."""
    with opened(url) as database, database.unguarded():
        lines, last = list(database.lines()), None
        database.execute("DELETE FROM audit")
        for line in lines:
            made = Entry(line.tenant, line.session, line.call_id, line.kind, "nobody")
            last = follow(last, Written(made, "{}", line.time), key)
            database.insert([last])


def test_only_who_has_the_key_can_make_a_chain(url):
    write(url, *map(entry, range(3)), key=KEY)
    assert verify(url, KEY).fault == ""
    assert verify(url).fault.startswith("line 1: ")
    with pytest.raises(ValueError, match=r"line 3: .* key is another"):
        Audit(url, b"another")
    forge(url, b"")
    assert verify(url).fault == ""
    assert verify(url, KEY).fault.startswith("line 1: ")


def test_erased_details_are_erased_and_the_chain_holds(url):
    write(url, *(entry(n, session=f"s{n % 2}") for n in range(6)))
    head = verify(url).head
    assert erase(url, Selection(session="s1"), "operator:ann") == 3
    assert erase(url, Selection(session="s1"), "operator:ann") == 0
    erased = [line.place for line in read(url) if line.is_erased]
    assert erased == [2, 4, 6]
    assert read(url)[-1].as_json()["details"] == {"places": erased}
    verdict = verify(url, head=head)
    assert (verdict.fault, verdict.lines, verdict.erased) == ("", 7, 3)
    assert write(url, entry(9)) == [8]


def test_what_is_erased_is_not_in_the_file_any_more(tmp_path):
    url = str(tmp_path / "audit.db")
    write(url, *map(entry, range(50)))
    audit = Audit(url)
    appended(audit, 50)  # the server runs, and has the file open

    def is_there() -> bool:
        return any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())

    assert is_there()
    erase(url, ALL, "operator:ann")
    assert not is_there()
    audit.close()


def test_a_pruned_log_is_whole(url):
    write(url, *map(entry, range(10)))
    lines = read(url)
    assert prune(url, lines[0].time, "operator:ann") == 0
    assert prune(url, lines[4].time, "operator:ann") == 4
    assert [line.place for line in read(url)] == [*range(5, 12)]
    assert read(url)[-1].as_json()["details"] == {"place": 4, "hash": lines[3].hash}
    assert verify(url, head=lines[9].hash).fault == ""
    assert prune(url, read(url)[-1].time, "operator:bob") == 6  # all but the line that told of it
    assert [line.place for line in read(url)] == [11, 12]
    assert verify(url).fault == ""
    assert write(url, entry(11)) == [13]
    with pytest.raises(ValueError, match="still to come"):
        prune(url, FUTURE, "operator:ann")


def test_a_log_that_is_not_whole_keeps_its_traces(url):
    write(url, *map(entry, range(5)))
    now = read(url)[-1].time
    tamper(url, "UPDATE audit SET actor = 'caller' WHERE place = 2")
    for change in (lambda: prune(url, now, "ann"), lambda: erase(url, ALL, "ann")):
        with pytest.raises(ValueError, match="nothing was done: line 2"):
            change()
    assert len(read(url)) == 5


def test_upkeep_beside_a_server_that_writes(url):
    audit = Audit(url)

    async def append() -> None:
        for number in range(20):
            await audit.append(entry(number))
            if number == 10:
                await asyncio.to_thread(erase, url, Selection(call_id="c3"), "ann")
                await asyncio.to_thread(prune, url, read(url)[2].time, "ann")

    asyncio.run(append())
    audit.close()
    assert verify(url).fault == ""
    assert read(url)[-1].place == 22


def appended(audit: Audit, *numbers: int) -> list[object]:
    async def append() -> list[object]:
        entries = (audit.append(entry(number)) for number in numbers)
        return await asyncio.gather(*entries, return_exceptions=True)

    return asyncio.run(append())


def assert_all_refused(outcomes: list[object]) -> None:
    assert outcomes
    assert all(isinstance(outcome, OSError) for outcome in outcomes), outcomes


def test_while_the_disk_is_full_nothing_is_appended(tmp_path):
    url = str(tmp_path / "audit.db")
    audit = Audit(url)
    assert appended(audit, 1) == [1]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        assert_all_refused(appended(audit, 2, 3, 4))
        assert_all_refused(appended(audit, 5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert appended(audit, 6) == [2]
    audit.close()
    assert [line.call_id for line in read(url)] == ["c1", "c6"]
    assert verify(url).fault == ""


def test_while_the_file_is_gone_nothing_is_appended(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    audit = Audit(str(folder / "audit.db"))
    assert appended(audit, 1) == [1]
    folder.rename(tmp_path / "elsewhere")
    assert_all_refused(appended(audit, 2, 3))
    folder.mkdir()
    assert_all_refused(appended(audit, 4))  # and no new log begins
    folder.rmdir()
    (tmp_path / "elsewhere").rename(folder)
    assert appended(audit, 5) == [2]
    audit.close()
    assert verify(str(folder / "audit.db")).fault == ""


def test_an_older_copy_in_its_place_is_refused(tmp_path):
    url, copy = str(tmp_path / "audit.db"), str(tmp_path / "copy.db")
    write(url, entry(1))
    shutil.copy(url, copy)
    audit = Audit(url)
    assert appended(audit, 2) == [2]
    for file in tmp_path.glob("audit.db*"):
        file.unlink()
    os.rename(copy, url)
    outcomes = appended(audit, 3)
    assert_all_refused(outcomes)
    assert "line 2 of the audit log has gone" in str(outcomes[0])
    audit.close()


def test_while_the_server_is_down_nothing_is_appended(cluster, postgres):
    audit = Audit(postgres)
    assert appended(audit, 1) == [1]
    cluster.kill()
    assert_all_refused(appended(audit, 2, 3))
    cluster.start()
    assert appended(audit, 4) == [2]
    cluster.kill()  # between two entries, which is not noticed
    cluster.start()
    assert appended(audit, 5) == [3]
    audit.close()
    assert [line.call_id for line in read(postgres)] == ["c1", "c4", "c5"]


def test_who_gives_up_waiting_disturbs_nobody(tmp_path):
    url = str(tmp_path / "audit.db")
    audit = Audit(url)
    other = sqlite3.connect(url, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # whoever writes waits

    async def append() -> int:
        waiting = [asyncio.create_task(audit.append(entry(n))) for n in range(3)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting[1], 0.05)
        other.execute("COMMIT")
        return max(await waiting[0], await waiting[2])

    place = asyncio.run(append())
    audit.close()
    assert place == len(read(url))
    assert verify(url).fault == ""


def test_a_log_is_for_its_owner_alone(tmp_path):
    url = tmp_path / "audit.db"
    audit = Audit(str(url))
    appended(audit, 1)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    audit.close()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["audit", *arguments])
    command.main()


def test_command_line(url, tmp_path, monkeypatch, capsys):
    write(url, *(entry(n, session=f"s{n % 2}") for n in range(4)), key=KEY)
    key = tmp_path / "key"
    key.write_bytes(KEY + b"\n")
    run(monkeypatch, "erase", url, "--key", str(key), "--call", "c1")
    assert capsys.readouterr().out == "details of 1 lines erased\n"
    run(monkeypatch, "verify", url, "--key", str(key))
    whole, head = capsys.readouterr().out.splitlines()
    assert whole == "whole: 5 lines, details of 1 erased"
    assert head == f"head: {read(url)[-1].hash}"
    run(monkeypatch, "export", url, "--session", "s1", "--tenant", "shop")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["place"], first["details"]) == (2, None)
    assert second["details"] == entry(3).details
    run(monkeypatch, "export", url, "--call", "c0", "--readable")
    shown = capsys.readouterr().out
    assert "s0  c0  call  agent  draft -> committed  {" in shown
    run(monkeypatch, "export", url, "--since", "2999-01-01")
    assert capsys.readouterr().out == ""
    run(monkeypatch, "export", url, "--until", "2999-01-01T12:00+02:00")
    assert len(capsys.readouterr().out.splitlines()) == 5
    run(monkeypatch, "prune", url, "--key", str(key), "--before", read(url)[2].time)
    assert capsys.readouterr().out == "2 lines pruned\n"


def test_calls_whose_end_is_not_there_are_found(url, monkeypatch, capsys):
    run_on = {"before": "committed", "after": "running"}
    over = {"before": "running", "after": "succeeded"}
    begun = [entry(n, **run_on) for n in range(3)]
    write(url, *begun, entry(1, **over), entry(2, kind="late", before="", after=""))
    run(monkeypatch, "export", url, "--unfinished")
    found = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["call_id"] for line in found] == ["c0", "c2"]


@pytest.mark.parametrize("more", [["--head", "ab"], []])
def test_verify_ends_with_an_error_where_a_log_is_not_whole(url, monkeypatch, more):
    write(url, *map(entry, range(4)))
    if not more:
        tamper(url, "UPDATE audit SET after = 'failed' WHERE place = 3")
    named = "error: line 5 is missing" if more else "error: line 3: its hash"
    with pytest.raises(SystemExit, match=named):
        run(monkeypatch, "verify", url, *more)


def test_a_log_that_is_not_there_is_not_whole(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="error: "):
        run(monkeypatch, "verify", str(tmp_path / "audit.db"))
    assert not list(tmp_path.iterdir())


def test_kills(cluster):
    metrics = AuditKills(cycles=2, sessions=2, seconds=0.5).measure("", 1, "").metrics
    for name in ("sqlite", "postgres"):
        assert metrics[f"audit_{name}_kills_broken"].value == 0
        assert metrics[f"audit_{name}_kills_lost"].value == 0
        assert metrics[f"audit_{name}_kills_lost"].n > 0
