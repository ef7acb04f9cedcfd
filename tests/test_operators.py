"""What operators see and do, over real sockets, while an agent follows a script."""

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import websockets
from scripted_server import scripted_server
from test_gateway import LOUD, QUIET, TOOL, Client, client, fetched, status_of
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from serve.gateway.feed import _MOST_PAGES, Feed
from serve.gateway.identity import Operator
from serve.gateway.metrics import Load, Metrics
from serve.gateway.page import _MOST_WAITING, Page
from serve.tools.audit_database import Selection, opened

KEYS = {"shop": "sk_shop", "ann": "sk_ann", "ben": "sk_ben"}
TOOLS = ("order_status", "order", "wipe")
POLICY = """
tools:
  order_status: {effect: read, confirmation: none, timeout_s: 30}
  order: {effect: write, confirmation: console, timeout_s: 30, redact: [order_id]}
  wipe: {effect: irreversible, confirmation: supervisor, timeout_s: 30}
"""
GIVEN = {"order_id": "48192"}
ASKED = (
    ("GET", "/console/sessions"),
    ("POST", "/console/sessions/any/hang_up"),
    ("GET", "/console/modes"),
    ("POST", "/console/modes"),
    ("POST", "/console/approvals/any"),
    ("GET", "/console/calls/any"),
)


def digest(name: str) -> str:
    return hashlib.sha256(KEYS[name].encode()).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operators")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "tenants.yaml").write_text(
        f"tenants: [{{name: shop, keys: ['{digest('shop')}']}}]\n"
        "operators:\n"
        f"  - {{name: ann, keys: ['{digest('ann')}'], method: supervisor}}\n"
        f"  - {{name: ben, keys: ['{digest('ben')}'], method: console}}\n"
    )
    given = (f"tenants={folder}/tenants.yaml", f"tools.policy={folder}/policy.yaml")
    origins = "gateway.origins=['*']"  # may call, and do nothing else
    more = "limits.attempts_per_minute=100000"
    with scripted_server(*given, origins, more, f"tools.audit={folder}/audit.sqlite") as url:
        yield url


