"""An operator's page: what he does in one session. He watches it, takes it over, speaks, hands it
back.

Nobody waits for a page that does not read: it is closed.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import structlog
from msgspec import Meta

from serve.dialects.reading import Fault, read
from serve.gateway.feed import Feed, written
from serve.gateway.gateway import Line
from serve.gateway.identity import Operator
from serve.gateway.limits import Admission, Allowance
from serve.gateway.socket import Channel
from serve.gateway.watched import Frame

_MOST_WAITING = 512  # messages for a page that does not read: of one that watches, some 30 s
_CLOSE_S = 2.0  # to say goodbye in
_TOO_SLOW = (1008, "too_slow")

_log = structlog.get_logger()
_Id = Annotated[str, Meta(max_length=128)]


class _Message(msgspec.Struct, tag_field="type"):
    pass


class _Watch(_Message, tag="watch"):
    """Its frames are wanted from now on, and no other session's; None: of none."""

    session_id: _Id | None


class _TakeOver(_Message, tag="take_over"):
    session_id: _Id


class _Say(_Message, tag="say"):
    """Sound for the caller: int16 at 24 kHz, in base64."""

    audio: Annotated[bytes, Meta(max_length=96_000)]  # 2 s


class _HandBack(_Message, tag="hand_back"):
    """The agent goes on, and is told `note`."""

    note: Annotated[str, Meta(max_length=4000)] = ""


PageMessage = _Watch | _TakeOver | _Say | _HandBack
_decoder = msgspec.json.Decoder(PageMessage)


class Page:
    """An `operator`'s, on a `channel`. He may send as much as any client."""

    def __init__(self, feed: Feed, channel: Channel, operator: Operator) -> None:
        self._operator = operator
        self._feed, self._channel = feed, channel
        self._spend = Admission(Allowance(), time.monotonic, lambda: None).spend
        self._waiting: asyncio.Queue[str] = asyncio.Queue(_MOST_WAITING)
        self._emitting: asyncio.Task[None] | None = None
        self._is_slow = self._is_dropping = False
        self._unwatch: Callable[[], None] | None = None
        self._taken: Line | None = None

    async def run(self) -> None:
        """Until it is gone, or does not read. Whom its operator speaks to then has the agent
        again."""
        leave = self._feed.join(self._operator, self.put)
        _log.info("page_opened", operator=self._operator.name)
        try:
            async with asyncio.TaskGroup() as group:
                receiving = group.create_task(self._receive())
                self._emitting = group.create_task(self._emit())
                receiving.add_done_callback(lambda _, other=self._emitting: other.cancel())
                self._emitting.add_done_callback(lambda _: receiving.cancel())
        finally:
            leave()
            self._watch(None)
            if self._line_taken:
                self._hand_back("", why="the page has gone")
            _log.info("page_closed", operator=self._operator.name, is_slow=self._is_slow)
        if self._is_slow:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._channel.close(*_TOO_SLOW)

    def put(self, text: str) -> None:
        """A message as it is sent."""
        if self._waiting.full():
            self._is_slow = True
            assert self._emitting
            self._emitting.cancel()
        else:
            self._waiting.put_nowait(text)

    def _tell(self, kind: str, **fields: Any) -> None:
        """This page alone."""
        self.put(written(kind, **fields))

    @property
    def _line_taken(self) -> Line | None:
        """The session in which the operator speaks."""
        return None if self._taken is None or self._taken.session.ended else self._taken

    async def _receive(self) -> None:
        while (data := await self._channel.receive()) is not None:
            self._take(data)
            await asyncio.sleep(0)  # others have their turn

    async def _emit(self) -> None:
        while await self._channel.send(await self._waiting.get()):
            pass

    def _take(self, data: str | bytes) -> None:
        was_dropping, self._is_dropping = self._is_dropping, self._spend(len(data)) > 0
        if self._is_dropping:
            if not was_dropping:
                why = "too many messages or bytes: they are dropped until there is room again"
                self._refuse("rate_limit_exceeded", why)
            return
        match read(_decoder, data):
            case Fault(_, message):
                self._refuse("invalid_message", message)
            case _Watch(session_id):
                self._watch(session_id)
            case _TakeOver(session_id):
                self._take_over(session_id)
            case _Say(audio):
                self._say(audio)
            case _HandBack(note):
                self._hand_back(note)

    def _watch(self, session_id: str | None) -> None:
        if self._unwatch:
            self._unwatch()
            self._unwatch = None
        if session_id is not None and (line := self._found(session_id)):
            for call in self._feed.calls(session_id):
                self._tell("tool.call", **call)
            self._unwatch = line.session.watch(lambda frame: self._tell_frame(line, frame))

    def _tell_frame(self, line: Line, frame: Frame) -> None:
        self._tell(
            "frame",
            session_id=line.session.name,
            number=frame.number,
            caller=frame.caller,
            agent=frame.agent,
            caller_text=frame.user_text,
            agent_text=frame.agent_text,
            floor=frame.floor,
        )

    def _take_over(self, session_id: str) -> None:
        if self._line_taken:
            self._refuse("already_taken", "hand the call back that you have")
        elif line := self._found(session_id):
            try:
                line.session.take_over(self._operator.name)
            except ValueError as error:
                self._refuse("already_taken", str(error))
            else:
                self._taken = line
                self._feed.note(line, self._operator, "take_over")

    def _say(self, audio: bytes) -> None:
        if line := self._line_taken:
            if len(audio) % 2:
                self._refuse("invalid_message", "audio has half a sample - at `$.audio`")
            else:
                line.session.operator_says(audio)
        else:
            self._refuse("not_taken_over", "take a call over first")

    def _hand_back(self, note: str, **details: str) -> None:
        if line := self._line_taken:
            self._taken = None
            line.session.hand_back(note)
            self._feed.note(line, self._operator, "hand_back", note=note, **details)
        else:
            self._refuse("not_taken_over", "there is no call to hand back")

    def _found(self, session_id: str) -> Line | None:
        line = self._feed.line(session_id)
        if line is None:
            self._refuse("session_not_found", "there is no such session")
        return line

    def _refuse(self, code: str, message: str) -> None:
        self._feed.gateway.metrics.problems.labels(code).inc()
        _log.warning("not_done", operator=self._operator.name, code=code)
        self._tell("error", code=code, message=message)
