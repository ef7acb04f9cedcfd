"""Webhooks, sent over real sockets to receivers that check signatures with the library of Standard
Webhooks and events with that of CloudEvents."""

import asyncio
import base64
import contextlib
import functools
import heapq
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from served_app import bound, serving, url_of
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

import serve.webhooks.outbox
import serve.webhooks.sender
from serve.gateway.acts import Acts
from serve.gateway.events import Ended, Event, Started, ToolEvent
from serve.gateway.events import Settings as SessionSettings
from serve.gateway.limits import Tenant
from serve.gateway.toolbox import Toolbox
from serve.tools.call import State
from serve.tools.runtime import ToolRuntime, ToolsConfig
from serve.tools.source import ToolError
from serve.tools.told import HandoffRequested, ToolChanged
from serve.webhooks.events import CloudEvent, Events
from serve.webhooks.outbox import Outbox
from serve.webhooks.settings import Receiver, read_receivers
from serve.webhooks.webhooks import Webhooks

SECRET, OTHER_SECRET = (
    "whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b")
)
DAY_S, START_S = 86_400, 1_800_000_000
CALL_ENDED = "io.duologue.tool.call.ended"
HANDOFF = "io.duologue.handoff.requested"
SESSION_ENDED = "io.duologue.session.ended"
PHONE, CARD = "+49 171 2345678", "4111 1111 1111 1111"
EXAMPLES = Path(__file__).parent.parent / "serve" / "examples"


# Receivers


class Office:
    """A receiver: `answer` says with which status an event is answered; 2xx is taken."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any] = lambda event: 204) -> None:
        self.answer = answer
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[dict[str, Any]] = []
        self.at_once, self.most_at_once = 0, 0
        self.app = Starlette(routes=[Route("/{path:path}", self._take, methods=["POST", "GET"])])

    @property
    def ids(self) -> list[str]:
        """Of what was taken."""
        return [event["id"] for event in self.taken]

    async def _take(self, request: Request) -> Response:
        body, headers = await request.body(), dict(request.headers)
        self.asked.append((headers, body))
        event = Webhook(SECRET).verify(body, headers)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        status = self.answer(event)
        if not isinstance(status, int):
            status = await status
        self.at_once -= 1
        if 200 <= status < 300:
            self.taken.append(event)
        return Response(status_code=status, headers={"Location": "/elsewhere"})


def receiver(url: str, secret: str = SECRET, **wants: Any) -> Receiver:
    return Receiver(f"{url}/hooks/path-as-good-as-a-key", Webhook(secret), **wants)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


class Time:
    """Passes only once everything that is to be sent sleeps; `slept_s` are the sleeps."""

    def __init__(self) -> None:
        self.now_s, self.slept_s = float(START_S), list[float]()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        awake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now_s + seconds, next(self._numbers), awake))
        await awake

    async def passes(self, webhooks: Webhooks, condition: Callable[[], bool]) -> None:
        """Until that holds."""
        await webhooks._made.join()

        def step() -> bool:
            sessions = sum(len(sender._to_come) for sender in webhooks._senders.values())
            # They and what tidies sleep.
            if not (is_so := condition()) and len(self._sleepers) == sessions + 1:
                due_s, _, awake = heapq.heappop(self._sleepers)
                self.now_s = max(self.now_s, due_s)
                awake.set_result(None)
            return is_so

        await until(step)


# What a gateway tells


def line(session: str = "s1", tenant: str = "shop") -> Any:
    arrival = SimpleNamespace(tenant=Tenant(tenant), dialect="realtime")
    return SimpleNamespace(
        session=SimpleNamespace(name=session), arrival=arrival, opened_at_s=START_S - 65
    )


def started(session: str = "s1") -> Started:
    return Started(session, SessionSettings(), "token")


def changed(number: int, state: str, session: str = "s1", **fields: Any) -> ToolEvent:
    about = {
        "call_id": f"call_{session}_{number}", "number": number, "revision": 0, "supersedes": "",
        "tool": "book", "arguments": {"day": number}, "confidence": 0.9, "effect": "write",
        "key": "k", "timeout_s": 5.0, "delivery": "interrupt", "is_client_run": False,
        "is_wanted": True, "result": {"booked": number}, "state": State(state),
    } | fields  # fmt: skip
    return ToolEvent(100 + number, ToolChanged(**about))


def handed_off(session: str = "s1") -> ToolEvent:
    told = HandoffRequested(f"handoff_{session}_1", "requested", 0.8, "book: day 1: succeeded")
    return ToolEvent(200, told)


def tell(webhooks: Webhooks, session: str, *events: Event, tenant: str = "shop") -> None:
    for event in events:
        webhooks.listener(line(session, tenant), event)


def tell_calls(webhooks: Webhooks, sessions: Sequence[str], numbers: Sequence[int]) -> None:
    """Calls that have succeeded, the sessions' in turn."""
    for number, session in itertools.product(numbers, sessions):
        tell(webhooks, session, changed(number, "succeeded", session))


