"""Which of this server's tools a session has, and what its client is told of their calls."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from test_dialect_realtime import Client as DialectClient
from test_dialect_realtime import error_of, only, types
from test_gateway import LOUD, QUIET, client
from test_gateway_session import on_a_loop, opened_with
from test_tool_calls import STATUS, front_desk, scripted
from test_tool_sources import Fake

from serve.gateway.events import (
    Approve,
    Configure,
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
    pytest.MonkeyPatch().setattr(runtime_module, "_LOOK_S", 0.01)
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


def test_a_policy_has_the_effects_that_are_chosen_by() -> None:
    assert Policy.open().rule("anything", is_client_run=False).effect != "read"


# What a Realtime client says and is told.

LABELLED = {"type": "mcp", "server_label": "shop"}
LOOK = Declared("look", "Looks.", {"type": "object"})


def asking(**fields: Any) -> DialectClient:
    """A client who has asked for the shop's tools."""
    one = DialectClient()
    one.send("session.update", session={"type": "realtime", "tools": [{**LABELLED, **fields}]})
    return one


def changed(state: State, **others: Any) -> ToolEvent:
    about = {"call_id": "call_1", "number": 1, "revision": 0, "supersedes": "", "tool": "look"}
    about |= {"arguments": {"a": 1}, "confidence": 0.9, "effect": "read", "key": "k"}
    about |= {"timeout_s": 5.0, "delivery": "interrupt", "is_client_run": False, "is_wanted": True}
    return ToolEvent(1, ToolChanged(state=state, **{**about, **others}))


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({}, ServerTools("shop")),
        ({"allowed_tools": ["look"]}, ServerTools("shop", ("look",))),
        ({"allowed_tools": {"read_only": True}}, ServerTools("shop", only_reads=True)),
        ({"require_approval": "always"}, ServerTools("shop", confirms_all=True)),
        ({"require_approval": "never"}, ServerTools("shop")),
        (
            {"require_approval": {"always": {"tool_names": ["look"]}}},
            ServerTools("shop", confirmed=("look",)),
        ),
        ({"server_url": "https://x.example", "authorization": "secret"}, ServerTools("shop")),
    ],
)
def test_a_realtime_client_chooses_as_of_an_mcp_server(
    fields: dict[str, Any], chosen: ServerTools
) -> None:
    one = DialectClient()
    tools = [{"type": "function", **MINE}, {**LABELLED, **fields}]
    (configure,) = one.send("session.update", session={"type": "realtime", "tools": tools})
    assert configure.server_tools == (chosen,)
    assert names(configure.tools) == ["mine"]
    (updated,) = one.tell(Started("s1", Settings(server_tools=(chosen,)), "token"))
    assert "secret" not in json.dumps(updated)
    assert updated["session"]["tools"][-1]["server_label"] == "shop"


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
