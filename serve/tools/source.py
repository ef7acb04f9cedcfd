"""Where tools come from, and how one is run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Run:
    """What a tool is told beside its arguments. `key` is the same whenever the same call is run
    again; the run must have ended within `timeout_s`. `check` raises ToolError where the run may
    begin no more, on any thread: it is asked before `Source.run`, and what goes to another thread
    asks again there."""

    session: str
    tenant: str
    call_id: str
    key: str
    timeout_s: float
    check: Callable[[], None] = lambda: None


class ToolError(Exception):
    """A tool did not do what it was asked to. What the agent is told of it is the message;
    `is_retryable` where nothing has happened and it may be asked again."""

    def __init__(self, message: str, is_retryable: bool = False) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable


@dataclass(frozen=True)
class Declared:
    """A tool as an agent is told of it. `hints` are what its source says of its effects: nobody's
    decision rests on them."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    hints: Mapping[str, Any] = field(default_factory=dict)

    @property
    def as_setting(self) -> dict[str, Any]:
        """The same as an engine is told of it."""
        about = {"name": self.name, "description": self.description}
        return {**about, "parameters": self.parameters}


class Runs(Protocol):
    """Whoever runs some tools."""

    async def run(self, tool: str, arguments: Mapping[str, Any], run: Run) -> dict[str, Any]:
        """What a call brings. Raises ToolError; may be cancelled."""
        ...


class Source(Runs, Protocol):
    """Some tools that this server runs."""

    async def declared(self) -> Sequence[Declared]:
        """Those that there are now."""
        ...

    async def close(self) -> None:
        """Nothing more is asked of it."""
        ...