def names(sessions: Sequence[str], numbers: Sequence[int]) -> list[str]:
    return [f"call_{s}_{n}_succeeded" for n, s in itertools.product(numbers, sessions)]


def of_session(ids: Sequence[str], session: str) -> list[str]:
    return [one for one in ids if one.startswith(f"call_{session}_")]


def an_event(number: int = 1, session: str = "s1") -> CloudEvent:
    data = {"tenant": "shop", "number": number}
    return CloudEvent(f"e_{session}_{number}", "/duologue/shop", CALL_ENDED, session, "now", data)


@contextlib.asynccontextmanager
async def opened(
    path: Path,
    receivers: Sequence[Receiver],
    time: Time | None = None,
    sessions: Sequence[str] = (),
) -> AsyncIterator[Webhooks]:
    """In whose sessions something has begun. Unless there is a `time`, no sleep takes any."""

    async def no_sleep(seconds: float) -> None:
        await (asyncio.sleep(0) if seconds < 3600 else asyncio.Event().wait())

    of_time = (time.clock, time.sleep) if time else (lambda: float(START_S), no_sleep)
    webhooks = Webhooks(receivers, path, *of_time)
    await webhooks.open()
    for session in sessions:
        tell(webhooks, session, started(session))
    try:
        yield webhooks
    finally:
        await webhooks.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


# The file of receivers


def written(folder: Path, text: str) -> Path:
    file = folder / "webhooks.yaml"
    file.write_text(text)
    return file


def test_receivers_are_read_with_secrets_of_the_environment(tmp_path):
    file = written(
        tmp_path,
        f"""
        - url: https://flows.example/duologue
          secret_env: ONE
          types: [{SESSION_ENDED}]
          tenants: [shop]
        - {{url: "http://127.0.0.1:9000/", secret_env: TWO}}
        - {{url: "http://[::1]:9000", secret_env: TWO}}
        - {{url: "http://localhost:9000", secret_env: TWO}}
        """,
    )
    one, two, *_ = read_receivers(file, {"ONE": SECRET, "TWO": OTHER_SECRET})
    ended = CloudEvent("e", "/duologue/shop", SESSION_ENDED, "s", "now", {"tenant": "shop"})
    others = CloudEvent("e", "/duologue/x", SESSION_ENDED, "s", "now", {"tenant": "x"})
    assert [one.wants(ended), one.wants(others), one.wants(an_event())] == [True, False, False]
    assert two.wants(others)
    assert SECRET not in repr(one)
    assert two.host == "127.0.0.1"


ONE = "- {{url: {}, secret_env: ONE}}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ONE.format("http://flows.example/x"), r"\$\[0\]` url: must be https"),
        (ONE.format("http://10.0.0.1/x"), "must be https"),
        (ONE.format("http://localhost.example/x"), "must be https"),
        (ONE.format("ftp://flows.example"), r"regex.*\$\[0\].url"),
        (ONE.format("https://ann:key@flows.example"), r"regex.*\$\[0\].url"),
        (ONE.format('"https://flows.example/x?key=1"'), r"regex.*\$\[0\].url"),
        (f"{ONE.format('https://a.example')}\n{ONE.format('https://a.example')}", r"\[1\].*twice"),
        ("- {url: https://a.example, secret_env: NONE}", "no variable NONE"),
        ("- {url: https://a.example, secret_env: SHORT}", "SHORT must be whsec_ and 24 to 64"),
        ("- {url: https://a.example, secret_env: BARE}", "BARE must be whsec_ and 24 to 64"),
        ("- {url: https://a.example, secret_env: 'whsec_abc='}", r"regex.*\$\[0\].secret_env"),
        ("- {url: https://a.example, secret_env: whsec_abcd}", r"regex.*\$\[0\].secret_env"),
        ("- {url: https://a.example, secret: whsec_abc}", "unknown field `secret`|secret_env"),
        ("- {url: https://a.example}", "required field `secret_env`"),
        ("- {url: https://a.example, secret_env: ONE, types: [call]}", r"\$\[0\].types"),
        ("- {url: https://a.example, secret_env: ONE, types: []}", r"\$\[0\].types"),
        ("url: https://a.example", "Expected `array`"),
        ("- {url: [", "line 2"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, text, why):
    environment = {"ONE": SECRET, "SHORT": "whsec_c2hvcnQ=", "BARE": SECRET.removeprefix("whsec_")}
    with pytest.raises(ValueError, match=f"(?s)webhooks.yaml: .*({why})") as wrong:
        read_receivers(written(tmp_path, text), environment)
    assert not any(secret in str(wrong.value) for secret in environment.values())


