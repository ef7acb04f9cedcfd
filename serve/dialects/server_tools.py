"""Tools that the server runs, as OpenAI's clients choose them and are told of their calls: a source
is an MCP server to them. Those who have chosen none are told nothing: they know no such items."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serve.dialects.reading import Id
from serve.gateway.events import Approve, Refuse, ServerTools, Settings
from serve.tools.call import State
from serve.tools.source import Declared
from serve.tools.told import ConfirmationAsked, Told, ToolChanged

_OVER = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SUPERSEDED, State.COMPENSATED)
_CLIENTS = ("voice", "dtmf")  # a word that a client may give

_ToolName = Annotated[str, Meta(max_length=128)]


class _Named(msgspec.Struct, omit_defaults=True):
    """Some tools."""

    tool_names: list[_ToolName] | None = None
    read_only: bool | None = None


class _Approval(msgspec.Struct, omit_defaults=True):
    """What a client wants to be asked about, and what not."""

    always: _Named | None = None
    never: _Named | None = None


AllowedTools = list[_ToolName] | _Named | None
RequireApproval = Literal["always", "never"] | _Approval | None


class McpTools(msgspec.Struct, omit_defaults=True):
    """Tools of a source of this server's, as OpenAI's clients ask for those of an MCP server. Where
    that is (`server_url`) and how to get in is the server's to know: it is not looked at."""

    server_label: Id
    allowed_tools: AllowedTools = None
    require_approval: RequireApproval = None

    def as_server_tools(self) -> ServerTools:
        """The same as the gateway has it."""
        allowed, wanted = self.allowed_tools, self.require_approval
        if not isinstance(allowed, _Named):
            allowed = _Named(allowed)
        always = wanted.always if isinstance(wanted, _Approval) else None
        return ServerTools(
            self.server_label,
            None if allowed.tool_names is None else tuple(allowed.tool_names),
            bool(allowed.read_only),
            tuple(always.tool_names or ()) if always else (),
            wanted == "always",
        )


class ApprovalResponse(msgspec.Struct, tag_field="type", tag="mcp_approval_response"):
    """A yes or a no to a call of the server's that the client was asked about."""

    approval_request_id: Id
    approve: bool

    @property
    def as_command(self) -> Approve | Refuse:
        """The same as the gateway has it."""
        return (Approve if self.approve else Refuse)(self.approval_request_id)


def has_chosen(settings: Settings) -> bool:
    """Whether the client has asked for tools of the server's, and so knows of such calls."""
    return settings.server_tools != "all"


def told_back(settings: Settings) -> list[dict[str, Any]]:
    """The tools that a session is set to, the client's and the server's, as its client reads them.
    What it has said and what means nothing here (`never`, an address) is not among that."""
    tools: list[dict[str, Any]] = [{"type": "function", **tool} for tool in settings.tools]
    if settings.server_tools != "all":
        for one in settings.server_tools:
            names = None if one.names is None else [*one.names]
            allowed = _Named(names, True) if one.only_reads else names
            asked = _Approval(_Named([*one.confirmed])) if one.confirmed else None
            mcp = McpTools(one.source, allowed, "always" if one.confirms_all else asked)
            tools.append({"type": "mcp", **msgspec.to_builtins(mcp)})
    return tools


Step = Literal["ask", "begin", "end"]


class ServerCalls:
    """The calls of one session's, as far as its client is told of them: those of tools that were
    listed to it, from when they run."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}  # of each tool its source
        self._newest: dict[str, ToolChanged] = {}  # of each call
        self._known: set[str] = set()  # calls that the client has been told of, or will be
        self._asked: dict[str, str] = {}  # of each call that he was asked about, by what

    def listed(self, server_tools: Mapping[str, tuple[Declared, ...]]) -> list[dict[str, Any]]:
        """The tools that there are from now on: an item for each source, without its id."""
        items = []
        for label, tools in server_tools.items():
            self._labels |= {tool.name: label for tool in tools}
            listed = [
                {"name": one.name, "description": one.description, "input_schema": one.parameters}
                for one in tools
            ]
            items.append({"type": "mcp_list_tools", "server_label": label, "tools": listed})
        return items

    def steps(self, told: Told) -> Iterator[tuple[Step, str]]:
        """What the client is to be told of what a desk tells, and of which call."""
        match told:
            case ToolChanged(call_id=call_id) if told.tool in self._labels:
                self._newest[call_id] = told
                may_begin = told.state in (State.RUNNING, State.FAILED)  # what is denied never runs
                if call_id not in self._known and may_begin:
                    self._known.add(call_id)
                    yield "begin", call_id
                if told.state in _OVER:
                    yield "end", call_id
            case ConfirmationAsked(call_id=call_id) if call_id in self._newest:
                if told.method in _CLIENTS:
                    self._asked[call_id] = told.approval_id
                    yield "ask", call_id

    def approval_request(self, call_id: str) -> dict[str, Any]:
        """The item that asks the client about a call."""
        id = self._asked[call_id]
        return {"id": id, "type": "mcp_approval_request", **self._about(call_id)}

    def call(self, call_id: str) -> dict[str, Any]:
        """The item of a call that has begun, without its id."""
        asked = {"approval_request_id": self._asked.get(call_id)}
        return {"type": "mcp_call", **self._about(call_id), "output": None, "error": None, **asked}

    def is_over(self, call_id: str) -> bool:
        """Whether it has ended."""
        return self._newest[call_id].state in _OVER

    def outcome(self, call_id: str) -> tuple[str | None, str]:
        """What a call that is over has brought; None, and why, where it has not done it."""
        told = self._newest[call_id]
        if told.state is State.SUCCEEDED:
            return msgspec.json.encode(told.result or {}).decode(), ""
        return None, told.reason or str(told.state)

    def _about(self, call_id: str) -> dict[str, Any]:
        told = self._newest[call_id]
        arguments = msgspec.json.encode(told.arguments).decode()
        return {"server_label": self._labels[told.tool], "name": told.tool, "arguments": arguments}