class Console:
    """An operator's page, as far as the server sees it."""

    def __init__(self, url: str, key: str, socket: ClientConnection) -> None:
        self.url, self.key, self.socket = url, key, socket
        self.hello = self.until("hello")[-1]

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def until(
        self, kind: str, is_it: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> list[dict[str, Any]]:
        """All messages up to the first of that kind of which that is so."""
        told, ends_s = [], time.monotonic() + 20
        while not told or told[-1]["type"] != kind or not is_it(told[-1]):
            told.append(json.loads(self.socket.recv(ends_s - time.monotonic())))
        return told

    def ask(self, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        return asked(self.url, path, body, self.key)


@contextlib.contextmanager
def console(url: str, name: str = "ann") -> Iterator[Console]:
    offered: Any = ["duologue", f"duologue-key.{KEYS[name]}"]
    origin: Any = url
    with connect(feed_of(url), subprotocols=offered, origin=origin, max_queue=None) as socket:
        assert socket.subprotocol == "duologue"
        yield Console(url, KEYS[name], socket)


def feed_of(url: str) -> str:
    return f"{url.replace('http', 'ws')}/console/feed"


def asked(
    url: str, path: str, body: object = None, key: str = "", **headers: str
) -> tuple[int, dict[str, Any]]:
    """The status, and the answer or its error."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers)) as reply:
            assert reply.headers["Cache-Control"] == "no-store"
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]


@contextlib.contextmanager
def caller(url: str, *steps: list[Any]) -> Iterator[tuple[Client, str]]:
    """Who has an agent that does these steps, and the session's id."""
    with client(url, "/v1/realtime", KEYS["shop"]) as one:
        session = one.until("session.created")[-1]["session"]["id"]
        tools = [{**TOOL, "name": name} for name in TOOLS]
        instructions = json.dumps({"script": steps or [[100_000, "cancel", 1]]})
        about = {"type": "realtime", "tools": tools, "instructions": instructions}
        one.send("session.update", session=about)
        one.until("session.updated")
        yield one, session
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            while one.socket.recv(0):  # or it would not hear the server's goodbye
                pass


def states(told: list[dict[str, Any]]) -> list[str]:
    return [message["state"] for message in told if message["type"] == "tool.call"]


def in_state(state: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message["state"] == state


def written(folder: Path, session: str, kind: str) -> dict[str, Any]:
    """The line of that kind, as soon as it is there."""
    ends_s = time.monotonic() + 20
    while time.monotonic() < ends_s:
        with opened(f"{folder}/audit.sqlite") as log:
            lines = [line.as_json() for line in log.lines(Selection(session=session))]
        if found := [line for line in lines if line["kind"] == kind]:
            assert len(found) == 1
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"the audit log has no {kind}")


# What a page is told


def test_a_page_is_told_what_there_is_and_what_comes(url: str) -> None:
    with console(url) as early:
        assert (early.hello["operator"], early.hello["method"]) == ("ann", "supervisor")
        with caller(url) as (_, session):
            opened = early.until("session.opened")[-1]["session"]
            assert opened["id"] == session
            assert (opened["tenant"], opened["dialect"]) == ("shop", "realtime")
            assert opened["operator"] == ""
            assert abs(opened["opened_at"] - time.time()) < 100
            with console(url, "ben") as late:
                assert (late.hello["operator"], late.hello["method"]) == ("ben", "console")
                assert opened in late.hello["sessions"]
            assert early.ask("/console/sessions") == (200, {"sessions": [opened]})
        ended = early.until("session.ended")[-1]
        assert ended == {"type": "session.ended", "session_id": session, "reason": "hang_up"}
        assert early.ask("/console/sessions") == (200, {"sessions": []})


def test_a_page_is_told_the_load_every_second(url: str) -> None:
    with console(url) as page, caller(url) as (one, _):
        one.say(QUIET)
        load = page.until("load", lambda load: load["latency_ms_p50"] is not None)[-1]
        assert {*load} == {
            "type", "sessions", "engine_up", "capacity_refused", "latency_ms_p50",
            "latency_ms_p99", "late_share",
        }  # fmt: skip
        assert load["engine_up"]
        assert load["sessions"] == 1
        assert 0 < load["latency_ms_p50"] <= load["latency_ms_p99"]
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(caller(url))
            with pytest.raises(InvalidStatus), client(url, "/v1/realtime", KEYS["shop"]):
                pass
            page.until("load", lambda load: load["capacity_refused"] == 1)
        assert "duologue_gateway_answer_seconds_count" in fetched(f"{url}/metrics")[1]


def test_a_call_is_confirmed_by_who_may(url: str) -> None:
    with console(url, "ben") as page, caller(url, [3, "call", "order", GIVEN]) as (one, session):
        one.say(QUIET)
        told = page.until("tool.confirm.request")
        assert states(told) == ["draft", "speculative", "committed", "awaiting_confirmation"]
        call = next(message for message in reversed(told) if message["type"] == "tool.call")
        assert {*call} == {
            "type", "session_id", "at_ms", "call_id", "revision", "supersedes", "state", "tool",
            "arguments", "confidence", "effect", "idempotency_key", "deadline_ms", "delivery",
            "is_client_run", "is_wanted", "result", "reason",
        }  # fmt: skip
        assert (call["session_id"], call["tool"], call["effect"]) == (session, "order", "write")
        assert call["arguments"] == {"order_id": "[redacted]"}
        assert call["at_ms"] >= 160
        request = told[-1]
        assert {*request} == {
            "type", "session_id", "at_ms", "approval_id", "call_id", "revision", "args_sha256",
            "prompt", "method", "expires_at",
        }  # fmt: skip
        assert (request["method"], request["session_id"]) == ("console", session)
        with console(url) as late:
            assert late.hello["approvals"] == [request]
            late.send("watch", session_id=session)
            assert late.until("tool.call")[-1] == call
        path = f"/console/approvals/{request['approval_id']}"
        assert page.ask(path, {"answer": "approve"}) == (200, {})
        made = one.until("response.function_call_arguments.done")[-1]
        assert made["call_id"] == call["call_id"]
        assert json.loads(made["arguments"]) == GIVEN
        page.until("tool.call", in_state("running"))
        status, error = page.ask(path, {"answer": "approve"})
        assert (status, error["code"]) == (404, "unknown_approval")
        with console(url) as late:
            assert late.hello["approvals"] == []
        item = {"type": "function_call_output", "call_id": made["call_id"], "output": '{"a": 1}'}
        one.send("conversation.item.create", item=item)
        ended = page.until("tool.call", in_state("succeeded"))[-1]
        assert ended["result"] == {"a": 1}
        given = page.until("tool.result")[-1]
        assert (given["call_id"], given["session_id"]) == (call["call_id"], session)
        assert {*given} == {"type", "session_id", "at_ms", "call_id", "revision", "how"}
        lines = page.ask(f"/console/calls/{call['call_id']}")[1]["lines"]
        assert [line["place"] for line in lines] == sorted(line["place"] for line in lines)
        assert {*lines[0]} == {
            "place", "at", "kind", "actor", "before", "after", "details", "hash",
        }  # fmt: skip
        approved = next(line for line in lines if line["kind"] == "approved")
        assert approved["actor"] == "operator:ben"
        assert approved["details"]["args_sha256"] == request["args_sha256"]
        assert lines[-1]["after"] == "succeeded"


def test_a_word_that_is_not_enough_and_a_no(url: str) -> None:
    with console(url, "ben") as ben, caller(url, [3, "call", "wipe", GIVEN]) as (one, _):
        one.say(QUIET)
        request = ben.until("tool.confirm.request")[-1]
        path = f"/console/approvals/{request['approval_id']}"
        status, error = ben.ask(path, {"answer": "approve"})
        assert (status, error["code"]) == (403, "word_not_enough")
        for body in ({"answer": "perhaps"}, {}, [], b"{", b"[" * 10_000, b"\xff"):
            status, error = ben.ask(path, body)
            assert (status, error["code"]) == (400, "invalid_request"), body
        assert asked(url, path, {"answer": "refuse"}, KEYS["ann"]) == (200, {})
        status, error = ben.ask(path, {"answer": "refuse"})
        assert (status, error["code"]) in ((404, "unknown_approval"), (409, "answered_already"))
        assert "operator:ann" in ben.until("tool.call", in_state("failed"))[-1]["reason"]
        status, error = ben.ask("/console/approvals/none", {"answer": "approve"})
        assert (status, error["code"]) == (404, "unknown_approval")


def test_a_call_that_is_not_written_down_has_no_trail(url: str) -> None:
    for name in ("none", "%00", "%2e%2e%2f", "'%20or%201=1%20--", "x" * 5000):
        assert asked(url, f"/console/calls/{name}", key=KEYS["ann"]) == (200, {"lines": []})


def test_a_hand_off_waits_for_whoever_takes_it(url: str) -> None:
    with console(url) as page, caller(url, [3, "handoff"]) as (one, session):
        one.say(QUIET)
        asked_for = page.until("handoff.requested")[-1]
        assert {*asked_for} == {
            "type", "session_id", "at_ms", "handoff_id", "reason", "confidence", "summary",
        }  # fmt: skip
        assert asked_for["session_id"] == session
        with console(url, "ben") as late:
            assert late.hello["handoffs"] == [asked_for]
        page.send("take_over", session_id=session)
        page.until("session.taken_over")
        with console(url, "ben") as late:
            assert late.hello["handoffs"] == []


# Modes


def test_modes_are_set_and_told(url: str, folder: Path) -> None:
    steps = [[3, "call", "order_status", GIVEN], [40, "call", "order_status", GIVEN]]
    with console(url) as page, console(url, "ben") as other, caller(url, *steps) as (one, session):
        one.say(QUIET)
        running = one.until("response.function_call_arguments.done")[-1]["call_id"]
        for scope in ("all", "tenant:shop", "tool:order_status", f"session:{session}"):
            off = {scope: "off"}
            assert page.ask("/console/modes", {"scope": scope, "mode": "off"}) == (
                200, {"modes": off},
            )  # fmt: skip
            assert asked(url, "/console/modes", key=KEYS["ben"]) == (200, {"modes": off})
            changed = {"type": "mode.changed", "scope": scope, "mode": "off"}
            changed |= {"actor": "operator:ann", "running": [running]}
            assert page.until("mode.changed")[-1] == changed
            assert other.until("mode.changed")[-1] == changed
            with console(url) as late:
                assert late.hello["modes"] == off
            page.ask("/console/modes", {"scope": scope, "mode": "normal"})
            assert page.until("mode.changed")[-1]["mode"] == "normal"
            other.until("mode.changed")
        page.ask("/console/modes", {"scope": "tool:order", "mode": "read_only"})
        assert page.until("mode.changed")[-1]["running"] == []
        page.ask("/console/modes", {"scope": "tool:order", "mode": "normal"})
        page.ask("/console/modes", {"scope": f"session:{session}", "mode": "off"})
        failed = page.until("tool.call", in_state("failed"))[-1]
        assert failed["reason"] == "the mode is off"
        page.ask("/console/modes", {"scope": f"session:{session}", "mode": "normal"})
    with opened(f"{folder}/audit.sqlite") as log:
        lines = [line.as_json() for line in log.lines(Selection()) if line.kind == "mode"]
    first = next(line for line in lines if line["details"] == {"scope": f"session:{session}"})
    assert (first["actor"], first["before"], first["after"]) == ("operator:ann", "normal", "off")


@pytest.mark.parametrize(
    "body",
    [
        {"scope": "all"},
        {"mode": "off"},
        {"scope": "all", "mode": "on"},
        {"scope": "All", "mode": "off"},
        {"scope": "all\n", "mode": "off"},
        {"scope": "tenant:", "mode": "off"},
        {"scope": "tenant:a b", "mode": "off"},
        {"scope": "tenant:a\n", "mode": "off"},
        {"scope": "tool:" + "a" * 129, "mode": "off"},
        {"scope": "x" * 100_000, "mode": "off"},
        {"scope": 1, "mode": "off"},
        [],
        b"",
        b"{",
        b"\xff",
        b"[" * 50_000,
    ],
)
def test_modes_that_there_are_not_are_refused(url: str, body: object) -> None:
    status, error = asked(url, "/console/modes", body, KEYS["ann"])
    assert (status, error["code"]) == (400, "invalid_request")
    assert len(error["message"]) <= 500
    assert asked(url, "/console/modes", key=KEYS["ann"]) == (200, {"modes": {}})


def test_a_body_has_an_end(url: str) -> None:
    status, error = asked(url, "/console/modes", b" " * 2**19, KEYS["ann"])
    assert (status, error["code"]) == (413, "too_large")


# What an operator does in a call


def peaks(events: list[dict[str, Any]]) -> list[int]:
    """How loud each piece is that the client was sent."""
    heard = [e["delta"] for e in events if e["type"] == "response.output_audio.delta"]
    return [_loudness(delta) for delta in heard]


def _loudness(pcm: str) -> int:
    return int(np.abs(np.frombuffer(base64.b64decode(pcm), "<i2").astype(int)).max(initial=0))


def test_a_session_is_watched(url: str) -> None:
    with console(url) as page, caller(url) as (one, session), caller(url) as (two, another):
        page.send("watch", session_id=session)
        one.say(*[LOUD] * 10)
        is_heard = lambda frame: frame["caller_text"] and _loudness(frame["caller"]) > 5000  # noqa: E731
        frame = page.until("frame", is_heard)[-1]
        assert {*frame} == {
            "type", "session_id", "number", "caller", "agent", "caller_text", "agent_text", "floor",
        }  # fmt: skip
        assert (frame["session_id"], frame["floor"]) == (session, "user")
        assert [len(base64.b64decode(frame[side])) for side in ("caller", "agent")] == [3840] * 2
        number = frame["number"]
        assert page.until("frame")[-1]["number"] == number + 1
        page.send("watch", session_id=another)
        two.say(QUIET)
        page.until("frame", lambda frame: frame["session_id"] == another)
        told = page.until("load")
        told += page.until("load")
        assert {m["session_id"] for m in told if m["type"] == "frame"} <= {another}
        page.send("watch", session_id=None)
        page.send("watch", session_id="none")
        assert page.until("error")[-1]["code"] == "session_not_found"
        told = page.until("load") + page.until("load")
        assert "frame" not in [message["type"] for message in told]


def test_an_operator_takes_a_call_over_and_hands_it_back(url: str, folder: Path) -> None:
    with (
        console(url) as page,
        console(url, "ben") as other,
        caller(url, [60, "call", "order_status", GIVEN]) as (one, session),
    ):
        one.say(QUIET)
        page.send("take_over", session_id=session)
        taken = {"type": "session.taken_over", "session_id": session, "operator": "ann"}
        assert page.until("session.taken_over")[-1] == taken
        assert other.until("session.taken_over")[-1] == taken
        assert other.ask("/console/sessions")[1]["sessions"][0]["operator"] == "ann"
        for one_more in (page, other):
            one_more.send("take_over", session_id=session)
            assert one_more.until("error")[-1]["code"] == "already_taken"
        other.send("say", audio=base64.b64encode(LOUD).decode())
        assert other.until("error")[-1]["code"] == "not_taken_over"
        other.send("hand_back", note="mine")
        assert other.until("error")[-1]["code"] == "not_taken_over"
        page.send("watch", session_id=session)
        page.send("say", audio=base64.b64encode(LOUD * 10).decode())
        page.until("frame", lambda frame: _loudness(frame["agent"]) > 5000)
        events = one.until("response.output_audio.delta")
        assert max(peaks(events)) > 5000
        page.send("say", audio=base64.b64encode(b"abc").decode())
        assert page.until("error")[-1]["code"] == "invalid_message"
        page.send("hand_back", note="Their order was replaced.")
        back = {"type": "session.handed_back", "session_id": session, "operator": "ann"}
        assert page.until("session.handed_back")[-1] == back
        page.until("frame", lambda frame: "noted" in frame["agent_text"])  # the agent was told
        page.send("hand_back")
        assert page.until("error")[-1]["code"] == "not_taken_over"
        assert page.ask("/console/sessions")[1]["sessions"][0]["operator"] == ""
        page.until("tool.call", in_state("running"))  # the agent's calls run again
        for kind, details in (
            ("take_over", {}),
            ("hand_back", {"note": "Their order was replaced."}),
        ):
            line = written(folder, session, kind)
            assert (line["actor"], line["tenant"]) == ("operator:ann", "shop")
            assert line["details"] == details


def test_an_operator_has_one_call_at_a_time(url: str) -> None:
    with console(url) as page, caller(url) as (_, first), caller(url) as (_, second):
        page.send("take_over", session_id=first)
        page.send("take_over", session_id=second)
        assert page.until("error")[-1]["code"] == "already_taken"
        taken = {one["id"]: one["operator"] for one in page.ask("/console/sessions")[1]["sessions"]}
        assert taken == {first: "ann", second: ""}


def test_who_leaves_his_page_hands_back(url: str, folder: Path) -> None:
    with console(url, "ben") as other, caller(url) as (one, session):
        one.say(QUIET)
        with console(url) as page:
            page.send("take_over", session_id=session)
            page.until("session.taken_over")
        assert other.until("session.handed_back")[-1]["operator"] == "ann"
        assert written(folder, session, "hand_back")["details"] == {
            "note": "", "why": "the page has gone",
        }  # fmt: skip
        other.send("take_over", session_id=session)
        assert other.until("session.taken_over")[-1]["operator"] == "ben"


def test_a_call_that_has_ended_is_nobodys(url: str) -> None:
    with console(url) as page:
        with caller(url) as (_, session):
            page.send("take_over", session_id=session)
            page.until("session.taken_over")
        page.until("session.ended")
        page.send("say", audio="AAAA")
        assert page.until("error")[-1]["code"] == "not_taken_over"
        page.send("take_over", session_id=session)
        assert page.until("error")[-1]["code"] == "session_not_found"
        with caller(url) as (_, session):
            page.send("take_over", session_id=session)
            page.until("session.taken_over")


def test_an_operator_hangs_up(url: str, folder: Path) -> None:
    with console(url, "ben") as page, caller(url) as (one, session):
        path = f"/console/sessions/{session}/hang_up"
        assert page.ask(path, {}) == (200, {})
        assert page.until("session.ended")[-1]["session_id"] == session
        with pytest.raises(ConnectionClosed) as closed:
            one.until("none")
        assert closed.value.rcvd
        assert closed.value.rcvd.reason == "hang_up"
        assert written(folder, session, "hang_up")["actor"] == "operator:ben"
        status, error = page.ask(path, {})
        assert (status, error["code"]) == (404, "session_not_found")


# Who is refused


@pytest.mark.parametrize("key", ["", "wrong", KEYS["shop"], "secret", KEYS["ann"].upper()])
def test_who_is_no_operator_is_refused_everywhere(url: str, key: str) -> None:
    if key == "secret":
        key = json.loads(fetched(f"{url}/v1/realtime/client_secrets", {}, KEYS["shop"])[1])["value"]
    for method, path in ASKED:
        status, error = asked(url, path, {} if method == "POST" else None, key)
        assert (status, error["code"]) == (401, "invalid_api_key"), path
        assert error["message"] == "the key is missing, wrong or expired"
    ways: list[Any] = [
        {"subprotocols": ["duologue", f"duologue-key.{key}"] if key else ["duologue"]},
        {"additional_headers": {"Authorization": f"Bearer {key}"}},
    ]
    for given in ways:
        with pytest.raises(InvalidStatus) as refused, connect(feed_of(url), **given):
            pass
        assert status_of(refused) == (401, "invalid_api_key")


def test_an_operator_is_no_client(url: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Client(url, "/v1/realtime", KEYS["ann"])
    assert status_of(refused) == (401, "invalid_api_key")
    assert fetched(f"{url}/v1/realtime/client_secrets", {}, KEYS["ann"])[0] == 401


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", ""])
def test_a_page_of_another_site_does_nothing(url: str, origin: str) -> None:
    """Even where it may call: this server takes calls from pages of all origins."""
    for method, path in ASKED:
        body = {} if method == "POST" else None
        status, error = asked(url, path, body, KEYS["ann"], Origin=origin)
        assert (status, error["code"]) == (403, "origin_not_allowed"), path
    headers = {"Authorization": f"Bearer {KEYS['ann']}", "Origin": origin}
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(feed_of(url), additional_headers=headers),
    ):
        pass
    assert status_of(refused) == (403, "origin_not_allowed")
    assert asked(url, "/console/modes", None, KEYS["ann"], Origin=url)[0] == 200


def test_without_tenants_who_is_here_is_an_operator_under_this_machines_name(
    tmp_path: Path,
) -> None:
    audit = tmp_path / "audit.sqlite"
    with scripted_server("limits.attempts_per_minute=9", f"tools.audit={audit}") as url:
        port = urlsplit(url).port
        with connect(feed_of(url), subprotocols=["duologue"], origin=url) as page:  # pyright: ignore[reportArgumentType]
            assert page.subprotocol == "duologue"
            hello = json.loads(page.recv(20))
            assert (hello["operator"], hello["method"]) == ("local", "supervisor")
        with connect(feed_of(url)) as page:
            assert page.subprotocol is None
        for host in (f"localhost:{port}", f"[::1]:{port}"):
            assert asked(url, "/console/modes", Host=host)[0] == 200
        # A name of another site's that leads to this machine: its pages are of the same origin.
        host = f"evil.example:{port}"
        for origin in ({}, {"Origin": f"http://{host}"}):
            status, error = asked(url, "/console/modes", Host=host, **origin)
            assert (status, error["code"]) == (403, "host_not_allowed")
        audit.unlink()
        status, error = asked(url, "/console/calls/any")
        assert (status, error["code"]) == (503, "no_audit_log")
        for _ in range(3):
            status, error = asked(url, "/console/modes", key="x")
        assert (status, error["code"]) == (429, "too_many_attempts")


def test_so_many_pages_and_no_more(url: str) -> None:
    async def test() -> None:
        headers = {"Authorization": f"Bearer {KEYS['ann']}"}
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(_MOST_PAGES):
                opening = websockets.connect(feed_of(url), additional_headers=headers)
                page = await stack.enter_async_context(opening)
                await page.recv()
            with pytest.raises(InvalidStatus) as refused:
                await websockets.connect(feed_of(url), additional_headers=headers)
            assert status_of(refused) == (429, "too_many_pages")

    asyncio.run(test())


# What is sent to a feed


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "[]",
        "null",
        '{"type": "nope"}',
        '{"type": "hello"}',
        "{}",
        b"\xff\x00",
        "[" * 100_000,
        '{"type": "watch", "x": ' + "[" * 50_000,
        '{"type": "watch"}',
        '{"type": "watch", "session_id": 1}',
        '{"type": "take_over", "session_id": null}',
        json.dumps({"type": "watch", "session_id": "x" * 129}),
        '{"type": "say"}',
        '{"type": "say", "audio": "no base64"}',
        json.dumps({"type": "say", "audio": base64.b64encode(bytes(96_002)).decode()}),
        json.dumps({"type": "hand_back", "note": "x" * 4001}),
    ],
)
def test_what_a_page_must_not_send_is_answered(url: str, data: str | bytes) -> None:
    with console(url) as page, console(url) as other:
        page.socket.send(data)
        error = page.until("error")[-1]
        assert {*error} == {"type", "code", "message"}
        assert error["code"] == "invalid_message"
        assert len(error["message"]) <= 500
        other.send("watch", session_id="none")  # others see nothing of it
        assert "error" not in [message["type"] for message in other.until("error")[:-1]]
        page.send("watch", session_id="../x")
        assert page.until("error")[-1]["code"] == "session_not_found"