# Events


def test_calls_are_told_when_they_have_ended():
    events = Events(lambda: START_S)
    assert events.of(line(), started()) is None
    states = ["draft", "speculative", "committed", "awaiting_confirmation", "running"]
    assert not any(events.of(line(), changed(1, state, result=None)) for state in states)
    assert events.of(line(), changed(9, "cancelled", tool="", arguments={}, result=None)) is None
    made = events.of(line(), changed(1, "succeeded", revision=1, supersedes="call_s1_0"))
    assert made
    assert (made.id, made.type, made.source) == (
        "call_s1_1_succeeded", CALL_ENDED, "/duologue/shop"
    )  # fmt: skip
    assert (made.subject, made.time) == ("s1", "2027-01-15T08:00:00.000Z")
    assert made.data == {
        "session_id": "s1", "tenant": "shop", "dialect": "realtime",
        "call_id": "call_s1_1", "tool": "book", "arguments": {"day": 1}, "state": "succeeded",
        "result": {"booked": 1}, "reason": "", "effect": "write", "is_client_run": False,
        "confidence": 0.9, "revision": 1, "supersedes": "call_s1_0",
    }  # fmt: skip
    ends = ["failed", "cancelled", "superseded", "compensated"]
    ids = [(events.of(line(), changed(1, state)) or made).id for state in ends]
    assert ids == [f"call_s1_1_{state}" for state in ends]


def test_an_errors_quotation_is_not_told():
    events = Events(lambda: START_S)
    events.of(line(), started())
    why = f"invalid arguments: phone is {PHONE!r}"
    made = events.of(line(), changed(1, "failed", reason=why, result={"day": 1, "error": why}))
    assert made
    assert made.data["reason"] == "invalid arguments"
    assert made.data["result"] == {"day": 1, "error": "invalid arguments"}


def test_the_end_of_a_session_sums_it_up():
    events = Events(lambda: START_S)
    order = {"tool": "order_status"}
    for event in (
        started(),
        changed(1, "running", **order, arguments={"order": "1", "name": "Ann"}, result=None),
        changed(2, "succeeded", arguments={"day": "Monday"}),
        changed(1, "succeeded", **order, arguments={"order": "1", "name": "Ann"}),
        changed(2, "superseded", arguments={"day": "Monday"}),
        changed(3, "succeeded", arguments={"day": "Tuesday", "name": "Anne"}),
        changed(4, "failed", arguments={"day": "Sunday"}),
        changed(5, "awaiting_confirmation", arguments={}, result=None),
    ):
        events.of(line(), event)
    made = events.of(line(), Ended("hang_up"))
    assert made
    assert (made.id, made.type, made.subject) == ("session_s1", SESSION_ENDED, "s1")
    assert (made.data["reason"], made.data["duration_s"]) == ("hang_up", 65.0)
    assert made.data["intent"] == ["order_status", "book"]
    assert made.data["fields"] == {"order": "1", "name": "Anne", "day": "Tuesday"}
    assert made.data["summary"].split("\n") == [
        "order_status: order 1, name Ann: succeeded",
        "book: day Monday: superseded",
        "book: day Tuesday, name Anne: succeeded",
        "book: day Sunday: failed",
        "book: : awaiting_confirmation",
    ]
    states = [(call["call_id"], call["state"]) for call in made.data["calls"]]
    assert states[1] == ("call_s1_2", State.SUPERSEDED)
    assert len(states) == 5
    assert events.of(line(), Ended("hang_up")) is None  # nothing is kept of it


def test_of_a_session_with_many_calls_the_last_are_told():
    events = Events(lambda: START_S)
    events.of(line(), started())
    for number in range(1000):
        events.of(line(), changed(number, "succeeded"))
    made = events.of(line(), Ended("too_long"))
    assert made
    assert [call["call_id"] for call in made.data["calls"]] == [
        f"call_s1_{number}" for number in range(800, 1000)
    ]


