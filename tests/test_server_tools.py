"""Which of this server's tools a session has, and what its client is told of their calls."""

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from test_dialect_live import messages, received
from test_dialect_realtime import Client as DialectClient
from test_dialect_realtime import error_of, only, types
from test_gateway import LOUD, QUIET, client
from test_gateway_session import on_a_loop, opened_with
from test_tool_calls import STATUS, front_desk, scripted
from test_tool_sources import Fake

from serve.dialects.live import Live
from serve.dialects.live_sideband import LiveSideband
from serve.gateway.events import (
    Approve,
    Configure,
    Configured,
    Ended,
    Problem,
    Refuse,
    ServerTools,
    ServerToolsListed,
    Settings,
    Started,
    ToolEvent,
)
from serve.gateway.toolbox import Toolbox
from serve.tools import runtime as runtime_module
from serve.tools.call import State
from serve.tools.policy import Policy
from serve.tools.runtime import ToolRuntime, ToolsConfig
from serve.tools.source import Declared
from serve.tools.sources import Sources
from serve.tools.told import ConfirmationAsked, ToolChanged

MINE = {"name": "mine", "description": "", "parameters": {"type": "object", "properties": {}}}
POLICY = """
tools:
  look: {effect: read, confirmation: none}
  write: {effect: write, confirmation: none}
"""


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "_LOOK_S", 0.01)


async def runtime_of(folder: Path, **sources: Fake) -> ToolRuntime:
    (folder / "policy.yaml").write_text(POLICY)
    config = ToolsConfig(policy=str(folder / "policy.yaml"), audit=str(folder / "audit.sqlite"))
    runtime = ToolRuntime(config)
    runtime.sources = Sources(sources)
    await runtime.open()
    return runtime


def names(tools: list[dict[str, Any]]) -> list[str]:
    return [tool["name"] for tool in tools]


@on_a_loop
async def test_an_agent_has_the_tools_that_its_client_has_chosen(tmp_path: Path) -> None:
    runtime = await runtime_of(tmp_path, shop=Fake("look", "write"), crm=Fake("find"))
    box = Toolbox(runtime)

    def taken(*chosen: ServerTools) -> list[str]:
        settings = Settings(tools=(MINE,), server_tools=chosen)
        box.check(settings)
        return names(box.take(settings))

    assert names(box.take(Settings())) == ["look", "write", "find"]
    assert taken(ServerTools("crm")) == ["mine", "find"]
    assert taken(ServerTools("shop", names=("write",))) == ["mine", "write"]
    assert taken(ServerTools("shop", only_reads=True)) == ["mine", "look"]
    assert taken(ServerTools("shop", names=())) == ["mine"]
    assert taken(ServerTools("shop", confirmed=("write",))) == ["mine", "look", "write"]
    assert box.confirmed == {"write"}
    assert taken(ServerTools("shop", confirms_all=True)) == ["mine", "look", "write"]
    assert box.confirmed == {"look", "write"}
    await runtime.close()


@on_a_loop
async def test_what_cannot_be_chosen_is_named(tmp_path: Path) -> None:
    runtime = await runtime_of(tmp_path, shop=Fake("look", "write"))
    box = Toolbox(runtime)
    with pytest.raises(ValueError, match="no tools of 'crm': it has shop"):
        box.check(Settings(server_tools=(ServerTools("crm"),)))
    with pytest.raises(ValueError, match="shop has no tool 'sell': it has look, write"):
        box.check(Settings(server_tools=(ServerTools("shop", names=("sell",)),)))
    with pytest.raises(ValueError, match="of 'shop' are asked for twice"):
        box.check(Settings(server_tools=(ServerTools("shop"), ServerTools("shop"))))
    with pytest.raises(ValueError, match="'look' is one that this server runs"):
        box.check(Settings(tools=({**MINE, "name": "look"},), server_tools=()))
    await runtime.close()


@on_a_loop
async def test_a_session_gets_the_tools_that_come_later(tmp_path: Path) -> None:
    shop = Fake("look")
    runtime = await runtime_of(tmp_path, shop=shop)
    session = await opened_with(runtime)
    told: list[Any] = []
    session.subscribe(told.append)
    session.take(Configure(tools=({**MINE, "name": "write"},)))
    shop.names = ("look", "write", "more")
    async with asyncio.timeout(5):
        while not any(isinstance(one, ServerToolsListed) for one in told):
            await asyncio.sleep(0.01)
    (listed,) = (one for one in told if isinstance(one, ServerToolsListed))
    found = [tool.name for tool in listed.server_tools["shop"]]
    assert found == ["look", "more"]  # a name that the client has taken stays the client's
    session.end("hang_up")
    await runtime.close()


