"""All that a server's sessions share to run tools: what may run, where from, and what is written
down of it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.tool_schema import decodable_tools
from serve.tools.audit import Audit
from serve.tools.desk import Desk
from serve.tools.errand import Result
from serve.tools.modes import Modes, keep
from serve.tools.policy import Delivery, Policy
from serve.tools.runner import Runner
from serve.tools.source import Declared, Source
from serve.tools.sources import Sources, read_sources
from serve.tools.told import Told


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
    """One for a server, on its event loop. `open` it before anybody comes in."""

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
        self.declared: tuple[Declared, ...] = ()
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises ValueError where the tools of the sources can't be an agent's."""
        await self.sources.open()
        self.declared = tuple(await self.sources.declared())
        decodable_tools(self.as_settings)
        self._keeping = asyncio.create_task(keep(self.modes, self.audit))

    @property
    def as_settings(self) -> tuple[Mapping[str, object], ...]:
        """The tools that the server runs, as agents are told of them."""
        return tuple(
            {"name": one.name, "description": one.description, "parameters": one.parameters}
            for one in self.declared
        )

    def desk(
        self,
        session: str,
        tenant: str,
        deliver: Callable[[int, Result, Delivery], None],
        tell: Callable[[Told], None],
    ) -> Desk:
        """A session's."""
        sources: Mapping[str, Source] = {one.name: self.sources for one in self.declared}
        return Desk(session, tenant, self.runner, sources, deliver, tell)

    async def close(self) -> None:
        """Once nothing runs any more."""
        if self._keeping:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        self.modes.close()
        await self.sources.close()
        await asyncio.to_thread(self.audit.close)
