"""An event loop without waiting, and what a desk deals with, made up."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from serve.tools.journal import Entry
from serve.tools.source import Run, ToolError


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