class Bad(Fake):
    """A source that can't say what it has: there is a fault in it, or tools that are none."""

    async def declared(self) -> Sequence[Declared]:
        if "fault" in self.names:
            raise AssertionError("a fault in a source")
        return await super().declared()


async def until_logged(logs: Sequence[Any], event: str, why: str) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while not (found := [one for one in logs if one["event"] == event and why in one["why"]]):
            await asyncio.sleep(0.01)
    return found[0]


@on_a_loop
async def test_what_is_wrong_with_a_look_leaves_the_tools_and_is_told_once(tmp_path: Path) -> None:
    shop = Bad("look")
    runtime = await runtime_of(tmp_path, shop=shop)
    with capture_logs() as logs:
        shop.names = ("fault",)
        await until_logged(logs, "tools_not_listed", "a fault in a source")
        shop.names = ("look", "handoff to nobody")  # no name that can be decoded
        await until_logged(logs, "tools_not_listed", "'handoff to nobody'")
        await asyncio.sleep(0.1)  # some looks
        assert len(logs) == 2
        assert [tool.name for tool in runtime.listed["shop"]] == ["look"]
        shop.names = ("look", "write")
        async with asyncio.timeout(5):
            while len(runtime.listed["shop"]) < 2:
                await asyncio.sleep(0.01)
        shop.names = ("look", "handoff to nobody")
        async with asyncio.timeout(5):
            while len(logs) < 3:  # it was well in between
                await asyncio.sleep(0.01)
    await runtime.close()


@on_a_loop
async def test_a_fault_in_one_that_is_told_of_tools_is_its_own(tmp_path: Path) -> None:
    shop = Fake("look")
    runtime = await runtime_of(tmp_path, shop=shop)

    def fail(*_: object) -> Any:
        raise AssertionError("a fault in a listener")

    bad, good = await opened_with(runtime), asyncio.Event()
    pytest.MonkeyPatch().setattr(bad._box, "take", fail)
    runtime.subscribe(fail)
    runtime.subscribe(good.set)
    with capture_logs() as logs:
        shop.names = ("look", "more")
        async with asyncio.timeout(5):
            await good.wait()
    assert bad.ended == Ended("fault")
    assert {one["event"] for one in logs} == {"session_failed", "tools_listener_raised"}
    await runtime.close()


def test_a_policy_has_the_effects_that_are_chosen_by() -> None:
    assert Policy.open().rule("anything", is_client_run=False).effect != "read"


# What a Realtime client says and is told.

LABELLED = {"type": "mcp", "server_label": "shop"}
LOOK = Declared("look", "Looks.", {"type": "object"})


def asking(**fields: Any) -> DialectClient:
    """A client who has asked for the shop's tools."""
    one = DialectClient()
    session = {"type": "realtime", "tools": [{**LABELLED, **fields}]}
    (configure,) = one.send("session.update", session=session)
    one.tell(Configured(Settings(server_tools=configure.server_tools)))
    return one


def changed(state: State, **others: Any) -> ToolEvent:
    about = {"call_id": "call_1", "number": 1, "revision": 0, "supersedes": "", "tool": "look"}
    about |= {"arguments": {"a": 1}, "confidence": 0.9, "effect": "read", "key": "k"}
    about |= {"timeout_s": 5.0, "delivery": "interrupt", "is_client_run": False, "is_wanted": True}
    return ToolEvent(1, ToolChanged(state=state, **{**about, **others}))


CHOICES = [  # what a client asks for, what that is, and whether all of it is told back
    ({}, ServerTools("shop"), True),
    ({"allowed_tools": ["look"]}, ServerTools("shop", ("look",)), True),
    ({"allowed_tools": []}, ServerTools("shop", ()), True),
    ({"allowed_tools": {"read_only": True}}, ServerTools("shop", only_reads=True), True),
    ({"require_approval": "always"}, ServerTools("shop", confirms_all=True), True),
    (
        {"require_approval": {"always": {"tool_names": ["look"]}}},
        ServerTools("shop", confirmed=("look",)),
        True,
    ),
    ({"require_approval": "never"}, ServerTools("shop"), False),
    ({"server_url": "https://x.example", "authorization": "secret"}, ServerTools("shop"), False),
]


