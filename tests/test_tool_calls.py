"""Calls of tools over real sockets: what runs when, and who is told what."""

import base64
import itertools
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_server import scripted_server
from test_gateway import LOUD, QUIET, Client, client
from websockets.sync.client import connect

from serve.tools.audit_database import Selection, opened
from serve.tools.audit_upkeep import verify

ROOT = Path(__file__).parents[1]
DEMO = {"person": "anna", "day": "monday", "time": "14:00"}
LATER = {**DEMO, "time": "15:00"}
STATUS = {"order_id": "48192"}
NUMBERS = itertools.count()
ENDS = ("succeeded", "failed", "cancelled", "superseded")


@contextmanager
def front_desk(folder: Path, *overrides: str) -> Iterator[str]:
    """A server with the front desk's tools, whose company is kept in `folder`."""
    sources = {
        "front_desk": {
            "kind": "functions",
            "make": "serve.front_desk.tools:front_desk",
            "settings": {"database": str(folder / "company.sqlite")},
        }
    }
    (folder / "sources.yaml").write_text(json.dumps(sources))
    given = [
        f"tools.policy={ROOT}/serve/front_desk/policy.yaml",
        f"tools.sources={folder}/sources.yaml",
        f"tools.audit={folder}/audit.sqlite",
        f"tools.modes={folder}/modes",
    ]
    with scripted_server(*given, "gateway.resume_s=0.1", *overrides, slots=8) as url:
        yield url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("front_desk")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with front_desk(folder) as url:
        yield url


def scripted(*steps: list[Any]) -> str:
    """Instructions that no other session has: an engine begins behind those that it knows."""
    return json.dumps({"script": steps, "of": next(NUMBERS)})


@contextmanager
def caller(url: str, *steps: list[Any], **query: str) -> Iterator[Client]:
    """Of an agent who does these steps."""
    with client(url, extensions="duologue", **query) as one:
        instructions = scripted(*steps)
        one.send("session.update", session={"type": "realtime", "instructions": instructions})
        one.until("session.updated")
        yield one


def until_state(one: Client, call: int, *states: str) -> list[dict[str, Any]]:
    """All events up to the one that has call number `call` in one of these states."""
    events: list[dict[str, Any]] = []
    while not events or not (
        events[-1]["call_id"].endswith(f"_{call}") and events[-1]["state"] in states
    ):
        events += one.until("duologue.tool.call")
    return events


def states_of(events: list[dict[str, Any]], call: int) -> list[str]:
    return [
        event["state"]
        for event in events
        if event["type"] == "duologue.tool.call" and event["call_id"].endswith(f"_{call}")
    ]


def demos(folder: Path) -> list[tuple[str, ...]]:
    with sqlite3.connect(folder / "company.sqlite") as company:
        return company.execute("select person, day, time from demos").fetchall()


def test_what_reads_runs_while_the_caller_speaks(url: str) -> None:
    with caller(url, [5, "call", "order_status", STATUS]) as one:
        one.say(*[LOUD] * 10)
        events = until_state(one, 1, *ENDS)
        assert states_of(events, 1) == ["draft", "speculative", "running", "succeeded"]
        assert events[-1]["result"]["order_id"] == "48192"
        assert not events[-1]["is_client_run"]
        events = one.until("duologue.tool.result")
        assert events[-1]["how"] == "interrupt"
        one.say(*[QUIET] * 5)
        events = one.until("response.output_audio_transcript.done")  # the agent was given it
        assert events[-1]["transcript"].startswith(" your order")


def test_what_writes_waits_for_the_end_and_for_a_yes(url: str, folder: Path) -> None:
    steps = [[5, "call", "book_demo", DEMO], [30, "confirm", 1]]
    with caller(url, *steps) as one:
        one.say(*[LOUD] * 8)
        events = until_state(one, 1, "speculative")
        one.say(*[QUIET] * 12)
        events += one.until("duologue.tool.confirm.request")
        assert states_of(events, 1) == [
            "draft", "speculative", "committed", "awaiting_confirmation",
        ]  # fmt: skip
        assert events[-1]["method"] == "voice"
        assert events[-1]["prompt"] == "book_demo: person anna, day monday, time 14:00"
        assert demos(folder) == []
        one.say(*[QUIET] * 12)
        assert until_state(one, 1, *ENDS)[-1]["state"] == "succeeded"
        assert demos(folder) == [("anna", "monday", "14:00")]


def test_what_is_corrected_never_runs(url: str, folder: Path) -> None:
    before = demos(folder)
    friday = {**LATER, "day": "friday"}
    steps = [[5, "call", "book_demo", LATER], [9, "revise", "book_demo", friday]]
    with caller(url, *steps, [12, "cancel", 2]) as one:
        one.say(*[LOUD] * 11)
        events = until_state(one, 2, "speculative")
        assert events[-1]["supersedes"].endswith("_1")
        assert events[-1]["revision"] == 1
        one.say(*[QUIET] * 12)
        events += until_state(one, 2, *ENDS)
        assert states_of(events, 1)[-1] == "superseded"
        assert events[-1]["state"] == "cancelled"
    assert demos(folder) == before


def test_a_callers_client_may_say_yes_or_no(url: str, folder: Path) -> None:
    for is_yes in (False, True):
        before = len(demos(folder))
        tuesday = {**DEMO, "day": "tuesday"}
        with caller(url, [5, "call", "book_demo", tuesday]) as one:
            one.say(*[QUIET] * 12)
            asked = one.until("duologue.tool.confirm.request")[-1]
            word = {"approval_id": asked["approval_id"], "approve": is_yes}
            one.send("duologue.tool.confirm.response", **word)
            end = until_state(one, 1, *ENDS)[-1]
            assert (end["state"], end["result"].get("error")) == (
                ("succeeded", None) if is_yes else ("failed", "denied")
            )
            one.send("duologue.tool.confirm.response", **word)
            assert one.until("error")[-1]["error"]["code"] == "unknown_approval"
        assert len(demos(folder)) == before + is_yes


def test_keys_of_a_telephone_say_yes(url: str, folder: Path) -> None:
    script = scripted([5, "call", "book_demo", {**DEMO, "day": "thursday"}])
    before = len(demos(folder))
    with connect(f"{url.replace('http', 'ws')}/twilio") as phone:
        start = {"streamSid": "MZ1", "customParameters": {"instructions": script}}
        phone.send(json.dumps({"event": "start", "start": start}))
        payload = base64.b64encode(b"\xff" * 160).decode()
        ends_s = time.monotonic() + 20
        while len(demos(folder)) == before:  # a telephone is not told when it is asked
            assert time.monotonic() < ends_s
            phone.send(json.dumps({"event": "media", "media": {"payload": payload}}))
            for _ in range(2):  # the second one finds an answer that is still being written down
                phone.send(json.dumps({"event": "dtmf", "dtmf": {"digit": "1"}}))
            time.sleep(0.02)
        assert phone.ping().wait(10)  # who presses twice is not put out


def test_a_file_switches_tools_off_and_on_again(url: str, folder: Path) -> None:
    (folder / "modes").write_text("tool:order_status off\n")
    try:
        steps = [[5, "call", "order_status", STATUS], [9, "call", "faq", {"topic": "hours"}]]
        with caller(url, *steps) as one:
            one.say(*[QUIET] * 12)
            end = until_state(one, 1, *ENDS)[-1]
            assert (end["state"], end["reason"]) == ("failed", "the mode is off")
            assert until_state(one, 2, *ENDS)[-1]["state"] == "succeeded"
            (folder / "modes").unlink()
            while one.until("duologue.mode.changed")[-1]["mode"] != "normal":
                pass
    finally:
        (folder / "modes").unlink(missing_ok=True)


