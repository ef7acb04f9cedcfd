"""All sessions of one gateway: who may come in, whose they are, how they end."""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from serve.dialects.dialect import Dialect, Send
from serve.gateway.events import Ended, EndReason, Event, Heard
from serve.gateway.hall import Hall
from serve.gateway.limits import Admission, Limits, OverLimit, Tenant
from serve.gateway.link import Link
from serve.gateway.metrics import Metrics
from serve.gateway.refusal import Refusal
from serve.gateway.session import AtCapacity, Session, SessionConfig
from serve.tools.modes import Mode
from serve.tools.runtime import ToolRuntime

_log = structlog.get_logger()
_MOST_MISSED = 512  # messages
_LAST_S = 5.0  # for what tools write when all have to leave


@dataclass(frozen=True)
class GatewayConfig:
    """`models` are names that clients may ask for, each with others that mean the same. A client
    whose socket is lost may come back to his session within `resume_s`; the engine lets somebody in
    within `open_s` or not at all; a gateway that ends waits `drain_s` for its sessions. Pages of
    `origins` may call from browsers; without any, those of this server alone."""

    models: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"nano": ()})
    origins: tuple[str, ...] = ()
    resume_s: float = 30.0
    open_s: float = 3.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        assert self.models, "models: there must be one"
        for name in ("resume_s", "open_s", "drain_s"):
            assert getattr(self, name) > 0, f"{name} {getattr(self, name)} must be positive"

    def model(self, name: str | None) -> str:
        """The name as it was asked for, or that of the first model. Raises Refusal."""
        known = {*self.models, *(other for others in self.models.values() for other in others)}
        if name and name not in known:
            message = f"model is {name[:80]!r}: must be one of {', '.join(self.models)}"
            raise Refusal(404, "model_not_found", message, "model")
        return name or next(iter(self.models))


@dataclass(frozen=True)
class Arrival:
    """A client at an `address` who speaks the dialect of that name, and who may come back where it
    `is_resumable`. `traceparent` is the span that the session's is below (W3C Trace Context)."""

    tenant: Tenant
    address: str
    dialect: str
    is_resumable: bool = False
    traceparent: str = ""


@dataclass
class Line:
    """A session, whose it is, and what its client is told in. `missed` is what he was to be told
    while he had no socket, but for sound."""

    session: Session
    arrival: Arrival
    dialect: Dialect
    admission: Admission
    opened_at_s: int  # Unix time
    missed: list[Send] = field(default_factory=list)
    come_back: Callable[[], None] | None = None  # where there is no socket

    def keep(self, event: Event) -> None:
        """Of an event that comes while there is no socket."""
        for message in self.dialect.told(event):
            is_kept = not isinstance(event, Heard) and len(self.missed) < _MOST_MISSED
            if isinstance(message, Send) and is_kept:
                self.missed.append(message)


