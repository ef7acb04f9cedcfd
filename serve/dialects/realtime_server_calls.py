"""Tools that the server runs, and their calls, as Realtime's clients know such: items."""

from collections.abc import Iterator, Mapping
from functools import partial

from serve.dialects.dialect import Send
from serve.dialects.realtime_agent import AgentTurns
from serve.dialects.realtime_items import Item, Items
from serve.dialects.realtime_response import Response
from serve.dialects.server_tools import ServerCalls
from serve.dialects.writing import Writer
from serve.tools.source import Declared
from serve.tools.told import Told


class RealtimeServerCalls:
    """Those of one session. A call's item is added when it begins, and done when it is over."""

    def __init__(self, writer: Writer, items: Items, turns: AgentTurns) -> None:
        self._writer, self._items, self._turns = writer, items, turns
        self._calls = ServerCalls()
        self._begun: dict[str, tuple[Item, Response, int]] = {}  # and the item's place in it

    def list(self, server_tools: Mapping[str, tuple[Declared, ...]]) -> Iterator[Send]:
        """The tools that there are now."""
        for fields in self._calls.listed(server_tools):
            item = Item(self._items.new_id(), fields)
            yield self._writer.event("mcp_list_tools.in_progress", item_id=item.id)
            yield from self._items.add(item)
            yield self._writer.event("mcp_list_tools.completed", item_id=item.id)
            yield from self._items.done(item)

    def tell(self, told: Told) -> Iterator[Send]:
        """What a desk tells."""
        for step, call_id in self._calls.steps(told):
            match step:
                case "ask":
                    yield from self._turns.part(partial(self._ask, call_id))
                case "begin":
                    yield from self._turns.part(partial(self._begin, call_id))
                case "end":
                    yield from self._end(call_id)

    def _begin(self, call_id: str, response: Response) -> Iterator[Send]:
        fields = self._calls.call(call_id)
        arguments, fields["arguments"] = fields["arguments"], ""
        item = Item(self._items.new_id(), fields)
        index = yield from response.add(item)
        place = {"item_id": item.id, "output_index": index}
        event, where = "response.mcp_call_arguments", {"response_id": response.id, **place}
        yield self._writer.event(f"{event}.delta", **where, delta=arguments)
        yield self._writer.event(f"{event}.done", **where, arguments=arguments)
        fields["arguments"] = arguments
        yield self._writer.event("response.mcp_call.in_progress", **place)
        self._begun[call_id] = (item, response, index)
        if self._calls.is_over(call_id):  # meanwhile
            yield from self._end(call_id)

    def _end(self, call_id: str) -> Iterator[Send]:
        if call_id not in self._begun:
            return
        item, response, index = self._begun.pop(call_id)
        output, why = self._calls.outcome(call_id)
        item.fields["output"] = output
        if output is None:
            item.fields["error"] = {"type": "tool_execution_error", "message": why}
        event = f"response.mcp_call.{'failed' if output is None else 'completed'}"
        yield self._writer.event(event, item_id=item.id, output_index=index)
        yield from response.finish(item, index)

    def _ask(self, call_id: str, response: Response) -> Iterator[Send]:
        fields = self._calls.approval_request(call_id)
        item = Item(fields.pop("id"), fields)
        index = yield from response.add(item)
        yield from response.finish(item, index)
