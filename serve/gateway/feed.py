"""What operators' pages are told of all sessions: what there is, then what changes."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from model.frame import FRAME_MS
from serve.dialects.writing import fields_of
from serve.gateway.events import Ended, Event, HandedBack, Started, TakenOver, ToolEvent
from serve.gateway.gateway import Gateway, Line
from serve.gateway.identity import Operator
from serve.tools.call import State
from serve.tools.journal import NOT_WRITTEN, Entry
from serve.tools.modes import Change
from serve.tools.told import ConfirmationAsked, HandoffRequested, ModeChanged, Told, ToolChanged

_MOST_PAGES = 64
_MOST_CALLS = 200  # of a session, that a page is told when it begins to watch
_LOAD_S = 1.0

_log = structlog.get_logger()


class Feed:
    """For all pages of one gateway. It works on the event loop, and the more so while there are
    pages."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._pages: list[Callable[[str], None]] = []
        self._asked: dict[str, dict[str, Any]] = {}  # what calls wait for, by their ids
        self._handoffs: dict[str, dict[str, Any]] = {}  # that nobody has taken, by session
        self._calls: dict[str, dict[str, dict[str, Any]]] = {}  # the last of each, by session
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop: Callable[[], None] | None = None
        gateway.observe(self._observed)

    @property
    def is_full(self) -> bool:
        """Whether no page more may come."""
        return len(self._pages) >= _MOST_PAGES

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """All that are there, as operators see them."""
        return [_about(line) for line in self.gateway.lines.values()]

    def join(self, operator: Operator, put: Callable[[str], None]) -> Callable[[], None]:
        """An `operator`'s page is told by `put` what there is, and what changes until what is
        returned is called."""
        if not self._stop:
            self._stop = self._start()
        self._pages.append(put)
        put(
            written(
                "hello",
                operator=operator.name,
                method=operator.method,
                sessions=self.sessions,
                modes=self.gateway.tools.modes.all,
                approvals=[*self._asked.values()],
                handoffs=[*self._handoffs.values()],
            )
        )
        return lambda: self._leave(put)

    def _leave(self, put: Callable[[str], None]) -> None:
        self._pages.remove(put)
        if not self._pages and self._stop:
            self._stop()
            self._stop = None

    def calls(self, session_id: str) -> list[dict[str, Any]]:
        """What was told last of each call of a session's, the last 200."""
        return [*self._calls.get(session_id, {}).values()]

    def line(self, session_id: str) -> Line | None:
        """A session that has not ended."""
        line = self.gateway.lines.get(session_id)
        return None if line is None or line.session.ended else line

    def note(self, line: Line, operator: Operator, kind: str, **details: str) -> None:
        """Writes down what an operator did. It counts at once: a human who steps in must not wait
        for a log."""
        who = (line.arrival.tenant.name, line.session.name, "")
        task = asyncio.create_task(self._write(Entry(*who, kind, operator.actor, details=details)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, entry: Entry) -> None:
        try:
            await self.gateway.tools.audit.append(entry)
        except NOT_WRITTEN as error:
            about = {"kind": entry.kind, "actor": entry.actor, "session": entry.session}
            _log.error("operator_not_written", **about, error=repr(error))

    def _start(self) -> Callable[[], None]:
        """What is only done while there are pages, until what is returned is called."""
        loop = asyncio.get_running_loop()
        unsubscribe = self.gateway.tools.modes.subscribe(
            lambda change: loop.call_soon_threadsafe(self._mode_changed, change)
        )
        telling = asyncio.create_task(self._tell_load())

        def stop() -> None:
            unsubscribe()
            telling.cancel()

        return stop

    async def _tell_load(self) -> None:
        while True:
            gateway = self.gateway
            about = {"sessions": len(gateway.lines), "engine_up": gateway.link.is_up}
            self._tell("load", **about, **vars(gateway.metrics.load()))
            await asyncio.sleep(_LOAD_S)

    def _mode_changed(self, change: Change) -> None:
        running = [
            call["call_id"]
            for session, calls in self._calls.items()
            for call in calls.values()
            if call["state"] == State.RUNNING and self._is_in(change.scope, session, call)
        ]
        about = {"scope": change.scope, "mode": change.after, "actor": change.actor}
        self._tell("mode.changed", **about, running=running)

    def _is_in(self, scope: str, session: str, call: Mapping[str, Any]) -> bool:
        line = self.gateway.lines.get(session)  # none, where it has ended and a tool still runs
        tenant = f"tenant:{line.arrival.tenant.name}" if line else ""
        return scope in ("all", tenant, f"session:{session}", f"tool:{call['tool']}")

    def _observed(self, line: Line, event: Event) -> None:
        name = line.session.name
        match event:
            case Started():
                self._tell("session.opened", session=_about(line))
            case Ended(reason):
                self._forget(name)
                self._tell("session.ended", session_id=name, reason=reason)
            case ToolEvent(number, told) if not isinstance(told, ModeChanged):
                self._told(line, number, told)
            case TakenOver(_, operator):
                self._handoffs.pop(name, None)
                self._tell("session.taken_over", session_id=name, operator=operator)
            case HandedBack(_, operator):
                self._tell("session.handed_back", session_id=name, operator=operator)

    def _told(self, line: Line, number: int, told: Told) -> None:
        kind, fields = fields_of(told)
        name = line.session.name
        message = {"session_id": name, "at_ms": max(number, 0) * FRAME_MS, **fields}
        match told:
            case ToolChanged():
                is_asked = told.state is State.AWAITING_CONFIRMATION and told.is_wanted
                if not is_asked:
                    self._asked.pop(told.call_id, None)
                calls = self._calls.setdefault(name, {})
                calls[told.call_id] = message
                if len(calls) > _MOST_CALLS:
                    del calls[next(iter(calls))]
            case ConfirmationAsked():
                self._asked[told.call_id] = {"type": kind, **message}
            case HandoffRequested():
                self._handoffs[name] = {"type": kind, **message}
        self._tell(kind, **message)

    def _forget(self, session: str) -> None:
        self._handoffs.pop(session, None)
        self._calls.pop(session, None)
        asked = self._asked
        self._asked = {call: one for call, one in asked.items() if one["session_id"] != session}

    def _tell(self, kind: str, **fields: Any) -> None:
        if self._pages:
            text = written(kind, **fields)
            for put in self._pages:
                put(text)


def _about(line: Line) -> dict[str, Any]:
    return {
        "id": line.session.name,
        "tenant": line.arrival.tenant.name,
        "dialect": line.arrival.dialect,
        "opened_at": line.opened_at_s,
        "operator": line.session.operator,
    }


def written(kind: str, **fields: Any) -> str:
    """A message for a page; bytes go as base64."""
    return msgspec.json.encode({"type": kind, **fields}).decode()
