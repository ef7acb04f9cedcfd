"""docs/protocol.md says what the code does: every message, field and code, and none besides."""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from serve.dialects import (
    hydra,
    hydra_events,
    live,
    live_config,
    live_events,
    live_sideband,
    realtime,
    realtime_events,
    twilio,
)
from serve.dialects.dialect import CLOSE_CODES, Dialect, Send
from serve.dialects.writing import fields_of
from serve.gateway.events import (
    CallCancelled,
    CallMade,
    Configure,
    Configured,
    Ended,
    Event,
    HandedBack,
    Heard,
    Problem,
    ServerTools,
    ServerToolsListed,
    Settings,
    Started,
    TakenOver,
    ToolEvent,
)
from serve.gateway.page import PageMessage
from serve.tools.call import State
from serve.tools.source import Declared
from serve.tools.told import (
    ConfirmationAsked,
    HandoffFailed,
    HandoffRequested,
    ModeChanged,
    ResultGiven,
    ToolChanged,
)

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text()
CLIENT_MESSAGES = {
    "OpenAI Realtime": realtime_events.ClientMessage,
    "OpenAI Live": live_events.ClientMessage,
    "Hydra": hydra_events.ClientMessage,
    "Twilio": twilio._Message,
}
MODULES = {
    "OpenAI Realtime": (realtime_events,),
    "OpenAI Live": (live_events, live_config),
    "Hydra": (hydra_events,),
    "Twilio": (twilio,),
}
UNSAID = {"type", "event_id"}
SOURCES = {
    "In common": "serve/gateway/*.py",
    "OpenAI Realtime": "serve/dialects/realtime*.py",
    "OpenAI Live": "serve/dialects/live*.py",
    "Hydra": "serve/dialects/hydra*.py",
}
CODE_USERS = {"ClientError", "Refusal", "Problem", "AtCapacity", "OverLimit", "_refuse"}
EVENT_MAKERS = {"event", "_event", "_part_event", "_say"}
ROUTE_MAKERS = {"Route", "WebSocketRoute", "post", "Mount"}
OPERATORS = "The operator API"
AUDIO = "AAAA"
CALL = CallMade("call_1", 0, "find", {"what": "it"}, 0.9)
TOLD = (
    ToolChanged(
        "call_1", 1, 0, "", State.RUNNING, "find", {"what": "it"}, 0.9, "read", "key", 5.0,
        "interrupt", False, True,
    ),
    ConfirmationAsked("approval_1", "call_1", 1, 0, "abc", "find: what it", "voice", 9.0),
    ResultGiven("call_1", 0, "interrupt"),
    HandoffRequested("handoff_1", "requested", 0.9, "nothing"),
    HandoffFailed("handoff_1", "nobody is there"),
    ModeChanged("all", "off", "operator:ann"),
)  # fmt: skip


# The document


def section(*titles: str) -> str:
    """What stands below a heading, and below one inside of it."""
    text = DOCUMENT
    for level, title in enumerate(filter(None, titles), 2):
        _, found, text = text.partition(f"\n{'#' * level} {title}\n")
        assert found, f"no section {' / '.join(titles)}"
        text = re.split(rf"^#{{2,{level}}} ", text, maxsplit=1, flags=re.M)[0]
    return text


def table(title: str, below: str, head: str) -> dict[str, str]:
    """A section's tables whose first column is so named: each thing in backticks there, and what
    the rest of its row says."""
    found = {}
    for block in re.findall(rf"^\| {head} \|.*\n((?:\|.*\n)+)", section(title, below), re.M):
        for row in block.splitlines():
            _, first, rest = row.split("|", 2)
            found |= dict.fromkeys(re.findall("`([^`]+)`", first), f"|{rest}")
    assert found, f"no table of {head} in {title} / {below}"
    return found


def words(text: str) -> set[str]:
    """Everything in backticks, word by word."""
    return {word for quoted in re.findall("`([^`]+)`", text) for word in re.findall(r"\w+", quoted)}


