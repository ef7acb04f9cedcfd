"""An event loop without waiting, and a desk on it with all that it deals with, made up."""

import asyncio
import selectors
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from serve.tools.desk import Desk
from serve.tools.journal import Entry
from serve.tools.modes import Modes
from serve.tools.policy import Breaker, Compensation, Policy, Rule
from serve.tools.runner import Runner
from serve.tools.source import Run, ToolError
from serve.tools.told import ToolChanged


class _NoWait(selectors.SelectSelector):
    """Where the loop would wait, its time goes on instead."""

    passed_s = 0.0

    def select(self, timeout: float | None = None):
        assert timeout is not None, "everything waits for something that never comes"
        self.passed_s += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock goes only when there is nothing left to do."""

    def __init__(self) -> None:
        self._no_wait = _NoWait()
        super().__init__(self._no_wait)

    def time(self) -> float:
        return self._no_wait.passed_s

    def after(self, seconds: float) -> None:
        """What happens in that time."""
        self.run_until_complete(asyncio.sleep(seconds))


class FakeJournal:
    """Takes `wait_s` to write an entry, one after another; `is_full` has no room for any."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.wait_s = 0.0
        self.is_full = False
        self._turn = asyncio.Lock()

    async def append(self, entry: Entry) -> int:
        async with self._turn:
            await asyncio.sleep(self.wait_s)
            if self.is_full:
                raise OSError("no space left on device")
            self.entries.append(entry)
            return len(self.entries)

    def of(self, call_id: str, kind: str) -> list[Entry]:
        return [e for e in self.entries if e.call_id == call_id and e.kind == kind]


class FakeSource:
    """Does what it is told to: `plan` has, for each time that a tool is run, how long that takes
    and how it ends; afterwards it is done at once. `done` has what was done."""

    def __init__(self, on_effect: Callable[[str, Run], None] = lambda tool, run: None) -> None:
        self.plan: list[tuple[float, str]] = []
        self.runs: list[Run] = []
        self.done: list[tuple[str, dict[str, Any]]] = []
        self._on_effect = on_effect

    async def declared(self) -> list:
        return []

    async def run(self, tool, arguments, run: Run) -> dict[str, Any]:
        self.runs.append(run)
        wait_s, end = self.plan.pop(0) if self.plan else (0.0, "ok")
        if end == "later":  # as what goes to another thread
            await asyncio.sleep(wait_s / 2)
            run.check()
        if end != "again":
            self._on_effect(tool, run)
            self.done.append((tool, dict(arguments)))
        await asyncio.sleep(wait_s)
        if end == "again":
            raise ToolError("unavailable", is_retryable=True)
        if end == "error":
            raise ToolError("not_found")
        if end == "bug":
            raise RuntimeError("a bug")
        return {**arguments, "ref": f"R{len(self.runs)}"}

    async def close(self) -> None:
        pass


RULES = {
    "status": Rule("read", "none", speculation=True, retries=2, redact=("pin",)),
    "calendar": Rule("read", "none", delivery="when_idle", timeout_s=2),
    "message": Rule("write", "none", delivery="silent"),
    "save": Rule("write", "none", idempotent=True, retries=3, concurrency=1, timeout_s=3),
    "book": Rule("write", "voice", compensation=Compensation("unbook", ("ref",)), timeout_s=4),
    "unbook": Rule("write", "none", timeout_s=4),
    "cancel": Rule("irreversible", "supervisor", scopes=("billing",), refused="handoff"),
    "lead": Rule("write", "none", min_confidence=0.5, unsure="handoff"),
    "faq": Rule("read", "none", speculation=True, min_confidence=0.5),
    "pay": Rule("irreversible", "console", delivery="when_idle"),  # the client's
    "page": Rule("write", "none", breaker=Breaker(3, 5)),
}
CLIENTS = ("pay", "unnamed")
POLICY = Policy(RULES, {"shop": ("billing",)})


class Stage:
    """A desk and all around it, on a loop that waits for nothing."""

    def __init__(self, policy: Policy = POLICY, tenant: str = "shop", **others: Any) -> None:
        self.loop = VirtualLoop()
        self.modes = Modes(others.get("modes"))
        self.journal = FakeJournal()
        self.source = FakeSource(others.get("on_effect", lambda tool, run: None))
        self.delivered: list[tuple[int, dict[str, Any], str]] = []
        self.told: list[Any] = []
        sources = {tool: self.source for tool in RULES if tool not in CLIENTS}

        async def make() -> Desk:
            runner = Runner(policy, self.modes, self.journal, self.loop.time)
            deliver = others.get("deliver", lambda *given: self.delivered.append(given))
            tell = others.get("tell", self.told.append)
            about = (runner, sources, deliver, tell, others.get("confirmed", ()))
            return Desk("s1", tenant, *about, self.loop.time)

        self.desk = self.loop.run_until_complete(make())

    def do(self, name: str, *given: Any, **also: Any) -> None:
        """Calls that function of the desk as if on its loop; nothing else happens meanwhile."""
        asyncio._set_running_loop(self.loop)
        try:
            getattr(self.desk, name)(*given, **also)
        finally:
            asyncio._set_running_loop(None)

    def make(self, number: int, tool: str, confidence: float = 1.0, revises: int = 0, **given):
        self.do("made", number, tool, given, confidence, revises)

    def after(self, seconds: float = 0.0) -> None:
        self.loop.after(seconds + 1e-6)

    def states(self, number: int) -> list[str]:
        one = f"call_s1_{number}"
        told = [t for t in self.told if isinstance(t, ToolChanged) and t.call_id == one]
        return [t.state for i, t in enumerate(told) if i == 0 or told[i - 1].state != t.state]

    def journaled(self, number: int) -> list[str]:
        return [entry.after for entry in self.journal.of(f"call_s1_{number}", "call")]

    def told_of(self, kind: type) -> list[Any]:
        return [one for one in self.told if isinstance(one, kind)]

    def end(self) -> None:
        self.do("end")
        self.loop.run_until_complete(self.desk.over())

    def close(self) -> None:
        self.end()
        self.loop.close()


def without_log() -> Iterator[None]:
    """To be a fixture: tracebacks of faults that are meant take longer than all the rest."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    yield
    structlog.configure(**before)


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent
