"""All that a server's sessions share to run tools: what may run, where from, and what is written
down of it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from model.tool_schema import decodable_tools
from serve.tools.audit import Audit
from serve.tools.modes import Modes, keep
from serve.tools.policy import Policy
from serve.tools.runner import Runner
from serve.tools.source import Declared
from serve.tools.sources import Sources, read_sources

_log = structlog.get_logger()
_LOOK_S = 2.0  # from one look at what tools there are to the next


@dataclass(frozen=True)
class ToolsConfig:
    """`policy`, `sources` and `modes` are files: without a policy clients run their own tools as
    they like and nothing else runs; without sources the server has no tools. `audit` is the path of
    an SQLite file, or `postgresql://...`; `audit_key` a file that holds the key of its chain."""

    policy: str | None = None
    sources: str | None = None
    audit: str = "runs/audit.sqlite"
    audit_key: str | None = None
    modes: str | None = None

    def __post_init__(self) -> None:
        assert self.policy or not self.sources, "sources need a policy: without it nothing may run"


class ToolRuntime:
    """One for a server, on its event loop. `open` it before anybody comes in. `listed` are the
    tools that the server has now, by their sources."""

    def __init__(self, config: ToolsConfig) -> None:
        """Raises ValueError where a file is wrong, OSError where there is none or no audit log."""
        key = Path(config.audit_key).read_bytes().strip() if config.audit_key else b""
        self.policy = Policy.load(Path(config.policy)) if config.policy else Policy.open()
        self.sources = read_sources(Path(config.sources)) if config.sources else Sources({})
        if "://" not in config.audit:
            Path(config.audit).parent.mkdir(parents=True, exist_ok=True)
        self.audit = Audit(config.audit, key)
        self.modes = Modes(Path(config.modes) if config.modes else None)
        self.runner = Runner(self.policy, self.modes, self.audit)
        self.listed: Mapping[str, tuple[Declared, ...]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Raises ValueError where the tools of the sources can't be an agent's."""
        await self.sources.open()
        self._take(await self.sources.listed())
        keeping = (keep(self.modes, self.audit), self._keep_listing())
        self._tasks = [asyncio.create_task(one) for one in keeping]

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """`listener` is called whenever other tools are listed, until what is returned is."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def close(self) -> None:
        """Once nothing runs any more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.modes.close()
        await self.sources.close()
        await asyncio.to_thread(self.audit.close)

    async def _keep_listing(self) -> None:
        """An MCP server may come later than this one, and may have other tools at any time. What
        is wrong with a look leaves the tools as they are, and is told once as long as it lasts."""
        wrong = ""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                listed = await self.sources.listed()
                if listed != self.listed:
                    self._take(listed)
                wrong = ""
            except Exception as error:
                if repr(error) != wrong:
                    _log.exception("tools_not_listed", why=str(error))
                wrong = repr(error)

    def _take(self, listed: Mapping[str, tuple[Declared, ...]]) -> None:
        """Raises ValueError where these can't be an agent's, who keeps what he has."""
        decodable_tools([tool.as_setting for tools in listed.values() for tool in tools])
        self.listed = listed
        for listener in [*self._listeners]:
            try:
                listener()
            except Exception:  # the others have to know all the same
                _log.exception("tools_listener_raised")