@pytest.mark.parametrize(("fields", "chosen", "is_told_back"), CHOICES)
def test_a_realtime_client_chooses_as_of_an_mcp_server(
    fields: dict[str, Any], chosen: ServerTools, is_told_back: bool
) -> None:
    one = DialectClient()
    tools = [{"type": "function", **MINE}, {**LABELLED, **fields}]
    (configure,) = one.send("session.update", session={"type": "realtime", "tools": tools})
    assert configure.server_tools == (chosen,)
    assert names(configure.tools) == ["mine"]
    created = one.tell(Started("s1", Settings(server_tools=(chosen,)), "token"))[0]
    assert created["session"]["tools"] == [{**LABELLED, **(fields if is_told_back else {})}]


def test_who_asks_for_none_has_all() -> None:
    one = DialectClient()
    (configure,) = one.send("session.update", session={"type": "realtime", "tools": []})
    assert configure.server_tools == "all"
    assert one.tell(ServerToolsListed({"shop": (LOOK,)})) == []
    assert one.tell(changed(State.RUNNING)) == []


def test_tools_are_listed_as_an_mcp_servers() -> None:
    events = asking().tell(ServerToolsListed({"shop": (LOOK,)}))
    assert types(events) == [
        "mcp_list_tools.in_progress", "conversation.item.added",
        "mcp_list_tools.completed", "conversation.item.done",
    ]  # fmt: skip
    tools = [{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}]
    item = events[-1]["item"]
    assert (item["type"], item["server_label"], item["tools"]) == ("mcp_list_tools", "shop", tools)


def test_a_call_is_an_item_from_its_start_to_its_end() -> None:
    one = asking()
    one.tell(ServerToolsListed({"shop": (LOOK,)}))
    one.hear("nobody", frames=5)
    assert one.tell(changed(State.SPECULATIVE)) == []
    events = one.tell(changed(State.RUNNING))
    assert types(events) == [
        "response.created", "response.output_item.added", "conversation.item.added",
        "response.mcp_call_arguments.delta", "response.mcp_call_arguments.done",
        "response.mcp_call.in_progress", "response.done",
    ]  # fmt: skip
    assert only(events, "response.mcp_call_arguments.done")["arguments"] == '{"a":1}'
    assert one.tell(changed(State.RUNNING)) == []
    events = one.tell(changed(State.SUCCEEDED, result={"found": True}))
    assert types(events) == [
        "response.mcp_call.completed", "response.output_item.done", "conversation.item.done",
    ]  # fmt: skip
    item = events[-1]["item"]
    assert (item["type"], item["output"], item["error"]) == ("mcp_call", '{"found":true}', None)
    assert one.tell(changed(State.SUPERSEDED)) == []  # what is over is over


def test_a_call_that_is_denied_has_an_error() -> None:
    one = asking()
    one.tell(ServerToolsListed({"shop": (LOOK,)}))
    one.hear("nobody", frames=5)
    events = one.tell(changed(State.FAILED, reason="the mode is off", result={}))
    assert only(events, "conversation.item.done")["item"]["error"] == {
        "type": "tool_execution_error", "message": "the mode is off",
    }  # fmt: skip
    only(events, "response.mcp_call.failed")


def test_what_could_not_be_told_at_once_is_told_whole() -> None:
    one = asking()
    one.tell(ServerToolsListed({"shop": (LOOK,)}))
    one.hear("nobody", frames=5)
    one.hear("user", frames=2)  # a turn: no response may begin now
    assert one.tell(changed(State.RUNNING)) == []
    assert one.tell(changed(State.SUCCEEDED, result={})) == []
    events = one.hear("user", frames=8)
    assert types(events)[-4:] == [
        "response.mcp_call.completed", "response.output_item.done",
        "conversation.item.done", "response.done",
    ]  # fmt: skip


