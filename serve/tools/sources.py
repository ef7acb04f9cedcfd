"""The sources that a file lists, as one.

front_desk:
  kind: functions
  make: serve.front_desk.tools:front_desk
  settings: {database: ":memory:"}
crm:
  kind: http
  url: https://crm.example.com/api
  headers: {Authorization: "Bearer ${CRM_TOKEN}"}
  tools:
    - name: find_customer
      description: Looks a customer up.
      path: /customers/{phone}
      parameters: {type: object, properties: {phone: {type: string}}, required: [phone]}
files: {kind: mcp_stdio, command: [files-server, --read-only]}
search: {kind: mcp_http, url: "https://search.example.com/mcp"}
"""

import asyncio
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog

from serve.tools.functions import Functions
from serve.tools.http import Http, Service
from serve.tools.mcp import Command, Mcp, Remote
from serve.tools.source import Declared, Run, Source, ToolError

_log = structlog.get_logger()
_MOST_BYTES = 2**16  # of a result, as JSON


class Made(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="functions"
):
    """The functions that `make` (`package.module:function`) returns for these settings."""

    make: Annotated[str, msgspec.Meta(pattern=r"^[\w.]+:\w+$")]
    settings: dict[str, Any] = {}


class Sources:
    """Some sources, by their names. A tool belongs to whichever had its name first."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        self._owners: dict[str, str] = {}
        self._clashes: set[str] = set()

    async def open(self) -> None:
        """Before anything else. Raises ValueError where two sources have a tool of one name."""
        _, clashes = await self._found()
        if clashes:
            raise ValueError("; ".join(clashes))

    async def listed(self) -> dict[str, tuple[Declared, ...]]:
        """All that there are now, by source. One whose name is another source's is left out."""
        tools, clashes = await self._found()
        for clash in {*clashes} - self._clashes:  # each is told once
            _log.error("tool_left_out", why=clash)
        self._clashes = {*clashes}
        return tools

    async def _found(self) -> tuple[dict[str, tuple[Declared, ...]], list[str]]:
        found = await asyncio.gather(*(source.declared() for source in self._sources.values()))
        tools: dict[str, tuple[Declared, ...]] = {}
        clashes: list[str] = []
        for name, declared in zip(self._sources, found, strict=True):
            owners = [self._owners.setdefault(tool.name, name) for tool in declared]
            pairs = [*zip(declared, owners, strict=True)]
            tools[name] = tuple(tool for tool, owner in pairs if owner == name)
            clashes += [
                f"tool {tool.name!r} is of both source {owner} and {name}"
                for tool, owner in pairs
                if owner != name
            ]
        return tools, clashes

    async def run(self, tool: str, arguments: Mapping[str, Any], run: Run) -> dict[str, Any]:
        """What a call brings, `too_long` as its error if it is. Raises ToolError; may be
        cancelled."""
        if tool not in self._owners:
            raise ToolError("not_found")
        result = await self._sources[self._owners[tool]].run(tool, arguments, run)
        if len(msgspec.json.encode(result)) > _MOST_BYTES:
            _log.warning("tool_result_too_long", tool=tool)
            return {"error": "too_long"}  # it has run all the same
        return result

    async def close(self) -> None:
        """Of all of them."""
        await asyncio.gather(*(source.close() for source in self._sources.values()))


def read_sources(path: Path) -> Sources:
    """Those of a file. Raises ValueError naming the source that is wrong in it."""
    try:
        entries = msgspec.yaml.decode(
            path.read_bytes(), type=dict[str, Made | Service | Command | Remote]
        )
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name}: {error}") from error
    sources: dict[str, Source] = {}
    for name, entry in entries.items():
        try:
            sources[name] = _source(entry)
        except (ValueError, ImportError, AttributeError, TypeError) as error:
            raise ValueError(f"{path.name}: source {name}: {error}") from error
    return Sources(sources)


def _source(entry: Made | Service | Command | Remote) -> Source:
    match entry:
        case Made():
            module, _, function = entry.make.partition(":")
            make = getattr(importlib.import_module(module), function)
            return Functions(make(**entry.settings))
        case Service():
            return Http(entry)
        case _:
            return Mcp(entry)
