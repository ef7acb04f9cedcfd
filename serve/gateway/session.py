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
import structlog

from serve.engine.messages import (
    Acted,
    Closed,
    Opened,
    Refused,
    Reply,
    Saved,
)
from serve.engine.messages import Heard as EngineHeard
from serve.gateway.acts import Acts
from serve.gateway.audio import Incoming, Outgoing
from serve.gateway.events import (
    Answer,
    Approve,
    Begin,
    ClearAudio,
    Command,
    Configure,
    Configured,
    Ended,
    EndReason,
    Event,
    HandedBack,
    HangUp,
    Heard,
    Mute,
    Note,
    PressKey,
    Problem,
    Refuse,
    Say,
    ServerToolsListed,
    Settings,
    Started,
    TakenOver,
    ToolEvent,
)
from serve.gateway.link import Link
from serve.gateway.metrics import Metrics
from serve.gateway.pace import Pace, PaceConfig
from serve.gateway.toolbox import Toolbox
from serve.gateway.upstream import Upstream
from serve.gateway.watched import Frame, Watched, is_voiced
from serve.tools.desk import Desk
from serve.tools.runtime import ToolRuntime
from serve.tools.told import ConfirmationAsked, HandoffFailed

_log = structlog.get_logger()
_NAP_S = 1.0
_TOO_MUCH = "more sound came than can wait to be heard: the rest is dropped"


