"""Plays callers to a running server over its sockets, at the pace of speech: `converse`, live."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.scripts.backend import Backend
from model.frame import FRAME_S
from serve.watched_call import WatchedCall, hold
from train.conversation import Conversation, Event
from train.scoring.dialogue_loop import Caller, Playing
from train.tool_desk import ToolDesk


@dataclass
class _Client:
    """A caller's own client: it says what he says, and runs the tools that he declares."""

    playing: Playing
    desk: ToolDesk
    ready: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)

    def next_frame(self, heard: list[NDArray[np.float32]]) -> NDArray[np.float32] | None:
        """80 ms of his, float32 [1920]; None once he has hung up."""
        return None if self.playing.is_over else self.playing.next_frame(heard)

    def said(self, time_s: float, agent_text: str, caller_text: str, floor: str) -> None:
        """A frame: nothing to do."""

    def happened(self, event: Event) -> None:
        """What the agent has made is run."""
        if event.kind == "made":
            self.desk.made(event._replace(time_s=self.playing.own_frame * FRAME_S))

    def results(self, watched: WatchedCall) -> list[tuple[str, Mapping[str, Any]]]:
        """Of the calls that the server lets run, as soon as there are any."""
        self.ready += self.desk.ready(self.playing.own_frame * FRAME_S)
        running = watched.running()
        due = [(running[number], result) for number, result in self.ready if number in running]
        self.ready = [one for one in self.ready if one[0] not in running]
        return due


def converse_live(
    url: str, callers: Iterable[Caller], at_once: int, backend: Backend
) -> Iterator[tuple[Caller, Conversation]]:
    """Each caller's conversation with the agent of a server whose tools its clients run; so many
    are held at once.

    Raises RuntimeError where the server ends one, or does not answer.
    """
    waiting = iter(callers)
    while group := [*itertools.islice(waiting, at_once)]:
        yield from zip(group, asyncio.run(_hold_all(url, group, backend)), strict=True)


async def _hold_all(url: str, group: Sequence[Caller], backend: Backend) -> list[Conversation]:
    return await asyncio.gather(*(_hold(url, caller, backend) for caller in group))


async def _hold(url: str, caller: Caller, backend: Backend) -> Conversation:
    client = _Client(Playing(caller), ToolDesk(backend, caller.labels))
    tools = [{"type": "function", **tool} for tool in caller.tools]
    session = {"instructions": caller.system, "tools": tools}
    watched = await hold(url, client, session, caller.name, client, client.results)
    return replace(watched.conversation(), waits=client.playing.waits)