# The source


def trees(pattern: str) -> Iterator[ast.AST]:
    for path in sorted(ROOT.glob(pattern)):
        yield ast.parse(path.read_text())


def strings(node: ast.AST) -> Iterator[str]:
    """What is written there, as patterns."""
    match node:
        case ast.Constant(str(text)):
            yield re.escape(text)
        case ast.IfExp(_, body, other):
            yield from strings(body)
            yield from strings(other)
        case ast.JoinedStr(parts):
            yield "".join(next(strings(part), "[a-z_.]+") for part in parts)


def codes(tree: ast.AST) -> Iterator[str]:
    """What is given to one of CODE_USERS, or called `code` before it is."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name(name) | ast.Attribute(_, name), arguments):
                if name in CODE_USERS:  # behind a status or a message of a client's, or first
                    given = [text for each in arguments[:2] for text in strings(each)]
                    yield from (text for text in given if re.fullmatch(r"[a-z_.+\[\]]+", text))
            case ast.Assign([ast.Name("code")], value):
                yield from strings(value)
            case ast.Assign([ast.Tuple([ast.Name("code"), *_])], ast.Tuple([value, *_])):
                yield from strings(value)


# Messages


class Tour:
    """A dialect that is led through everything, and the fields of all that it sends."""

    def __init__(self, dialect: Dialect) -> None:
        self.fields: dict[str, set[str]] = defaultdict(set)
        self.nested: set[str] = set()  # what `response.event` holds
        self.ids: dict[str, str] = {}  # of the last item of each role
        self._dialect = dialect
        self._number = 0
        self.tell(Started("s", Settings(), "token"))

    def tell(self, *events: Event) -> None:
        for event in events:
            for item in self._dialect.told(event):
                self._note(item)

    def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            for item in self._dialect.received(json.dumps(message)):
                self._note(item)
                if isinstance(item, Configure):
                    self.tell(Configured(Settings()))

    def hear(self, frames: int, floor: Any, is_voiced: bool = False, **texts: str) -> None:
        for _ in range(frames):
            said = {"agent_text": "", "user_text": "", **texts}
            self.tell(Heard(self._number, b"\0\0", is_voiced, **said, floor=floor))
            self._number += 1

    def talk(self) -> None:
        """The caller, the agent, whom the caller interrupts, and the agent to its end."""
        self.hear(5, "user", user_text="hi ")
        self.hear(20, "nobody")
        self.hear(10, "agent", is_voiced=True, agent_text="yes ")
        self.hear(5, "user", is_voiced=True)
        self.hear(20, "nobody")
        self.hear(10, "agent", is_voiced=True, agent_text="yes ")
        self.hear(20, "nobody")

    def act(self) -> None:
        self.tell(CALL, CallMade("call_2", 0, "find", {}, 0.9, supersedes="call_1"))
        self.tell(CallCancelled("call_2", 0), *(ToolEvent(0, told) for told in TOLD))
        self.tell(TakenOver(0, "ann"), HandedBack(0, "ann"))
        self.tell(Problem("too_long", "text has 9 letters: at most 8", "text"))

    def choose(self, settings: Settings) -> None:
        """The client has tools of the server's from now on, which run."""
        self.tell(Configured(settings))
        self.tell(ServerToolsListed({"shop": (Declared("find", "Finds.", {}),)}))
        changed, asked = TOLD[:2]
        assert isinstance(changed, ToolChanged)
        self.tell(ToolEvent(0, replace(changed, state=State.AWAITING_CONFIRMATION)))
        self.tell(ToolEvent(0, asked))
        for state in (State.RUNNING, State.SUCCEEDED):
            self.tell(ToolEvent(0, replace(changed, state=state)))
        self.tell(ToolEvent(0, replace(changed, call_id="call_2", state=State.FAILED)))

    def _note(self, item: object) -> None:
        if not isinstance(item, Send):
            return
        message = json.loads(item.data)
        self.fields[message.get("type") or message["event"]] |= {*message}
        if message.get("type") == "response.event":
            self.nested.add(message["event"]["type"])
        if "item" in message:
            self.ids[message["item"].get("role", "")] = message["item"]["id"]