@pytest.mark.parametrize(("approve", "command"), [(True, Approve), (False, Refuse)])
def test_a_client_is_asked_and_answers(approve: bool, command: Any) -> None:
    one = asking(require_approval="always")
    one.tell(ServerToolsListed({"shop": (LOOK,)}))
    one.hear("nobody", frames=5)
    one.tell(changed(State.AWAITING_CONFIRMATION))
    asked = ConfirmationAsked("approval_1", "call_1", 1, 0, "hash", "look: a 1", "dtmf", 9.0)
    events = one.tell(ToolEvent(1, asked))
    item = only(events, "conversation.item.done")["item"]
    assert item["type"] == "mcp_approval_request"
    assert (item["id"], item["name"], item["arguments"]) == ("approval_1", "look", '{"a":1}')
    answer = {"type": "mcp_approval_response", "approval_request_id": "approval_1"}
    item = {**answer, "approve": approve, "reason": "so"}
    said = one.send("conversation.item.create", item=item, previous_item_id="approval_1")
    assert said[-1] == command("approval_1")
    assert said[0]["item"]["approve"] is approve


def test_a_supervisors_word_is_not_asked_of_a_client() -> None:
    one = asking()
    one.tell(ServerToolsListed({"shop": (LOOK,)}))
    one.tell(changed(State.AWAITING_CONFIRMATION))
    asked = ConfirmationAsked("approval_1", "call_1", 1, 0, "hash", "look: a 1", "console", 9.0)
    assert one.tell(ToolEvent(1, asked)) == []


def test_an_unknown_kind_of_tool_is_refused() -> None:
    tools = [{"type": "web_search"}]
    error = error_of(DialectClient().send("session.update", session={"tools": tools}))
    assert (error["code"], error["param"]) == ("invalid_value", "session.tools[0].type")


# What a Live client says and is told.


def started(*tools: dict[str, Any]) -> tuple[Live, Any, dict[str, Any]]:
    """A session that delegates to these tools, what it was set to, and what told of that."""
    dialect = Live("nano", extensions=False)
    delegation = {"type": "responses", "responses": {"model": "nano", "tools": tools}}
    session = {"model": "nano", "delegation": delegation}
    configure, _ = received(dialect, "session.start", session=session)
    dialect.told(Started("s1", Settings(), "token"))
    settings = Settings(tools=configure.tools, server_tools=configure.server_tools)
    (event,) = messages(dialect.told(Configured(settings)))
    return dialect, configure, event["session"]["delegation"]["responses"]


def asking_live() -> Live:
    """A client who has asked for the shop's tools, and has been told of them."""
    dialect, _, _ = started(LABELLED)
    messages(dialect.told(ServerToolsListed({"shop": (LOOK,)})))
    return dialect


def nested(dialect: Live, *events: Any) -> list[dict[str, Any]]:
    """What is told of them as a delegate's, in the order of each response."""
    wrapped = [one for event in events for one in messages(dialect.told(event))]
    return [one["event"] for one in wrapped if one["type"] == "response.event"]


@pytest.mark.parametrize(("fields", "chosen", "is_told_back"), CHOICES)
def test_a_live_client_chooses_as_of_an_mcp_server(
    fields: dict[str, Any], chosen: ServerTools, is_told_back: bool
) -> None:
    _, configure, told = started({"type": "function", **MINE}, {**LABELLED, **fields})
    assert configure.server_tools == (chosen,)
    assert names(configure.tools) == ["mine"]
    mcp = {**LABELLED, **(fields if is_told_back else {})}
    assert told["tools"] == [{"type": "function", **MINE}, mcp]


def test_a_live_client_chooses_others_later() -> None:
    dialect, _, _ = started(LABELLED)

    def updated(**responses: Any) -> Any:
        delegation = {"type": "responses", "responses": responses}
        (configure,) = received(dialect, "session.update", session={"delegation": delegation})
        return configure

    assert updated(tool_choice="none") == Configure(tools=(), server_tools=())
    assert updated(tool_choice="auto") == Configure(tools=(), server_tools=(ServerTools("shop"),))
    assert updated(tools=[{**LABELLED, "server_label": "crm"}]).server_tools != "all"
    messages(dialect.told(Problem("invalid_tools", "there is no such source", "tools")))
    assert updated(tool_choice="auto").server_tools == (ServerTools("shop"),)
    assert updated(tools=[]) == Configure(tools=(), server_tools="all")
    assert updated(tool_choice="none") == Configure(tools=(), server_tools="all")


def test_a_live_client_has_to_say_whose_tools() -> None:
    delegation = {"type": "responses", "responses": {"tools": [{"type": "mcp"}]}}
    session = {"model": "nano", "delegation": delegation}
    (error,) = messages(received(Live("nano", False), "session.start", session=session))
    assert "server_label" in error["error"]["message"]
    assert error["error"]["param"] == "session.delegation.responses.tools[0]"