@dataclass(frozen=True)
class SessionConfig:
    """A client that has come in says something within `begin_s`, or his silence is heard; one of
    whom no sound has come for `silence_s` is gone, and none is heard for longer than `longest_s`,
    or where there is no engine for `lost_s`, or one that is so far behind. Texts for the agent have
    at most `text_length` letters. `instructions` are its role where a client gives none."""

    instructions: str = ""
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
        tenant: str,
        link: Link,
        config: SessionConfig,
        metrics: Metrics,
        tools: ToolRuntime,
        traceparent: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.resume_token = name, resume_token
        self.settings = Settings(instructions=config.instructions)
        self.ended: Ended | None = None
        self._link, self._config, self._metrics, self._clock = link, config, metrics, clock
        self._subscribers: list[Callable[[Event], None]] = []
        self._pace = Pace(config.pace, Incoming(self.settings.input_format))
        self._outgoing = Outgoing(self.settings.output_format)
        self._opened: asyncio.Future[Opened] | None = None
        self._changed = asyncio.Event()  # the pace may have to wait for something else
        self._upstream = Upstream(name, seed, link, traceparent)
        self._box, self._watched = Toolbox(tools), Watched()
        self._acts = Acts(name, tenant, tools, self._box, self._upstream, self._tell)
        self._unsubscribe = tools.subscribe(self.tools_listed)
        self._heard = -1  # the newest frame that was answered
        self._said_s = clock()  # when sound came last
        self._is_dropping = False

    @property
    def started(self) -> Started:
        """What a client is told first, on each of its sockets."""
        return Started(self.name, self.settings, self.resume_token, self._box.listed)

    @property
    def frames(self) -> int:
        """So many of the caller's have come."""
        return self._upstream.number + 1

    @property
    def desk(self) -> Desk:
        """What runs its calls."""
        return self._acts.desk

    @property
    def approvals(self) -> list[ConfirmationAsked]:
        """What is asked for and not yet given."""
        return [*self._acts.approvals.values()]

    @property
    def operator(self) -> str:
        """Who speaks instead of the agent, "" for nobody."""
        return self._watched.operator

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """`listener` is told every event from now on; what is returned ends that."""
        self._subscribers.append(listener)
        return lambda: self._subscribers.remove(listener)

    async def open(self, wait_s: float) -> None:
        """Raises AtCapacity where the engine takes nobody more, or does not answer for so long."""
        try:
            if not self._link.is_up:
                raise AtCapacity("no_engine", "there is no engine at the moment", 1.0)
            self._link.join(self)
            self._opened = asyncio.get_running_loop().create_future()
            self._upstream.open(self.settings, self._box.take(self.settings))
            await asyncio.wait_for(self._opened, wait_s)
        except BaseException as error:
            self._link.leave(self)
            self._unsubscribe()
            self.desk.end()
            if isinstance(error, TimeoutError):
                raise AtCapacity("no_engine", "the engine does not answer", 1.0) from None
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
            case Approve(approval_id) | Refuse(approval_id):
                return self._confirm(approval_id, isinstance(command, Approve))
            case PressKey(digit):
                if not self._acts.pressed(digit):
                    return self._note(f"The caller pressed {digit}.")
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
                pcm = self._watched.taken_in(self._upstream.number + 1, due.pcm)
                self._upstream.frame(pcm)
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
        self._unsubscribe()
        self.desk.end()
        self._tell(self.ended)
        self._changed.set()

    # What operators do.

    def watch(self, listener: Callable[[Frame], None]) -> Callable[[], None]:
        """It gets every frame from now on, until what is returned is called."""
        return self._watched.watch(listener)

    def take_over(self, operator: str) -> None:
        """An operator speaks instead of the agent, who hears silence meanwhile and whose calls
        don't run. Raises ValueError where somebody does already."""
        self._watched.take_over(operator)
        self._tell(TakenOver(self._heard, operator))

    def operator_says(self, pcm: bytes) -> None:
        """Of him who has taken over, int16 at 24 kHz, as much as there is."""
        self._watched.says(pcm)

    def hand_back(self, note: str) -> None:
        """The agent goes on, and is told `note`."""
        operator = self.operator
        self._watched.hand_back()
        if note:
            self._upstream.tell(note, None)
        self._tell(HandedBack(self._heard, operator))

    def handoff_failed(self, handoff_id: str, why: str) -> None:
        """The call could not be put through to where it was to go."""
        self._tell(ToolEvent(self._heard, HandoffFailed(handoff_id, why)))

    # What the link and the tool runtime tell.

    def replied(self, reply: Reply) -> None:
        """What the engine says of this session. A fault in it ends the session: it is nobody
        else's."""
        try:
            self._replied(reply)
        except Exception:
            self._fail()

    def _replied(self, reply: Reply) -> None:
        match reply:
            case EngineHeard():
                self._hear(reply)
            case Acted():
                self._acts.acted(reply, is_listened_to=not self.operator)
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

    def tools_listed(self) -> None:
        """The server has other tools than before. A fault in it ends the session too."""
        try:
            self._take_listed_tools()
        except Exception:
            self._fail()

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
        is_same = (settings.tools, settings.server_tools) == (old.tools, old.server_tools)
        text = settings.instructions if settings.instructions != old.instructions else ""
        if self._pace.has_begun:
            self._upstream.tell(text, None if is_same else self._box.take(settings))
        else:
            self._pace.incoming = Incoming(settings.input_format)
            self._outgoing = Outgoing(settings.output_format)
            if not is_same or settings.instructions != old.instructions:
                self._upstream.open(settings, self._box.take(settings))
        self._tell(Configured(settings))
        if command.server_tools is not None:
            self._tell(ServerToolsListed(self._box.listed))
        return None

    def _take_listed_tools(self) -> None:
        if self._opened is None or not self._box.is_outdated(self.settings):
            return
        tools = self._box.take(self.settings)
        if self._pace.has_begun:
            self._upstream.tell("", tools)
        else:
            self._upstream.open(self.settings, tools)
        self._tell(ServerToolsListed(self._box.listed))

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
            self._box.check(settings)
        except ValueError as error:
            return Problem("invalid_tools", str(error), "tools")
        return None

    def _answer(self, call_id: str, output: str) -> Problem | None:
        if len(output) > self._config.text_length:
            return self._too_long("output", output)
        try:
            self.desk.answered(call_id, _result_of(output))
        except KeyError:
            message = f"call_id is {call_id[:80]!r}: there is no such call, or it has its result"
            return Problem("unknown_call", message, "call_id")
        return None

    def _confirm(self, approval_id: str, is_yes: bool) -> Problem | None:
        try:
            if is_yes:
                self.desk.approve(approval_id, "client", "dtmf")
            else:
                self.desk.refuse(approval_id, "client")
        except KeyError:
            message = f"approval_id is {approval_id[:80]!r}: nothing waits under that name"
            return Problem("unknown_approval", message, "approval_id")
        except (PermissionError, ValueError) as error:
            return Problem("not_approved", str(error), "approval_id")
        return None

    def _note(self, text: str) -> Problem | None:
        if len(text) > self._config.text_length:
            return self._too_long("text", text)
        self._upstream.tell(text, None)
        return None

    # One function a reply.

    def _hear(self, reply: EngineHeard) -> None:
        self._upstream.answered()
        self._metrics.answered(reply.latency_s, reply.is_late)
        if reply.number <= self._heard:
            return  # the engine before this one had said so
        self._heard = reply.number
        frame = self._watched.given_out(reply)
        has_voice = is_voiced(frame.agent)
        self._acts.heard(frame.number, frame.floor == "user", has_voice)
        audio = self._outgoing.encode(frame.agent)
        texts = (frame.agent_text, frame.user_text)
        self._tell(Heard(frame.number, audio, has_voice, *texts, frame.floor))

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
            try:
                listener(event)
            except Exception:
                self._fail()

    def _fail(self) -> None:
        """Something here is wrong, which is not the caller's fault."""
        _log.exception("session_failed", session=self.name)
        self.end("fault")


def _result_of(output: str) -> dict[str, Any]:
    """What a client says that a call has brought, as an object."""
    try:
        value = msgspec.json.decode(output)
    except msgspec.DecodeError:
        value = output
    return value if isinstance(value, dict) else {"result": value}