def realtime_tour() -> Iterator[Tour]:
    for sends_audio in (True, False):
        tour = Tour(realtime.Realtime("nano", None, True, sends_audio))
        tour.send(
            {"type": "session.update", "session": {"type": "realtime"}},
            {"type": "input_audio_buffer.append", "audio": AUDIO},
            {"type": "input_audio_buffer.clear"},
        )
        tour.talk()
        agents = {"item_id": tour.ids["assistant"]}
        tour.send(
            {"type": "conversation.item.retrieve", **agents},
            {
                "type": "conversation.item.truncate", **agents, "content_index": 0,
                "audio_end_ms": 80,
            },
            {"type": "conversation.item.delete", **agents},
        )  # fmt: skip
        tour.act()
        tour.choose(Settings(server_tools=(ServerTools("shop"),)))
        tour.hear(10, "nobody")
        yield tour


def live_tour() -> Iterator[Tour]:
    for delegation in ({"type": "client"}, {"type": "responses", "responses": {}}):
        tour = Tour(live.Live("nano", True))
        session = {"model": "nano", "delegation": delegation}
        append = {"content": "x", "delegation_id": None}
        tour.send(
            {"type": "session.start", "session": session},
            {"type": "session.update", "session": {}},
            {"type": "session.input_audio.mute"},
            {"type": "session.input_audio.unmute"},
            {"type": "session.instructions.append", **append},
            {"type": "session.thinking.append", **append},
            {"type": "session.commentary.append", **append},
            {"type": "response.create"},
        )
        tour.talk()
        tour.hear(live_sideband.USAGE_FRAMES, "nobody")
        tour.act()
        tour.choose(Settings(server_tools=(ServerTools("shop"),)))
        tour.tell(Ended("hang_up"))
        yield tour


def hydra_tour() -> Iterator[Tour]:
    tour = Tour(hydra.Hydra("nano", True))
    tour.send(
        {"type": "session.configure", "session": {}},
        {"type": "session.update", "session": {"tools": []}},
        {"type": "response.create"},
    )
    tour.talk()
    tour.act()
    yield tour


def twilio_tour() -> Iterator[Tour]:
    tour = Tour(twilio.Twilio())
    tour.send({"event": "start", "start": {"streamSid": "MZ1"}})
    tour.talk()
    yield tour


TOURS = {
    "OpenAI Realtime": realtime_tour,
    "OpenAI Live": live_tour,
    "Hydra": hydra_tour,
    "Twilio": twilio_tour,
}


# Tests


@pytest.fixture(scope="module", params=TOURS)
def tour(request: pytest.FixtureRequest) -> tuple[str, Tour]:
    """A protocol, and all that its server sends."""
    first, *others = TOURS[request.param]()
    for other in others:
        for kind, names in other.fields.items():
            first.fields[kind] |= names
    return request.param, first


@pytest.mark.parametrize("protocol", CLIENT_MESSAGES)
def test_client_messages_are_those_that_are_decoded(protocol: str) -> None:
    structs = {str(one.__struct_config__.tag): one for one in get_args(CLIENT_MESSAGES[protocol])}
    told = table(protocol, "Client messages", "message")
    if protocol != "Twilio":
        told |= table("Extensions", "", "client message")
    assert {*told} == {*structs}
    for tag, struct in structs.items():
        assert {*struct.__struct_fields__} - {"event_id"} <= words(told[tag]), tag


@pytest.mark.parametrize("protocol", CLIENT_MESSAGES)
def test_fields_of_clients_are_all_named(protocol: str) -> None:
    known = words(section(protocol)) | words(section("Extensions"))
    for module in MODULES[protocol]:
        for struct in vars(module).values():
            if not isinstance(struct, type) or not issubclass(struct, msgspec.Struct):
                continue
            names = {each.encode_name for each in msgspec.structs.fields(struct)}
            assert names <= known | UNSAID, struct


