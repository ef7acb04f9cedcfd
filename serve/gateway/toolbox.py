"""The tools that one session's agent has: its client's, and those of this server's that its client
has chosen."""

from collections.abc import Mapping
from typing import Any

from model.tool_schema import decodable_tools
from serve.gateway.events import ServerTools, Settings
from serve.tools.runtime import ToolRuntime
from serve.tools.source import Declared, Runs


class Toolbox:
    """`listed` are the server's tools that the agent has now, by their source; `sources` has the
    source of all that it has ever had, and `confirmed` the names of those whose calls the client
    wants to be asked about."""

    def __init__(self, runtime: ToolRuntime) -> None:
        self.listed: Mapping[str, tuple[Declared, ...]] = {}
        self.sources: dict[str, Runs] = {}
        self.confirmed: set[str] = set()
        self._runtime = runtime

    def check(self, settings: Settings) -> None:
        """Raises ValueError where an agent can't have these tools, and says which."""
        there = self._runtime.listed
        own = {tool.name for tools in there.values() for tool in tools}
        if taken := [tool["name"] for tool in settings.tools if tool.get("name") in own]:
            raise ValueError(f"tool {taken[0]!r} is one that this server runs: take another name")
        wanted = _wanted(settings, there)
        for one in wanted:
            if [other.source for other in wanted].count(one.source) > 1:
                raise ValueError(f"tools of {one.source!r} are asked for twice")
            if one.source not in there:
                has = ", ".join(there) or "none"
                raise ValueError(f"this server has no tools of {one.source!r}: it has {has}")
            names = [tool.name for tool in there[one.source]]
            unknown = {*(one.names or ()), *one.confirmed} - {*names}
            if names and unknown:  # one without any is away: what it has is not known
                message = f"{one.source} has no tool {min(unknown)!r}: it has {', '.join(names)}"
                raise ValueError(message)
        decodable_tools(self._all(settings, self._chosen(settings)))

    def take(self, settings: Settings) -> list[dict[str, Any]]:
        """All that the agent has with these settings, as an engine is told of them."""
        self.listed = self._chosen(settings)
        for source, tools in self.listed.items():
            self.sources.update({tool.name: self._runtime.sources for tool in tools})
            asked = [one for one in _wanted(settings, self.listed) if one.source == source]
            self.confirmed -= {tool.name for tool in tools}
            self.confirmed |= {tool.name for tool in tools if asked[0].is_confirmed(tool.name)}
        return self._all(settings, self.listed)

    def is_outdated(self, settings: Settings) -> bool:
        """Whether the server has others now than it had."""
        return self._chosen(settings) != self.listed

    def _all(
        self, settings: Settings, chosen: Mapping[str, tuple[Declared, ...]]
    ) -> list[dict[str, Any]]:
        servers = [tool.as_setting for tools in chosen.values() for tool in tools]
        return [dict(tool) for tool in (*settings.tools, *servers)]

    def _chosen(self, settings: Settings) -> dict[str, tuple[Declared, ...]]:
        there, own = self._runtime.listed, {tool.get("name") for tool in settings.tools}

        def is_chosen(tool: Declared, one: ServerTools) -> bool:
            is_read = self._runtime.policy.rule(tool.name, is_client_run=False).effect == "read"
            is_named = one.names is None or tool.name in one.names
            return is_named and (is_read or not one.only_reads) and tool.name not in own

        return {
            one.source: tuple(tool for tool in there.get(one.source, ()) if is_chosen(tool, one))
            for one in _wanted(settings, there)
        }


def _wanted(settings: Settings, there: Mapping[str, object]) -> tuple[ServerTools, ...]:
    if settings.server_tools == "all":
        return tuple(ServerTools(source) for source in there)
    return settings.server_tools
