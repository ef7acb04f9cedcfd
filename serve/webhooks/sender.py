"""Brings one receiver what is for it: a session's events one after another, those of different
sessions side by side. What is not taken is sent again, ever more seldom.
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx2
import structlog

from serve.webhooks.outbox import Letter, Outbox
from serve.webhooks.settings import Receiver

Sleep = Callable[[float], Awaitable[None]]

_AT_ONCE = 8  # requests
_TIMEOUT_S = 15.0
_MOST_WAIT_S = 300.0
_DOUBLINGS = 9  # from a second to that
_MOST_BYTES = 2**16  # of an answer, that are read to use its connection again
_GONE = 410

_log = structlog.get_logger()


class Sender:
    """To one receiver. `sleep` is asyncio's."""

    def __init__(self, receiver: Receiver, outbox: Outbox, sleep: Sleep = asyncio.sleep) -> None:
        self._receiver, self._outbox, self._sleep = receiver, outbox, sleep
        self._client = httpx2.AsyncClient(
            headers={
                "Content-Type": "application/cloudevents+json; charset=utf-8",
                "User-Agent": "duologue",
            },
            timeout=None,  # each request has one for all of it
            follow_redirects=False,
        )
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._to_come: dict[str, deque[int]] = {}  # places in the outbox, by session
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_well = True
        self._is_gone = False  # as it has said: it is sent nothing more

    @property
    def waiting(self) -> int:
        """So many events have not been taken."""
        return sum(map(len, self._to_come.values()))

    def add(self, session: str, place: int) -> None:
        """Sends an event behind those of its session that were added before."""
        if self._is_gone:
            return
        if session in self._to_come:
            self._to_come[session].append(place)
            return
        self._to_come[session] = deque([place])
        task = asyncio.create_task(self._bring_all(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, wait_s: float) -> None:
        """What can be sent in that time is; the rest stays in the outbox."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=wait_s)
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _bring_all(self, session: str) -> None:
        places = self._to_come[session]
        while places and not self._is_gone:
            await self._bring(places[0])
            places.popleft()
        del self._to_come[session]

    async def _bring(self, place: int) -> None:
        """Returns when the event need not be sent again."""
        for doublings in itertools.count():
            async with self._free:
                if self._is_gone or await self._is_done(place):
                    return
            longest_s = min(_MOST_WAIT_S, 2.0 ** min(doublings, _DOUBLINGS))
            await self._sleep(random.uniform(longest_s / 2, longest_s))

    async def _is_done(self, place: int) -> bool:
        """Sends it. Whether that was all."""
        try:
            letter = await self._outbox.letter(place)
            if letter is None:
                return True
            async with asyncio.timeout(_TIMEOUT_S):
                status = await self._post(letter)
        except Exception as error:  # whatever it is, the event must not be lost
            self._fails(type(error).__name__)
            return False
        if 200 <= status < 300:
            await self._taken(place)
        elif status == _GONE:
            self._is_gone = True
            _log.error("webhook_receiver_gone", host=self._receiver.host, waiting=self.waiting)
        else:
            self._fails(status)
            return False
        return True

    async def _post(self, letter: Letter) -> int:
        """The status of the answer."""
        now = datetime.now(UTC)
        headers = {
            "webhook-id": letter.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._receiver.signer.sign(letter.id, now, letter.body),
        }
        async with self._client.stream(
            "POST", self._receiver.url, content=letter.body, headers=headers
        ) as response:
            read = 0
            async for part in response.aiter_raw():
                read += len(part)
                if read > _MOST_BYTES:
                    break
            return response.status_code

    async def _taken(self, place: int) -> None:
        if not self._is_well:
            _log.info("webhook_receiver_well", host=self._receiver.host)
        self._is_well = True
        try:
            await self._outbox.delivered(self._receiver.url, place)
        except OSError as error:  # sent again after a restart
            _log.error("webhook_outbox_failed", error=str(error))

    def _fails(self, why: str | int) -> None:
        """Said once, not for each of its events."""
        if self._is_well:
            _log.warning("webhook_receiver_failing", host=self._receiver.host, why=why)
        self._is_well = False