def look_up(phone: str, name: str) -> dict[str, Any]:
    """Looks a customer up."""
    return {"phone": phone, "cards": [{"number": CARD, "bank": "Mill Bank"}], "name": name}


def refuse(phone: str) -> None:
    """Refuses."""
    raise ToolError(f"invalid arguments: {phone} is none")


def functions() -> list[Callable[..., Any]]:
    return [look_up, refuse]


def test_what_policy_redacts_never_goes_out(tmp_path, path):
    files = {
        "policy": """tools:
            look_up: {effect: read, confirmation: none, redact: [phone, number]}
            refuse: {effect: read, confirmation: none, redact: [phone]}""",
        "sources": "shop: {kind: functions, make: 'test_webhooks:functions'}",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    named = {name: str(tmp_path / f"{name}.yaml") for name in files}

    async def hold_a_call() -> Office:
        tools, office = ToolRuntime(ToolsConfig(**named, audit=str(tmp_path / "audit"))), Office()
        await tools.open()
        async with (
            serving(office.app) as url,
            opened(path, [receiver(url)], sessions=["s1"]) as webhooks,
        ):
            upstream: Any = SimpleNamespace(give=lambda *_: None, tell=lambda *_: None)
            heard = functools.partial(tell, webhooks, "s1")
            box = Toolbox(tools)
            box.take(SessionSettings())
            desk = Acts("s1", "shop", tools, box, upstream, heard).desk
            desk.made(1, "look_up", {"phone": PHONE, "name": "Ann"}, 0.9)
            await desk.over()
            desk.hand_off("requested")
            desk.made(2, "refuse", {"phone": PHONE}, 0.9)
            await desk.over()
            tell(webhooks, "s1", Ended("hang_up"))
            await until(lambda: len(office.taken) == 4)
        await tools.close()
        return office

    office = asyncio.run(hold_a_call())
    by_id = {event["id"]: event for event in office.taken}
    looked_up = by_id["call_s1_1_succeeded"]["data"]
    assert looked_up["arguments"] == {"phone": "[redacted]", "name": "Ann"}
    assert looked_up["result"]["cards"] == [{"number": "[redacted]", "bank": "Mill Bank"}]
    assert "call_s1_2_failed" in by_id
    assert by_id["session_s1"]["data"]["fields"] == {"phone": "[redacted]", "name": "Ann"}
    assert not any(secret in body.decode() for _, body in office.asked for secret in (PHONE, CARD))


# On the wire


def test_every_event_is_a_signed_cloud_event(path):
    async def send() -> tuple[Office, Office]:
        office, other = Office(), Office()
        async with serving(office.app) as url, serving(other.app) as other_url:
            both = [receiver(url), receiver(other_url, types=frozenset({SESSION_ENDED}))]
            async with opened(path, both, sessions=["s1"]) as webhooks:
                tell(webhooks, "s1", changed(1, "succeeded", arguments={"name": "Zoë ☃"}))
                tell(webhooks, "s1", handed_off(), Ended("hang_up"))
                await until(lambda: len(office.taken) == 3 and len(other.taken) == 1)
        return office, other

    office, other = asyncio.run(send())
    assert [event["type"] for event in office.taken] == [CALL_ENDED, HANDOFF, SESSION_ENDED]
    assert [event["type"] for event in other.taken] == [SESSION_ENDED]
    assert office.taken[0]["data"]["arguments"] == {"name": "Zoë ☃"}
    assert office.taken[1]["data"] == {
        "session_id": "s1", "tenant": "shop", "dialect": "realtime",
        "handoff_id": "handoff_s1_1", "reason": "requested", "confidence": 0.8,
        "summary": "book: day 1: succeeded",
    }  # fmt: skip
    for headers, body in office.asked:
        read = from_http_event(HTTPMessage(headers, body))
        assert read.get_id() == headers["webhook-id"]
        assert (read.get_source(), read.get_subject()) == ("/duologue/shop", "s1")
        assert (read.get_specversion(), read.get_datacontenttype()) == ("1.0", "application/json")
        with pytest.raises(WebhookVerificationError):
            Webhook(OTHER_SECRET).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body.replace(b"shop", b"shoq"), headers)