def test_a_live_client_who_asks_for_none_is_told_of_none() -> None:
    dialect, configure, told = started({"type": "function", **MINE})
    assert (configure.server_tools, names(told["tools"])) == ("all", ["mine"])
    assert [*dialect.told(ServerToolsListed({"shop": (LOOK,)}))] == []
    assert [*dialect.told(changed(State.RUNNING))] == []


def test_tools_are_listed_in_a_response() -> None:
    dialect, _, _ = started(LABELLED)
    events = nested(dialect, ServerToolsListed({"shop": (LOOK,)}))
    assert types(events) == [
        "response.created", "response.output_item.added", "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == [*range(6)]
    tools = [{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}]
    item = events[4]["item"]
    assert (item["type"], item["server_label"], item["tools"]) == ("mcp_list_tools", "shop", tools)
    assert item["id"] == events[2]["item_id"] == events[3]["item_id"]


def test_a_response_lasts_as_long_as_its_call() -> None:
    dialect = asking_live()
    assert nested(dialect, changed(State.SPECULATIVE)) == []
    created, *wrapped = messages(dialect.told(changed(State.RUNNING)))
    assert created["offset_ms"] == 80
    delegation = created["delegation"]
    assert {one["delegation_id"] for one in wrapped} == {delegation["id"]}
    begun = [one["event"] for one in wrapped]
    assert types(begun) == [
        "response.created", "response.output_item.added", "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta", "response.mcp_call_arguments.done",
    ]  # fmt: skip
    assert begun[0]["response"]["id"] == delegation["response_id"]
    assert begun[-1]["arguments"] == begun[-2]["delta"] == '{"a":1}'
    assert nested(dialect, changed(State.RUNNING)) == []
    ended = nested(dialect, changed(State.SUCCEEDED, result={"found": True}))
    assert types(ended) == [
        "response.mcp_call.completed", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in begun + ended] == [*range(8)]
    item = ended[1]["item"]
    assert (item["type"], item["status"], item["server_label"]) == ("mcp_call", "completed", "shop")
    assert (item["arguments"], item["output"], item["error"]) == ('{"a":1}', '{"found":true}', None)
    assert ended[2]["response"]["id"] == delegation["response_id"]
    assert nested(dialect, changed(State.SUPERSEDED)) == []  # what is over is over


def test_a_live_call_that_is_denied_has_failed() -> None:
    events = nested(asking_live(), changed(State.FAILED, reason="the mode is off", result={}))
    assert "response.mcp_call.failed" in types(events)
    item = events[-2]["item"]
    assert (item["status"], item["output"]) == ("failed", None)
    content = [{"type": "text", "text": "the mode is off"}]
    assert item["error"] == {"type": "mcp_tool_execution_error", "content": content}


@pytest.mark.parametrize(("approve", "command"), [(True, Approve), (False, Refuse)])
def test_a_live_client_is_asked_and_answers(approve: bool, command: Any) -> None:
    dialect = asking_live()
    messages(dialect.told(changed(State.AWAITING_CONFIRMATION)))
    asked = ConfirmationAsked("approval_1", "call_1", 1, 0, "hash", "look: a 1", "dtmf", 9.0)
    created, *wrapped = messages(dialect.told(ToolEvent(1, asked)))
    assert created["type"] == "session.delegation.created"
    assert types([one["event"] for one in wrapped]) == [
        "response.created", "response.output_item.added",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    item = wrapped[2]["event"]["item"]
    assert (item["type"], item["id"]) == ("mcp_approval_request", "approval_1")
    assert (item["name"], item["arguments"]) == ("look", '{"a":1}')
    answer = {"type": "mcp_approval_response", "approval_request_id": "approval_1"}
    item = {**answer, "approve": approve}
    assert received(dialect, "response.item.create", item=item) == [command("approval_1")]
    first, *others = messages(dialect.told(changed(State.RUNNING)))
    assert first["type"] == "response.event"  # the delegation is there already
    assert first["delegation_id"] == created["delegation"]["id"]
    assert first["event"]["response"]["id"] != created["delegation"]["response_id"]
    assert others[0]["event"]["item"]["approval_request_id"] == "approval_1"


def test_whoever_is_attached_is_told_of_calls_from_then_on() -> None:
    dialect = LiveSideband("nano", extensions=False)
    settings = Settings(server_tools=(ServerTools("shop"),))
    assert [*dialect.told(Started("s1", settings, "token", {"shop": (LOOK,)}))] == []
    created, *_ = messages(dialect.told(changed(State.RUNNING)))
    assert created["type"] == "session.delegation.created"


# Over a socket.


def test_a_call_is_confirmed_by_the_client_that_wants_to_be_asked(tmp_path: Path) -> None:
    tool = {"type": "mcp", "server_label": "front_desk", "require_approval": "always"}
    tool["allowed_tools"] = ["order_status"]  # pyright: ignore
    session = {"type": "realtime", "tools": [tool]}
    session["instructions"] = scripted([5, "call", "order_status", STATUS])
    with front_desk(tmp_path) as url, client(url) as one:
        one.send("session.update", session=session)
        listed = one.until("conversation.item.done")[-1]["item"]
        assert names(listed["tools"]) == ["order_status"]
        one.say(*[LOUD] * 8, *[QUIET] * 8)
        done: dict[str, Any] = {}
        while done.get("type") != "mcp_approval_request":
            done = one.until("conversation.item.done")[-1]["item"]
        assert json.loads(done["arguments"]) == STATUS
        answer = {"type": "mcp_approval_response", "approval_request_id": done["id"]}
        one.send("conversation.item.create", item={**answer, "approve": True})
        while done["type"] != "mcp_call":
            done = one.until("conversation.item.done")[-1]["item"]
        assert json.loads(done["output"])["order_id"] == "48192"
        assert done["approval_request_id"] == answer["approval_request_id"]


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with front_desk(tmp_path) as url, client(url) as one:
        tools = [{"type": "mcp", "server_label": "crm"}]
        one.send("session.update", session={"type": "realtime", "tools": tools})
        error = one.until("error")[-1]["error"]
        assert (error["code"], error["param"]) == ("invalid_tools", "tools")
        assert "'crm': it has front_desk" in error["message"]


def test_a_live_client_confirms_a_call(tmp_path: Path) -> None:
    tool = {"type": "mcp", "server_label": "front_desk", "require_approval": "always"}
    tools = [{**tool, "allowed_tools": ["order_status"]}]
    delegation = {"type": "responses", "responses": {"model": "nano", "tools": tools}}
    session = {"model": "nano", "delegation": delegation}
    session["instructions"] = scripted([5, "call", "order_status", STATUS])
    with front_desk(tmp_path) as url, client(url, "/v1/live/sessions") as one:

        def until_done(kind: str) -> dict[str, Any]:
            item: dict[str, Any] = {}
            while item.get("type") != kind:
                event = one.until("response.event")[-1]["event"]
                item = event["item"] if event["type"] == "response.output_item.done" else {}
            return item

        one.send("session.start", session=session)
        set_to = one.until("session.started")[-1]["session"]
        assert set_to["delegation"]["responses"]["tools"] == tools
        assert names(until_done("mcp_list_tools")["tools"]) == ["order_status"]
        for frame in [LOUD] * 8 + [QUIET] * 8:
            audio = base64.b64encode(frame).decode()
            one.send("session.input_audio.append", audio=audio)
        asked = until_done("mcp_approval_request")
        assert json.loads(asked["arguments"]) == STATUS
        answer = {"type": "mcp_approval_response", "approval_request_id": asked["id"]}
        one.send("response.item.create", item={**answer, "approve": True})
        done = until_done("mcp_call")
        assert json.loads(done["output"])["order_id"] == "48192"
        assert done["approval_request_id"] == asked["id"]


def test_a_live_client_has_other_tools_from_an_update_on(tmp_path: Path) -> None:
    def responses(label: str) -> dict[str, Any]:
        tools = [{"type": "mcp", "server_label": label}]
        return {"type": "responses", "responses": {"model": "nano", "tools": tools}}

    with front_desk(tmp_path) as url, client(url, "/v1/live/sessions") as one:
        one.send("session.start", session={"model": "nano", "delegation": responses("front_desk")})
        one.until("session.started")
        one.send("session.update", event_id="mine", session={"delegation": responses("crm")})
        error = one.until("error")[-1]["error"]
        assert (error["code"], error["client_event_id"]) == ("invalid_tools", "mine")
        assert error["param"] == "session.delegation.responses.tools"
        assert "'crm': it has front_desk" in error["message"]
        one.send("session.update", session={"delegation": {"type": "responses"}})
        told = one.until("session.updated")[-1]["session"]["delegation"]["responses"]["tools"]
        assert [tool["server_label"] for tool in told] == ["front_desk"]