def test_a_page_sends_so_much_and_no_more(url: str) -> None:
    with console(url) as page, console(url) as other:
        for _ in range(2000):
            page.send("watch", session_id=None)
        assert page.until("error")[-1]["code"] == "rate_limit_exceeded"
        other.send("hand_back")
        assert other.until("error")[-1]["code"] == "not_taken_over"
        with contextlib.suppress(ConnectionClosed):
            page.socket.send("x" * 2**23)
            page.until("none")
        other.until("load")


class Channel:
    """Of a page that does not read."""

    def __init__(self) -> None:
        self.closed: list[tuple[int, str]] = []

    async def receive(self) -> str | bytes | None:
        return await asyncio.get_running_loop().create_future()

    async def send(self, data: str | bytes) -> bool:
        return await asyncio.get_running_loop().create_future()

    async def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


def test_a_page_that_does_not_read_is_closed_alone() -> None:
    async def test() -> None:
        modes = SimpleNamespace(all={}, subscribe=lambda _: lambda: None)
        link = SimpleNamespace(is_up=True)
        gateway: Any = SimpleNamespace(
            lines={}, metrics=Metrics(), link=link, tools=SimpleNamespace(modes=modes),
            observe=lambda _: None,
        )  # fmt: skip
        feed, slow, other = Feed(gateway), Channel(), Channel()
        page, another = (Page(feed, one, Operator("ann", "console")) for one in (slow, other))
        running, waiting = (asyncio.create_task(one.run()) for one in (page, another))
        await asyncio.sleep(0)
        for _ in range(3 * _MOST_WAITING):
            page.put("{}")
        await asyncio.wait_for(running, 10)
        assert slow.closed == [(1008, "too_slow")]
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert len(asyncio.all_tasks()) == 1  # nobody is told the load any more

    asyncio.run(test())