def test_an_event_that_fails_holds_up_its_own_session_alone(path):
    async def send() -> None:
        stuck = {"call_a_2_succeeded"}
        office = Office(lambda event: 500 if event["id"] in stuck else 200)
        other = Office()
        async with (
            serving(office.app) as url,
            serving(other.app) as other_url,
            opened(path, [receiver(url), receiver(other_url)], sessions="abc") as webhooks,
        ):
            tell_calls(webhooks, "abc", range(1, 6))
            for session in "bc":
                await until(lambda s=session: len(of_session(office.ids, s)) == 5)
            await until(lambda: len(other.ids) == 15)
            refused = [h for h, _ in office.asked if h["webhook-id"] in stuck]
            await until(lambda: len(office.asked) > 30 + len(refused))
            assert of_session(office.ids, "a") == ["call_a_1_succeeded"]
            stuck.clear()
            await until(lambda: len(office.ids) == 15)
        for session in "abc":
            expected = names([session], range(1, 6))
            assert of_session(office.ids, session) == expected
            assert of_session(other.ids, session) == expected

    asyncio.run(send())


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 503])
def test_what_is_not_taken_comes_again_under_its_id(path, status):
    time = Time()

    async def send() -> Office:
        office = Office(lambda event: status if len(office.asked) <= 20 else 204)
        async with (
            serving(office.app) as url,
            opened(path, [receiver(url)], time, sessions=["s1"]) as webhooks,
        ):
            tell(webhooks, "s1", changed(1, "succeeded"))
            await time.passes(webhooks, lambda: len(office.taken) == 1)
        return office

    office = asyncio.run(send())
    assert {headers["webhook-id"] for headers, _ in office.asked} == {"call_s1_1_succeeded"}
    assert len(office.asked) == 21
    assert len({body for _, body in office.asked}) == 1
    waits_s = [slept_s for slept_s in time.slept_s if slept_s != 3600]
    assert len(waits_s) == 20
    assert len({*waits_s}) == 20  # with jitter
    for doublings, wait_s in enumerate(waits_s):
        longest_s = min(2**doublings, 300)
        assert longest_s / 2 <= wait_s <= longest_s


def test_a_receiver_that_does_not_answer_is_asked_again(path, monkeypatch):
    monkeypatch.setattr(serve.webhooks.sender, "_TIMEOUT_S", 0.5)

    async def send() -> Office:
        heard_of_it = asyncio.Event()

        async def too_late() -> int:
            await heard_of_it.wait()
            return 500

        office = Office(lambda event: 204 if len(office.asked) > 1 else too_late())
        async with (
            serving(office.app) as url,
            opened(path, [receiver(url)], sessions=["s1"]) as webhooks,
        ):
            tell(webhooks, "s1", changed(1, "succeeded"))
            await until(lambda: bool(office.taken))
            heard_of_it.set()
        return office

    assert len(asyncio.run(send()).asked) >= 2


def test_who_says_that_it_is_gone_is_sent_nothing_until_a_restart(path):
    async def send() -> None:
        office, other = Office(lambda event: 410), Office()
        both = serving(office.app), serving(other.app)
        async with both[0] as url, both[1] as other_url:
            receivers = [receiver(url), receiver(other_url)]
            with capture_logs() as logs:
                async with opened(path, receivers, sessions="ab") as webhooks:
                    tell_calls(webhooks, "a", [1])
                    await until(lambda: bool(office.asked) and len(other.taken) == 1)
                    await until(lambda: webhooks.waiting == 0)
                    tell_calls(webhooks, "ab", [2, 3])
                    await until(lambda: len(other.taken) == 5)
                assert len(office.asked) == 1
            assert [log["event"] for log in logs] == ["webhook_receiver_gone"]
            office.answer = lambda event: 204
            async with opened(path, receivers):
                await until(lambda: len(office.taken) == 5)
            assert of_session(office.ids, "a") == names("a", [1, 2, 3])
            assert len(other.taken) == 5

    asyncio.run(send())


def test_no_more_than_so_many_requests_are_made_at_once(path):
    async def send() -> Office:
        go = asyncio.Event()

        async def held() -> int:
            await go.wait()
            return 204

        office, sessions = Office(lambda event: held()), [f"s{n}" for n in range(40)]
        async with (
            serving(office.app) as url,
            opened(path, [receiver(url)], sessions=sessions) as webhooks,
        ):
            tell_calls(webhooks, sessions, [1])
            await until(lambda: office.at_once == 8 and webhooks.waiting == 40)
            go.set()
            await until(lambda: len(office.taken) == 40)
        return office

    assert asyncio.run(send()).most_at_once == 8


