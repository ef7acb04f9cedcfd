"""Tools that the server runs, and their calls, as Live's clients know such: a delegate's."""

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from serve.dialects.live_delegation import DELEGATION
from serve.dialects.live_objects import DelegateResponse, delegation_created
from serve.dialects.server_tools import ServerCalls
from serve.dialects.writing import Writer
from serve.tools.source import Declared
from serve.tools.told import Told

ServerMessage = dict[str, Any]


class LiveServerCalls:
    """Those of one session. A call is a delegation of its own; its response lasts as long as it
    runs, and another one before that asks the client. `respond` makes them, of a delegation's id
    and their own."""

    def __init__(
        self, writer: Writer, respond: Callable[[str | None, str], DelegateResponse]
    ) -> None:
        self._writer, self._respond = writer, respond
        self._calls = ServerCalls()
        self._delegated: set[str] = set()  # calls whose delegation the client has been told of
        self._begun: dict[str, tuple[ServerMessage, DelegateResponse]] = {}  # items

    def note(self, server_tools: Mapping[str, tuple[Declared, ...]]) -> None:
        """The tools that there are before the client is told of any."""
        self._calls.listed(server_tools)

    def list(self, server_tools: Mapping[str, tuple[Declared, ...]]) -> Iterator[ServerMessage]:
        """The tools that there are now."""
        response = self._respond(None, self._writer.new_id("resp"))
        yield response.open()
        for index, fields in enumerate(self._calls.listed(server_tools)):
            item = {"id": self._writer.new_id("mcpl"), **fields}
            place = _place(item, index)
            yield response.tell(_added({**item, "tools": []}, index))
            yield response.tell({"type": "response.mcp_list_tools.in_progress", **place})
            yield response.tell({"type": "response.mcp_list_tools.completed", **place})
            yield response.tell(_done(item, index))
        yield response.close()

    def tell(self, number: int, told: Told) -> Iterator[ServerMessage]:
        """What a desk tells, at frame `number`."""
        for step, call_id in self._calls.steps(told):
            match step:
                case "ask":
                    yield from self._ask(number, call_id)
                case "begin":
                    yield from self._begin(number, call_id)
                case "end" if call_id in self._begun:
                    yield from self._end(call_id)

    def _ask(self, number: int, call_id: str) -> Iterator[ServerMessage]:
        item = self._calls.approval_request(call_id)
        response = yield from self._open(number, call_id, f"resp_{item['id']}")
        yield response.tell(_added(item))
        yield response.tell(_done(item))
        yield response.close()

    def _begin(self, number: int, call_id: str) -> Iterator[ServerMessage]:
        item = {"id": f"mcp_{call_id}", "status": "in_progress", **self._calls.call(call_id)}
        response = yield from self._open(number, call_id, f"resp_{call_id}")
        place, arguments = _place(item), item["arguments"]
        event = "response.mcp_call_arguments"
        yield response.tell(_added({**item, "arguments": ""}))
        yield response.tell({"type": "response.mcp_call.in_progress", **place})
        yield response.tell({"type": f"{event}.delta", **place, "delta": arguments})
        yield response.tell({"type": f"{event}.done", **place, "arguments": arguments})
        self._begun[call_id] = item, response

    def _end(self, call_id: str) -> Iterator[ServerMessage]:
        item, response = self._begun.pop(call_id)
        output, why = self._calls.outcome(call_id)
        status = "failed" if output is None else "completed"
        item |= {"status": status, "output": output}
        if output is None:
            content = [{"type": "text", "text": why}]
            item["error"] = {"type": "mcp_tool_execution_error", "content": content}
        yield response.tell({"type": f"response.mcp_call.{status}", **_place(item)})
        yield response.tell(_done(item))
        yield response.close()

    def _open(
        self, number: int, call_id: str, response_id: str
    ) -> Generator[ServerMessage, None, DelegateResponse]:
        """A response for a call, behind the events that begin it."""
        if call_id not in self._delegated:
            self._delegated.add(call_id)
            created = delegation_created(call_id, max(number, 0), response_id)
            yield self._writer.message("session.delegation.created", **created)
        response = self._respond(DELEGATION + call_id, response_id)
        yield response.open()
        return response


def _added(item: ServerMessage, index: int = 0) -> ServerMessage:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def _done(item: ServerMessage, index: int = 0) -> ServerMessage:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def _place(item: ServerMessage, index: int = 0) -> ServerMessage:
    return {"item_id": item["id"], "output_index": index}