def test_server_messages_are_those_that_are_sent(tour: tuple[str, Tour]) -> None:
    protocol, sent = tour
    told = table(protocol, "Server messages", "message")
    extensions = table("Extensions", "", "message")
    assert {kind for kind in sent.fields if not kind.startswith("duologue.")} == {*told}
    for kind, fields in sent.fields.items():
        assert fields - {"type", "event_id", "event"} <= words((told | extensions)[kind]), kind


def test_extensions_are_those_that_are_sent() -> None:
    sent = {kind for tours in TOURS.values() for each in tours() for kind in each.fields}
    told = table("Extensions", "", "message")
    assert {kind for kind in sent if kind.startswith("duologue.")} == {*told}


def test_events_of_a_response_are_those_that_are_sent() -> None:
    sent = {kind for each in live_tour() for kind in each.nested}
    assert sent == {*table("OpenAI Live", "Response events", "event")}


@pytest.mark.parametrize("protocol", ["OpenAI Realtime", "OpenAI Live", "Hydra"])
def test_no_event_in_the_source_is_left_out(protocol: str) -> None:
    """Names as they are written there; what is put in for `{...}` the tours above find."""
    told = {*table(protocol, "Server messages", "message"), *table("Extensions", "", "message")}
    for tree in trees(SOURCES[protocol]):
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Attribute) and call.func.attr in EVENT_MAKERS:
                for pattern in strings(call.args[0]):
                    found = [name for name in told if re.fullmatch(rf"(.+\.)?{pattern}", name)]
                    assert found, pattern


@pytest.mark.parametrize("where", SOURCES)
def test_codes_are_those_that_are_used(where: str) -> None:
    used = {code for tree in trees(SOURCES[where]) for code in codes(tree)}
    if where == "In common":
        places = ((where, "Refused"), (where, "Problems"), (OPERATORS, "Errors"))
        told = {code for place in places for code in table(*place, "code")}
        used |= {"at_capacity"}  # the engine's own, told as it is
    else:
        told = {*table(where, "Errors", "code")}
    for code in told:
        assert any(re.fullmatch(each, code) for each in used), code
    for each in used:
        assert any(re.fullmatch(each, code) for code in told), each


def test_ends_are_those_that_there_are() -> None:
    told = table("In common", "How a session ends", "reason")
    assert {reason: int(row.split("|")[1]) for reason, row in told.items()} == CLOSE_CODES


@pytest.mark.parametrize(("where", "module"), [("In common", "app"), (OPERATORS, "operators")])
def test_addresses_are_those_that_are_routed(where: str, module: str) -> None:
    routed = {
        text.replace("\\", "")
        for tree in trees(f"serve/gateway/{module}.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ROUTE_MAKERS
        for text in strings(node.args[0])
    }
    assert {*table(where, "Addresses", "path")} == routed
    if where == "In common":
        posts = {name.removeprefix("POST ") for name in table("WebRTC", "", "request")}
        assert posts <= routed


def test_operators_messages_are_those_that_are_decoded() -> None:
    structs = {str(one.__struct_config__.tag): one for one in get_args(PageMessage)}
    told = table(OPERATORS, "What a page sends", "message")
    assert {*told} == {*structs}
    for tag, struct in structs.items():
        assert {*struct.__struct_fields__} <= words(told[tag]), tag


def test_what_a_page_is_told_is_what_is_sent() -> None:
    """tests/test_operators.py says the same of the fields."""
    files = ("serve/gateway/feed.py", "serve/gateway/page.py")
    calls = [node for name in files for tree in trees(name) for node in ast.walk(tree)]
    sent = {
        kind.replace("\\", "")
        for call in calls
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("self._tell", "written")
        for kind in strings(call.args[0])
    }
    sent |= {fields_of(told)[0] for told in TOLD}
    assert {*table(OPERATORS, "What a page is told", "message")} == sent