def test_logs_have_neither_secrets_nor_paths(path):
    async def send() -> None:
        office = Office(lambda event: [500, 204, 410][len(office.asked) - 1])
        async with (
            serving(office.app) as url,
            opened(path, [receiver(url)], sessions="ab") as webhooks,
        ):
            tell_calls(webhooks, "a", [1])
            await until(lambda: len(office.asked) == 2)
            tell_calls(webhooks, "b", [1])
            await until(lambda: len(office.asked) == 3)

    with capture_logs() as logs:
        asyncio.run(send())
    said = [(log["event"], log["host"]) for log in logs]
    kinds = ("failing", "well", "gone")
    assert said == [(f"webhook_receiver_{kind}", "127.0.0.1") for kind in kinds]
    assert logs[0]["why"] == 500
    assert not any(text in str(logs) for text in (SECRET, SECRET[6:], "as-good-as-a-key"))


# What must not be lost


def test_a_receiver_that_was_down_for_an_hour_has_missed_nothing(path):
    sessions, time = [f"s{n}" for n in range(12)], Time()

    async def send() -> Office:
        office, listener = Office(), bound()
        both = [receiver(url_of(listener))]
        async with opened(path, both, time, sessions) as webhooks:
            tell_calls(webhooks, sessions, range(4))
            await time.passes(webhooks, lambda: time.now_s > START_S + 1800)
            tell_calls(webhooks, sessions, range(4, 8))
            await time.passes(webhooks, lambda: time.now_s > START_S + 3600)
            assert webhooks.waiting == 8 * 12
            async with serving(office.app, listener):
                back_s = time.now_s
                await time.passes(webhooks, lambda: webhooks.waiting == 0)
                assert time.now_s - back_s <= 300
        return office

    office = asyncio.run(send())
    assert sorted(office.ids) == sorted(names(sessions, range(8)))  # here none of them twice
    for session in sessions:
        assert of_session(office.ids, session) == names([session], range(8))


def be_a_gateway() -> None:
    """Another process: `URL PATH SESSIONS`, comma-separated, each of four calls."""
    url, path, sessions = sys.argv[1], Path(sys.argv[2]), [*filter(None, sys.argv[3].split(","))]

    async def send() -> None:
        webhooks = Webhooks([receiver(url)], path)
        await webhooks.open()
        for session in sessions:
            tell(webhooks, session, started(session))
        tell_calls(webhooks, sessions, range(4))
        await webhooks._made.join()
        print("stored", flush=True)
        await asyncio.Event().wait()

    asyncio.run(send())