# The page


def raw(url: str, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """What is answered to a path that no client would send."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.endheaders()
    reply = connection.getresponse()
    headers = {name.lower(): value for name, value in reply.getheaders()}
    return reply.status, headers, reply.read()


def test_the_page_comes_without_a_key_and_runs_nothing_of_others(url: str) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/console/static/feed.js", "javascript"),
        ("/console/static/index.html", "text/html"),
    ):
        status, headers, body = raw(url, path)
        assert status == 200
        assert body
        assert kind in headers["content-type"]
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert raw(url, "/", "POST")[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        "/console/static/../gateway/app.py",
        "/console/static/%2e%2e/gateway/app.py",
        "/console/static/..%2fgateway%2fapp.py",
        "/console/static/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/console/static//etc/passwd",
        "/console/static/%2fetc%2fpasswd",
        "/console/static/..\\gateway\\app.py",
        "/console/static/%00",
        "/console/static/index.html%00.js",
        "/console/static/",
        "/console/static/worklets",
        "/console/static/" + "x" * 5000,
        "/console/static",
        "/console/../console/static/../../run.py",
        "/console",
        "/console/feed",
        "//",
    ],
)
def test_nothing_else_is_served(url: str, path: str) -> None:
    status, _, body = raw(url, path)
    assert status in (404, 307)
    assert b"import" not in body
    assert b"root:" not in body


# Load


def test_load_is_of_the_last_ten_seconds() -> None:
    now_s = 100.0
    metrics = Metrics(lambda: now_s)
    nothing = metrics.load()
    assert nothing == Load(capacity_refused=0)
    for number in range(100):
        metrics.answered(0.001 * (number + 1), is_late=number >= 80)
    metrics.refused.labels("at_capacity").inc(3)
    metrics.refused.labels("invalid_api_key").inc(5)
    now_s = 105.0
    metrics.answered(0.5, is_late=True)
    load = metrics.load()
    assert load.latency_ms_p50 == pytest.approx(51, abs=1)
    assert load.latency_ms_p99 == pytest.approx(100, abs=1)
    assert load.late_share == pytest.approx(21 / 101)
    assert load.capacity_refused == 3
    now_s = 110.0
    load = metrics.load()
    assert (load.latency_ms_p50, load.late_share) == (500, 1)
    metrics.refused.labels("at_capacity").inc(1)
    now_s = 114.0
    assert metrics.load().capacity_refused == 1
    now_s = 130.0
    assert metrics.load().capacity_refused == 0
    assert metrics.load().latency_ms_p50 is None


def test_no_more_answers_are_kept_than_there_is_room_for() -> None:
    metrics = Metrics(lambda: 0.0)
    for _ in range(30_000):
        metrics.answered(0.02, is_late=False)
    assert len(metrics._answers) == 20_000
