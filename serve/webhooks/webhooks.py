"""Tells receivers of an operator's what happens in sessions: signed as Standard Webhooks say, at
least once, a session's events in order, whatever restarts meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from serve.gateway.events import Event
from serve.gateway.gateway import Line
from serve.webhooks.events import CloudEvent, Events
from serve.webhooks.outbox import Outbox
from serve.webhooks.sender import Sender, Sleep
from serve.webhooks.settings import Receiver

_MOST_MADE = 10_000  # events that are not on disk yet
_AGAIN_S = 1.0  # where the disk is full, say
_TIDY_S = 3600.0
_CLOSE_S = 3.0

_log = structlog.get_logger()


class Webhooks:
    """To `receivers`, from an outbox at `path`. `clock` gives Unix time; `sleep` is asyncio's."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        path: Path,
        clock: Callable[[], float] = time.time,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._receivers, self._sleep = receivers, sleep
        self._events = Events(clock)
        self._outbox = Outbox(path, clock)
        self._senders: dict[str, Sender] = {}  # by URL
        self._made: asyncio.Queue[CloudEvent] = asyncio.Queue(_MOST_MADE)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        """So many events have not been taken yet, each counted for each of its receivers."""
        return sum(sender.waiting for sender in self._senders.values())

    async def open(self) -> None:
        """What waits since the last time is sent. Raises OSError where the outbox can't be used, or
        another process has it."""
        await self._outbox.open()
        self._senders = {r.url: Sender(r, self._outbox, self._sleep) for r in self._receivers}
        for_nobody = 0
        for receiver, session, place in await self._outbox.to_come():
            if sender := self._senders.get(receiver):
                sender.add(session, place)
            else:
                for_nobody += 1
        if for_nobody:
            _log.warning("webhook_receiver_unknown", waiting=for_nobody)
        self._tasks = [asyncio.create_task(work) for work in (self._store(), self._tidy())]

    def listener(self, line: Line, event: Event) -> None:
        """What a gateway's observer is. Never waits."""
        made = self._events.of(line, event)
        if made and any(receiver.wants(made) for receiver in self._receivers):
            try:
                self._made.put_nowait(made)
            except asyncio.QueueFull:
                _log.error("webhook_lost", id=made.id, why="too many wait for the outbox")

    async def close(self) -> None:
        """What is made is on disk, and sent if that can be done soon."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._made.join(), _CLOSE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._made.empty():
            _log.error("webhook_lost", count=self._made.qsize(), why="the outbox takes nothing")
        await asyncio.gather(*(sender.close(_CLOSE_S) for sender in self._senders.values()))
        await self._outbox.close()

    async def _store(self) -> None:
        """One after another: what can't be written stays in front of what came later."""
        while True:
            event = await self._made.get()
            while not await self._is_stored(event):
                await self._sleep(_AGAIN_S)
            self._made.task_done()

    async def _is_stored(self, event: CloudEvent) -> bool:
        urls = [receiver.url for receiver in self._receivers if receiver.wants(event)]
        try:
            place = await self._outbox.put(event, urls)
        except (ValueError, TypeError) as error:
            _log.error("webhook_lost", id=event.id, why=type(error).__name__)
            return True
        except OSError as error:
            _log.error("webhook_outbox_failed", error=str(error))
            return False
        if place is not None:
            for url in urls:
                self._senders[url].add(event.subject, place)
        return True

    async def _tidy(self) -> None:
        """What is old is removed, now and then."""
        while True:
            try:
                if given_up := await self._outbox.tidy():
                    _log.error("webhooks_given_up", count=given_up)
            except OSError as error:
                _log.error("webhook_outbox_failed", error=str(error))
            await self._sleep(_TIDY_S)