def test_a_killed_process_loses_nothing_and_repeats_what_was_not_acknowledged(path):
    sessions = [f"s{n}" for n in range(5)]

    @contextlib.asynccontextmanager
    async def gateway(
        url: str, sessions: Sequence[str]
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        program = "import test_webhooks; test_webhooks.be_a_gateway()"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, url, str(path), ",".join(sessions),
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout
        try:
            assert await process.stdout.readline() == b"stored\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def send() -> list[str]:
        stored, victim = asyncio.Event(), None

        async def kill_at_the_ninth() -> int:
            await stored.wait()
            assert victim
            if len(office.taken) == 8 and victim.returncode is None:
                victim.send_signal(signal.SIGKILL)
                await victim.wait()
                return 500  # which nobody hears
            return 204

        office = Office(lambda event: kill_at_the_ninth())
        async with serving(office.app) as url:
            async with gateway(url, sessions) as victim:
                stored.set()
                async with asyncio.timeout(60):
                    await victim.wait()
            async with gateway(url, []):
                await until(lambda: {*office.ids} == {*names(sessions, range(4))})
        return office.ids

    ids = asyncio.run(send())
    for session in sessions:
        came = of_session(ids, session)
        assert [one for one, _ in itertools.groupby(came)] == names([session], range(4))
        # The next one was sent once the last one was known to be taken: at most that came again.
        assert len(came) <= 5


def test_what_was_put_is_on_disk(path, tmp_path):
    async def put() -> None:
        outbox = Outbox(path)
        await outbox.open()
        for number in range(1, 4):
            assert await outbox.put(an_event(number), ["https://a.example"]) == number
            copy = tmp_path / f"copy{number}"
            for file in tmp_path.glob("outbox.sqlite*"):
                shutil.copy(file, tmp_path / file.name.replace("outbox.sqlite", copy.name))
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                rows = connection.execute("SELECT id FROM events JOIN deliveries USING (place)")
                assert [*rows] == [(f"e_s1_{n}",) for n in range(1, number + 1)]
        assert await outbox.put(an_event(2), ["https://a.example"]) is None
        assert len(await outbox.to_come()) == 3
        await outbox.close()

    asyncio.run(put())
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_old_is_removed(path):
    time = Time()

    async def grow_old() -> None:
        outbox = Outbox(path, time.clock)
        await outbox.open()
        for number in range(1, 4):
            await outbox.put(an_event(number), ["a", "b"])
        for place in (1, 2):
            await outbox.delivered("a", place)
        await outbox.delivered("b", 1)
        time.now_s += DAY_S
        assert await outbox.tidy() == 0
        assert await outbox.put(an_event(1), ["a"]) is None  # known still
        time.now_s += 1
        assert await outbox.tidy() == 0
        assert [await outbox.letter(place) is None for place in (1, 2, 3)] == [True, False, False]
        assert await outbox.to_come() == [("b", "s1", 2), ("a", "s1", 3), ("b", "s1", 3)]
        await outbox.put(an_event(4), ["a"])
        time.now_s += 6 * DAY_S
        assert await outbox.tidy() == 3
        assert [delivery.receiver for delivery in await outbox.to_come()] == ["a"]
        await outbox.close()

    asyncio.run(grow_old())


def test_what_is_given_up_lets_the_next_of_its_session_through(path, monkeypatch):
    monkeypatch.setattr(serve.webhooks.outbox, "_GIVEN_UP_S", 4 * 3600)
    monkeypatch.setattr(serve.webhooks.outbox, "_KEPT_S", 2 * 3600)
    time = Time()

    async def send() -> Office:
        office = Office(lambda event: 500 if event["id"] == "call_s1_1_succeeded" else 204)
        async with (
            serving(office.app) as url,
            opened(path, [receiver(url)], time, ["s1"]) as webhooks,
        ):
            tell_calls(webhooks, ["s1"], [1])
            await time.passes(webhooks, lambda: time.now_s > START_S + 2 * 3600)
            tell_calls(webhooks, ["s1"], [2])
            await time.passes(webhooks, lambda: bool(office.taken))
        return office

    with capture_logs() as logs:
        assert asyncio.run(send()).ids == ["call_s1_2_succeeded"]
    assert [log["count"] for log in logs if log["event"] == "webhooks_given_up"] == [1]
    assert time.now_s > START_S + 4 * 3600


def test_an_outbox_is_one_processs_at_a_time(path, monkeypatch):
    monkeypatch.setattr(serve.webhooks.outbox, "_PATIENCE_S", 0.1)

    async def open_both() -> None:
        async with opened(path, []):
            with pytest.raises(OSError, match=r"outbox.sqlite can't be .* locked"):
                await Outbox(path).open()
        async with opened(path, []):
            pass

    asyncio.run(open_both())


def test_what_cannot_be_written_now_is_written_later_and_in_order(path, monkeypatch):
    put, failures = Outbox.put, iter(range(3))

    async def often_full(self: Outbox, *arguments: Any) -> int | None:
        if next(failures, None) is not None:
            raise OSError("no space left on device")
        return await put(self, *arguments)

    monkeypatch.setattr(Outbox, "put", often_full)

    async def send() -> Office:
        office = Office()
        async with (
            serving(office.app) as url,
            opened(path, [receiver(url)], sessions=["s1"]) as webhooks,
        ):
            tell_calls(webhooks, ["s1"], range(5))
            await until(lambda: len(office.taken) == 5)
        return office

    assert asyncio.run(send()).ids == names(["s1"], range(5))


@pytest.mark.parametrize("value", [object(), "\ud800"])
def test_what_json_cannot_hold_is_left_out_and_said(path, value):
    async def send() -> Office:
        office = Office()
        async with (
            serving(office.app) as url,
            opened(path, [receiver(url)], sessions=["s1"]) as webhooks,
        ):
            tell(webhooks, "s1", changed(1, "succeeded", arguments={"x": value}))
            tell_calls(webhooks, ["s1"], [2])
            await until(lambda: bool(office.taken))
        return office

    with capture_logs() as logs:
        assert asyncio.run(send()).ids == ["call_s1_2_succeeded"]
    assert [log["id"] for log in logs if log["event"] == "webhook_lost"] == ["call_s1_1_succeeded"]


def test_an_end_leaves_no_time_to_lose(path):
    """What is told right before the end is sent, and what can't be is on disk."""

    async def send() -> None:
        office, listener = Office(), bound()
        async with serving(office.app) as url:
            both = [receiver(url), receiver(url_of(listener))]
            async with opened(path, both, sessions=["s1"]) as webhooks:
                tell_calls(webhooks, ["s1"], range(3))
            assert office.ids == names(["s1"], range(3))
        outbox = Outbox(path)
        await outbox.open()
        left = [delivery.receiver for delivery in await outbox.to_come()]
        assert left == [both[1].url] * 3
        await outbox.close()

    asyncio.run(send())


def test_what_waits_for_a_receiver_that_the_file_no_longer_has_stays(path):
    async def send() -> Office:
        office, listener = Office(), bound()
        time = Time()
        async with opened(path, [receiver(url_of(listener))], time, ["s1"]) as webhooks:
            tell_calls(webhooks, ["s1"], range(2))
            await webhooks._made.join()
        async with opened(path, []) as webhooks:
            assert webhooks.waiting == 0
        async with (
            serving(office.app, listener) as url,
            opened(path, [receiver(url)]),
        ):
            await until(lambda: len(office.taken) == 2)
        return office

    with capture_logs() as logs:
        asyncio.run(send())
    unknown = [log for log in logs if log["event"] == "webhook_receiver_unknown"]
    assert [log["waiting"] for log in unknown] == [2]


# Examples


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    return __import__(name)


def test_a_workflow_starts_once_for_each_session_that_has_ended(path, monkeypatch):
    example_app = example("webhook_to_workflow", monkeypatch).app_of
    started_with: list[tuple[str, str, dict[str, Any]]] = []
    answers = iter([503, 200, 409])

    async def engine(request: Request) -> Response:
        headers = request.headers
        started_with.append(
            (headers["authorization"], headers["idempotency-key"], await request.json())
        )
        return Response(status_code=next(answers))

    async def send() -> None:
        app = Starlette(routes=[Route("/webhook/x", engine, methods=["POST"])])
        async with (
            serving(app) as engine_url,
            serving(example_app(SECRET, f"{engine_url}/webhook/x", "a key")) as url,
            opened(path, [Receiver(url, Webhook(SECRET))], sessions="ab") as webhooks,
        ):
            tell_calls(webhooks, "ab", [1])
            tell(webhooks, "a", Ended("hang_up"))
            await until(lambda: webhooks.waiting == 0 and len(started_with) == 2)
            tell(webhooks, "b", Ended("hang_up"))
            await until(lambda: webhooks.waiting == 0 and len(started_with) == 3)

    asyncio.run(send())
    assert [key for _, key, _ in started_with] == ["session_a", "session_a", "session_b"]
    key, _, given = started_with[1]
    assert key == "a key"
    assert (given["event_id"], given["intent"]) == ("session_a", ["book"])
    assert given["fields"] == {"day": 1}


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A server of its own."""
    if not shutil.which("redis-server"):
        pytest.skip("needs redis-server")
    with tempfile.TemporaryDirectory() as folder:
        at = f"{folder}/redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", at, "--save", ""]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
            yield f"unix://{at}"
            server.terminate()


def test_a_redis_stream_has_each_event_once(path, tmp_path, monkeypatch, redis_url):
    redis_of = pytest.importorskip("redis.asyncio", reason="needs the package redis").from_url
    stream = example("webhook_to_redis_stream", monkeypatch)

    async def send() -> list[Any]:
        redis = redis_of(redis_url, decode_responses=True)
        # Until Redis is up the example answers 500, and what is sent comes again.
        async with serving(stream.app_of(SECRET, redis_url)) as url:
            to = [Receiver(url, Webhook(SECRET))]
            async with opened(path, to, sessions="ab") as webhooks:
                tell_calls(webhooks, "ab", range(3))
                await until(lambda: webhooks.waiting == 0)
            path.unlink()  # as if nobody knew what had been taken
            async with opened(path, to, sessions="ab") as webhooks:
                tell_calls(webhooks, "ab", range(4))
                await until(lambda: webhooks.waiting == 0)
            forged = [Receiver(url, Webhook(OTHER_SECRET))]
            async with opened(tmp_path / "forged.sqlite", forged, Time(), ["c"]) as webhooks:
                tell_calls(webhooks, ["c"], [1])
                await until(lambda: any(log.get("why") == 401 for log in logs))
        entries = await redis.xrange(stream.STREAM)
        await redis.aclose()
        return entries

    with capture_logs() as logs:
        entries = asyncio.run(send())
    ids = [fields["id"] for _, fields in entries]
    assert Counter(ids) == Counter(names("ab", range(4)))
    assert of_session(ids, "a") == names("a", range(4))
    assert json.loads(entries[0][1]["event"])["id"] == ids[0]
