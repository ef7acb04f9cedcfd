"""Tools that the server runs, as Realtime's clients know such: a source is an MCP server, and its
calls are items of that. Told only to clients who have asked for some: others know no such items."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from serve.dialects.dialect import Send
from serve.dialects.realtime_agent import AgentTurns
from serve.dialects.realtime_items import Item, Items
from serve.dialects.realtime_response import Response
from serve.dialects.writing import Writer
from serve.tools.call import State
from serve.tools.source import Declared
from serve.tools.told import ConfirmationAsked, Told, ToolChanged

_OVER = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SUPERSEDED, State.COMPENSATED)
_CLIENTS = ("voice", "dtmf")  # a word that a client may give


class ServerCalls:
    """Those of one session. A call's item is added when it begins, and done when it is over."""

    def __init__(self, writer: Writer, items: Items, turns: AgentTurns) -> None:
        self._writer, self._items, self._turns = writer, items, turns
        self._labels: dict[str, str] = {}  # of each tool its source
        self._newest: dict[str, ToolChanged] = {}  # of each call
        self._begun: dict[str, tuple[Item, Response, int]] = {}  # and the item's place in it
        self._known: set[str] = set()  # calls that the client has been told of, or will be
        self._asked: dict[str, str] = {}  # of each call that he was asked about, by what

    def list(self, server_tools: Mapping[str, tuple[Declared, ...]]) -> Iterator[Send]:
        """The tools that there are now."""
        for label, tools in server_tools.items():
            self._labels |= {tool.name: label for tool in tools}
            listed = [
                {"name": one.name, "description": one.description, "input_schema": one.parameters}
                for one in tools
            ]
            fields = {"type": "mcp_list_tools", "server_label": label, "tools": listed}
            item = Item(self._items.new_id(), fields)
            yield self._writer.event("mcp_list_tools.in_progress", item_id=item.id)
            yield from self._items.add(item)
            yield self._writer.event("mcp_list_tools.completed", item_id=item.id)
            yield from self._items.done(item)

    def tell(self, told: Told) -> Iterator[Send]:
        """What a desk tells."""
        match told:
            case ToolChanged(call_id=call_id) if told.tool in self._labels:
                self._newest[call_id] = told
                has_failed = told.state is State.FAILED
                if call_id not in self._known and (has_failed or told.state is State.RUNNING):
                    self._known.add(call_id)
                    yield from self._turns.part(partial(self._begin, call_id))
                if told.state in _OVER:
                    yield from self._end(call_id)
            case ConfirmationAsked(call_id=call_id) if call_id in self._newest:
                if told.method in _CLIENTS:
                    self._asked[call_id] = told.approval_id
                    yield from self._turns.part(partial(self._ask, told))

    def _begin(self, call_id: str, response: Response) -> Iterator[Send]:
        fields = {"type": "mcp_call", **self._about(call_id)}
        arguments = fields["arguments"]
        fields |= {"arguments": "", "output": None, "error": None}
        fields["approval_request_id"] = self._asked.get(call_id)
        item = Item(self._items.new_id(), fields)
        index = yield from response.add(item)
        place = {"item_id": item.id, "output_index": index}
        event, where = "response.mcp_call_arguments", {"response_id": response.id, **place}
        yield self._writer.event(f"{event}.delta", **where, delta=arguments)
        yield self._writer.event(f"{event}.done", **where, arguments=arguments)
        fields["arguments"] = arguments
        yield self._writer.event("response.mcp_call.in_progress", **place)
        self._begun[call_id] = (item, response, index)
        if self._newest[call_id].state in _OVER:  # meanwhile
            yield from self._end(call_id)

    def _end(self, call_id: str) -> Iterator[Send]:
        if call_id not in self._begun:
            return
        told, (item, response, index) = self._newest[call_id], self._begun.pop(call_id)
        has_done_it = told.state is State.SUCCEEDED
        if has_done_it:
            item.fields["output"] = msgspec.json.encode(told.result or {}).decode()
        else:
            why = told.reason or str(told.state)
            item.fields["error"] = {"type": "tool_execution_error", "message": why}
        event = f"response.mcp_call.{'completed' if has_done_it else 'failed'}"
        yield self._writer.event(event, item_id=item.id, output_index=index)
        yield from response.finish(item, index)

    def _ask(self, asked: ConfirmationAsked, response: Response) -> Iterator[Send]:
        fields = {"type": "mcp_approval_request", **self._about(asked.call_id)}
        item = Item(asked.approval_id, fields)
        index = yield from response.add(item)
        yield from response.finish(item, index)

    def _about(self, call_id: str) -> dict[str, Any]:
        told = self._newest[call_id]
        arguments = msgspec.json.encode(told.arguments).decode()
        return {"server_label": self._labels[told.tool], "name": told.tool, "arguments": arguments}