class Gateway:
    """`lines` are by session id. Nothing here knows HTTP."""

    def __init__(
        self,
        config: GatewayConfig,
        session: SessionConfig,
        link: Link,
        limits: Limits,
        metrics: Metrics,
        tools: ToolRuntime,
    ) -> None:
        self.config, self.link, self.limits, self.metrics = config, link, limits, metrics
        self.tools = tools
        self.lines: dict[str, Line] = {}
        self.is_draining = False
        self.session_config = session
        self.hall = Hall(metrics)
        self._tasks: set[asyncio.Task[None]] = set()
        self._observers: list[Callable[[Line, Event], None]] = []

    def observe(self, listener: Callable[[Line, Event], None]) -> Callable[[], None]:
        """It is told every event of every session but sound, `Started` first and, when no tool of
        it runs any more, `Ended` last, until what is returned is called."""
        self._observers.append(listener)
        return lambda: self._observers.remove(listener)

    def _happened(self, line: Line, event: Event) -> None:
        if not isinstance(event, Heard | Ended):
            self._observed(line, event)

    def _observed(self, line: Line, event: Event) -> None:
        for observer in [*self._observers]:
            observer(line, event)

    async def open(self, arrival: Arrival, dialect: Dialect) -> Line:
        """A new session. Raises Refusal."""
        if self.is_draining:
            raise Refusal(503, "draining", "this server ends: try again", retry_after_s=1.0)
        try:
            admission = self.limits.admit(arrival.tenant, arrival.address)
        except OverLimit as over:
            raise Refusal.of(over) from over
        identity = (secrets.token_hex(12), secrets.token_urlsafe(24), secrets.randbits(31))
        about = (arrival.tenant.name, self.link, self.session_config, self.metrics, self.tools)
        session = Session(*identity, *about, arrival.traceparent)
        try:
            await session.open(self.config.open_s)
        except AtCapacity as full:
            admission.release()
            refusal = Refusal(503, full.code, str(full), retry_after_s=full.retry_after_s)
            if full.code == "at_capacity":
                self.hall.fill(refusal)
            raise refusal from full
        except asyncio.CancelledError:
            admission.release()
            raise
        self.hall.room()
        if problem := session.take(dialect.opening):
            session.end("hang_up")
            admission.release()
            raise Refusal(400, problem.code, problem.message, problem.param)
        line = Line(session, arrival, dialect, admission, int(time.time()))
        self.lines[session.name] = line
        self._observed(line, session.started)
        session.subscribe(lambda event: self._happened(line, event))
        task = asyncio.create_task(self._run(line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return line

    def find(self, session_id: str, tenant: Tenant) -> Line:
        """A tenant's own session. Raises Refusal alike where it is another's and where there is
        none."""
        line = self.lines.get(session_id)
        if line is None or line.arrival.tenant.name != tenant.name:
            raise Refusal(404, "session_not_found", "there is no such session", "session_id")
        return line

    def resume(self, token: str, tenant: Tenant, dialect: str) -> Line:
        """The session that a client has lost its socket to. Raises Refusal."""
        for line in self.lines.values():
            is_it = secrets.compare_digest(line.session.resume_token.encode(), token.encode())
            is_his = (line.arrival.tenant, line.arrival.dialect) == (tenant, dialect)
            if is_it and is_his and line.come_back:
                line.come_back()
                line.come_back = None
                return line
        raise Refusal(404, "session_not_found", "there is no session to resume", "resume")

    def left(self, line: Line) -> None:
        """A session's socket is lost: it waits for another one, or ends."""
        if line.session.ended:
            return
        if not line.arrival.is_resumable:
            line.session.end("hang_up")
            return
        leave = line.session.subscribe(line.keep)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.config.resume_s, line.session.end, "hang_up")

        def come_back() -> None:
            leave()
            timer.cancel()

        line.come_back = come_back

    async def drain(self) -> None:
        """Nobody comes in any more; after a while whoever is still there is told that it ends."""
        self.is_draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.config.drain_s)
        self.end_all("server_ends")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_S)

    def end_all(self, reason: EndReason) -> None:
        """At once."""
        for line in [*self.lines.values()]:
            line.session.end(reason)

    async def _run(self, line: Line) -> None:
        session, arrival = line.session, line.arrival
        gauge = self.metrics.sessions.labels(arrival.dialect)
        tenant = arrival.tenant.name
        log = _log.bind(session=session.name, tenant=tenant, dialect=arrival.dialect)
        log.info("session_opened")
        gauge.inc()
        try:
            with line.admission:
                await session.run()
        finally:
            gauge.dec()
            session.end("server_ends")
            self.hall.room()
            del self.lines[session.name]
            await session.desk.over()
            if (scope := f"session:{session.name}") in self.tools.modes.all:
                self.tools.modes.set(scope, Mode.NORMAL, "system")
            assert session.ended
            self._observed(line, session.ended)
            log.info("session_ended", reason=session.ended.reason, frames=session.frames)