def test_a_client_has_tools_of_its_own_beside(url: str) -> None:
    """Of which policy knows nothing: so a supervisor's word is asked for."""
    tool = {"type": "function", "name": "open_door", "parameters": {"type": "object"}}
    with caller(url, [5, "call", "open_door", {}]) as one:
        one.send("session.update", session={"type": "realtime", "tools": [tool]})
        one.until("session.updated")
        one.say(*[QUIET] * 12)
        assert one.until("duologue.tool.confirm.request")[-1]["method"] == "supervisor"
        one.send("session.update", session={"tools": [{**tool, "name": "faq"}]})
        error = one.until("error")[-1]["error"]
        assert (error["code"], error["param"]) == ("invalid_tools", "tools")
        assert "'faq' is one that this server runs" in error["message"]


def test_a_hand_off_is_asked_for(url: str) -> None:
    steps = [[4, "call", "faq", {"topic": "hours"}], [10, "handoff", 0, {"reason": "requested"}]]
    with caller(url, *steps) as one:
        one.say(*[QUIET] * 12)
        asked = one.until("duologue.handoff.requested")[-1]
        assert asked["reason"] == "requested"
        assert asked["summary"].startswith("faq: topic hours: succeeded")


def test_all_of_it_is_in_the_audit_log(url: str, folder: Path) -> None:
    with caller(url, [5, "call", "create_lead", {"name": "emma", "phone": "5551234"}]) as one:
        one.say(*[QUIET] * 12)
        asked = one.until("duologue.tool.confirm.request")[-1]
        one.send("duologue.tool.confirm.response", approval_id=asked["approval_id"], approve=True)
        end = until_state(one, 1, *ENDS)[-1]
        assert end["state"] == "succeeded"
        assert end["arguments"] == {"name": "emma", "phone": "[redacted]"}
    with opened(str(folder / "audit.sqlite")) as database:
        lines = [*database.lines(Selection(call_id=end["call_id"]), None)]
        assert [line.after for line in lines if line.kind == "call"] == [
            "speculative", "committed", "awaiting_confirmation", "running", "succeeded",
        ]  # fmt: skip
        assert "approved" in {line.kind for line in lines}
        assert "5551234" not in str(lines)
    assert not verify(str(folder / "audit.sqlite")).fault


def test_what_cannot_be_ends_the_server_with_a_line(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("tools:\n  faq: {effect: look, confirmation: none}\n")
    command = [sys.executable, "-m", "serve.run", f"tools.policy={policy}"]
    command += [f"tools.audit={tmp_path}/audit.sqlite"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1
    assert "policy.yaml, line 2: tools.faq.effect" in ended.stderr


BLOCKING = '''
import time
from pathlib import Path


def tools(folder: str):
    async def block() -> dict:
        """Keeps everybody else from their work."""
        Path(folder, "blocked").touch()
        while not Path(folder, "modes").exists():
            time.sleep(0.01)
        time.sleep(0.5)  # the file is looked at fifty times a second
        return {}

    def write() -> dict:
        """Leaves a file."""
        Path(folder, "written").touch()
        return {}

    return [block, write]
'''


def test_tools_are_off_although_the_event_loop_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blocking.py").write_text(BLOCKING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rule = {"effect": "write", "confirmation": "none"}
    source = {"kind": "functions", "make": "blocking:tools", "settings": {"folder": str(tmp_path)}}
    (tmp_path / "policy.yaml").write_text(json.dumps({"tools": {"block": rule, "write": rule}}))
    (tmp_path / "sources.yaml").write_text(json.dumps({"stuck": source}))
    given = [f"tools.{name}={tmp_path}/{name}.yaml" for name in ("policy", "sources")]
    steps = [[5, "call", "block", {}], [5, "call", "write", {}]]
    with (
        scripted_server(*given, f"tools.modes={tmp_path}/modes") as url,
        caller(url, *steps) as one,
    ):
        one.say(*[QUIET] * 8)
        while not (tmp_path / "blocked").exists():
            time.sleep(0.01)
        (tmp_path / "modes").write_text("all off")
        events = until_state(one, 1, *ENDS)
        assert events[-1]["state"] == "succeeded"  # what had begun goes on to its end
        if not states_of(events, 2) or states_of(events, 2)[-1] not in ENDS:
            events += until_state(one, 2, *ENDS)
        assert states_of(events, 2)[-1] == "failed"
    assert not (tmp_path / "written").exists()
