"""One caller: what his client wants goes to the engine, what the engine says becomes events.

Nothing here knows a socket or a protocol. A session lives on the event loop; its commands are taken
at once, its events go to whoever has subscribed.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from model.frame import FLOORS
from model.tool_schema import decodable_tools
from serve.engine.messages import (
    Acted,
    Closed,
    Opened,
    Refused,
    Reply,
    Saved,
)
from serve.engine.messages import Heard as EngineHeard
from serve.gateway.audio import Incoming, Outgoing
from serve.gateway.calls import Calls
from serve.gateway.events import (
    Answer,
    Begin,
    ClearAudio,
    Command,
    Configure,
    Configured,
    Ended,
    EndReason,
    Event,
    HangUp,
    Heard,
    Mute,
    Note,
    Problem,
    Say,
    Settings,
    Started,
)
from serve.gateway.link import Link
from serve.gateway.metrics import Metrics
from serve.gateway.pace import Pace, PaceConfig
from serve.gateway.upstream import Upstream

_NAP_S = 1.0
_VOICED = 100  # int16, root mean square: -50 dB of full scale
_TOO_MUCH = "more sound came than can wait to be heard: the rest is dropped"


@dataclass(frozen=True)
class SessionConfig:
    """A client that has come in says something within `begin_s`, or his silence is heard; one of
    whom no sound has come for `silence_s` is gone, and none is heard for longer than `longest_s`,
    or where there is no engine for `lost_s`, or one that is so far behind. Texts for the agent have
    at most `text_length` letters."""

    pace: PaceConfig = field(default_factory=PaceConfig)
    begin_s: float = 10.0
    silence_s: float = 600.0
    longest_s: float = 7200.0
    lost_s: float = 10.0
    text_length: int = 16_000

    def __post_init__(self) -> None:
        for name in ("begin_s", "silence_s", "longest_s", "lost_s", "text_length"):
            assert getattr(self, name) > 0, f"{name} {getattr(self, name)} must be positive"


class AtCapacity(Exception):
    """The engine has no room, or there is none; `retry_after_s` says when to try again."""

    def __init__(self, code: str, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.code, self.retry_after_s = code, retry_after_s


class Session:
    """`name` is its id. `open` it, then `take` commands; `run` until it has ended."""

    def __init__(
        self,
        name: str,
        resume_token: str,
        seed: int,
        link: Link,
        config: SessionConfig,
        metrics: Metrics,
        traceparent: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.resume_token = name, resume_token
        self.settings = Settings()
        self.ended: Ended | None = None
        self._link, self._config, self._metrics, self._clock = link, config, metrics, clock
        self._subscribers: list[Callable[[Event], None]] = []
        self._pace = Pace(config.pace, Incoming(self.settings.input_format))
        self._outgoing = Outgoing(self.settings.output_format)
        self._opened: asyncio.Future[Opened] | None = None
        self._changed = asyncio.Event()  # the pace may have to wait for something else
        self._upstream = Upstream(name, seed, link, traceparent)
        self._calls = Calls(name)
        self._heard = -1  # the newest frame that was answered
        self._said_s = clock()  # when sound came last
        self._is_dropping = False

    @property
    def started(self) -> Started:
        """What a client is told first, on each of its sockets."""
        return Started(self.name, self.settings, self.resume_token)

    @property
    def frames(self) -> int:
        """So many of the caller's have come."""
        return self._upstream.number + 1

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """`listener` is told every event from now on; what is returned ends that."""
        self._subscribers.append(listener)
        return lambda: self._subscribers.remove(listener)

    async def open(self, wait_s: float) -> None:
        """Raises AtCapacity where the engine takes nobody more, or does not answer for so long."""
        if not self._link.is_up:
            raise AtCapacity("no_engine", "there is no engine at the moment", 1.0)
        self._link.join(self)
        self._opened = asyncio.get_running_loop().create_future()
        self._upstream.open(self.settings)
        try:
            await asyncio.wait_for(self._opened, wait_s)
        except TimeoutError:
            self._link.leave(self)
            raise AtCapacity("no_engine", "the engine does not answer", 1.0) from None
        except AtCapacity:
            self._link.leave(self)
            raise

    def take(self, command: Command) -> Problem | None:
        """Does what a client wants, or says what is wrong with it."""
        problem = None if self.ended else self._done(command)
        if problem:
            self._metrics.problems.labels(problem.code).inc()
        return problem

    def _done(self, command: Command) -> Problem | None:
        match command:
            case Say(audio):
                return self._say(audio)
            case Configure():
                return self._configure(command)
            case Begin():
                self._pace.begin(self._clock())
                self._changed.set()
            case ClearAudio():
                self._pace.clear()
            case Mute(is_muted):
                self._pace.is_muted = is_muted
            case Answer(call_id, output):
                return self._answer(call_id, output)
            case Note(text):
                return self._note(text)
            case HangUp():
                self.end("hang_up")
        return None

    async def run(self) -> None:
        """Sends frames at their pace until the session has ended."""
        begun_s = self._clock()
        while not self.ended:
            now_s = self._clock()
            self._end_where_due(begun_s, now_s)
            if not self._pace.has_begun and now_s - begun_s >= self._config.begin_s:
                self._pace.begin(now_s)
            self._metrics.frames.labels("skipped").inc(self._pace.skip_silence())
            if due := self._pace.take(now_s):
                self._upstream.frame(due.pcm)
                self._metrics.frames.labels(due.kind).inc()
                if due.kind == "sent":
                    self._metrics.in_s.observe(self._clock() - due.since_s)
                continue
            wait_s = self._pace.wait_s(now_s)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _NAP_S if wait_s is None else wait_s)

    def _end_where_due(self, begun_s: float, now_s: float) -> None:
        config = self._config
        if now_s - self._said_s > config.silence_s:
            self.end("no_audio")
        elif now_s - begun_s > config.longest_s:
            self.end("too_long")
        lost_s = 0 if self._link.lost_s is None else now_s - self._link.lost_s
        if max(lost_s, self._upstream.behind_s) > config.lost_s:
            self.end("engine_lost")

    def end(self, reason: EndReason) -> None:
        """Whoever is there is told, and the engine."""
        if self.ended:
            return
        self.ended = Ended(reason)
        self._metrics.ended.labels(reason).inc()
        self._link.leave(self)
        self._tell(self.ended)
        self._changed.set()

    # What the link tells.

    def replied(self, reply: Reply) -> None:
        """What the engine says of this session."""
        match reply:
            case EngineHeard():
                self._hear(reply)
            case Acted():
                if event := self._calls.acted(reply):
                    self._tell(event)
            case Saved():
                self._upstream.saved(reply)
            case Opened():
                if self._opened and not self._opened.done():
                    self._opened.set_result(reply)
            case Refused():
                self._refuse(reply)
            case Closed():
                if reply.reason == "no_frames":
                    self.end("no_audio")

    def moved(self) -> None:
        """Another engine serves."""
        self._upstream.moved()

    # One function a command.

    def _say(self, audio: bytes) -> Problem | None:
        now_s = self._said_s = self._clock()
        self._changed.set()
        was_dropping, self._is_dropping = self._is_dropping, not self._pace.say(audio, now_s)
        self._metrics.dropped.inc(self._is_dropping)
        is_first = self._is_dropping and not was_dropping
        return Problem("too_much_audio", _TOO_MUCH, "audio") if is_first else None

    def _configure(self, command: Configure) -> Problem | None:
        given = {name: value for name, value in vars(command).items() if value is not None}
        settings = replace(self.settings, **given)
        if problem := self._problem_with(settings):
            return problem
        old, self.settings = self.settings, settings
        if not self._pace.has_begun:
            self._pace.incoming = Incoming(settings.input_format)
            self._outgoing = Outgoing(settings.output_format)
            if (old.instructions, old.tools) != (settings.instructions, settings.tools):
                self._upstream.open(settings)
        else:
            text = settings.instructions if settings.instructions != old.instructions else ""
            tools = None if settings.tools == old.tools else [dict(one) for one in settings.tools]
            self._upstream.tell(text, tools)
        self._tell(Configured(settings))
        return None

    def _problem_with(self, settings: Settings) -> Problem | None:
        """What is wrong with new settings, if anything is."""
        if len(settings.instructions) > self._config.text_length:
            return self._too_long("instructions", settings.instructions)
        formats = (settings.input_format, settings.output_format)
        if self._pace.has_begun and formats != (
            self.settings.input_format,
            self.settings.output_format,
        ):
            return Problem("format_is_fixed", "formats can't change once there is sound", "format")
        try:
            decodable_tools(settings.tools)
        except ValueError as error:
            return Problem("invalid_tools", str(error), "tools")
        return None

    def _answer(self, call_id: str, output: str) -> Problem | None:
        if len(output) > self._config.text_length:
            return self._too_long("output", output)
        try:
            number = self._calls.answer(call_id)
        except KeyError:
            message = f"call_id is {call_id[:80]!r}: there is no such call, or it has its result"
            return Problem("unknown_call", message, "call_id")
        if number:
            self._upstream.give(number, _result_of(output))
        return None

    def _note(self, text: str) -> Problem | None:
        if len(text) > self._config.text_length:
            return self._too_long("text", text)
        self._upstream.tell(text, None)
        return None

    # One function a reply.

    def _hear(self, reply: EngineHeard) -> None:
        self._upstream.answered()
        if reply.number <= self._heard:
            return  # the engine before this one had said so
        self._heard = reply.number
        samples = np.frombuffer(reply.pcm, "<i2").astype(np.float32)
        is_voiced = float(np.sqrt(np.mean(samples**2))) > _VOICED
        audio = self._outgoing.encode(reply.pcm)
        texts = (reply.agent_text, reply.user_text)
        self._tell(Heard(reply.number, audio, is_voiced, *texts, FLOORS[reply.floor]))

    def _refuse(self, reply: Refused) -> None:
        if self._opened and not self._opened.done():
            full = AtCapacity(reply.code, reply.message, reply.retry_after_s)
            self._opened.set_exception(full)
        elif reply.code == "queue_full":
            self._upstream.answered()
            self._metrics.frames.labels("dropped").inc()
        elif reply.code in ("no_session", "at_capacity", "session_exists"):
            self.end("engine_lost")
        else:
            self._metrics.problems.labels("not_taken").inc()
            self._tell(Problem("not_taken", reply.message))

    # Events.

    def _too_long(self, param: str, text: str) -> Problem:
        most = self._config.text_length
        return Problem("too_long", f"{param} has {len(text)} letters: at most {most}", param)

    def _tell(self, event: Event) -> None:
        for listener in [*self._subscribers]:
            listener(event)


def _result_of(output: str) -> dict[str, Any]:
    """What a client says that a call has brought, as an object."""
    try:
        value = msgspec.json.decode(output)
    except msgspec.DecodeError:
        value = output
    return value if isinstance(value, dict) else {"result": value}
