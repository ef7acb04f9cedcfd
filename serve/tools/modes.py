"""How much tools may do at the moment, for everybody or for some: the kill switch is mode `off`.

A scope is `all`, `tenant:NAME`, `tool:NAME` or `session:NAME`; of the modes that hold for a call
the strictest does. They are set by whoever watches, and by a file, a scope and a mode a line:

    all read_only
    tool:cancel_subscription off

What the file says holds while it is there; an empty one, or one that can't be understood, means
`all off`. A thread looks at it, so it works while the event loop is stuck.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import structlog

from serve.tools.journal import NOT_WRITTEN, Entry, Journal

_LOOK_S = 0.02
_LONGEST = 65_536  # letters of the file

_log = structlog.get_logger()


class Mode(StrEnum):
    """From the least strict to the strictest."""

    NORMAL = "normal"
    CONFIRM_ALL = "confirm_all"  # nothing runs that nobody has confirmed
    READ_ONLY = "read_only"
    OFF = "off"


_ORDER = {mode: place for place, mode in enumerate(Mode)}
_ALL_OFF = {"all": Mode.OFF}


@dataclass(frozen=True)
class Change:
    """A scope's mode is another one now; `actor` is `operator:NAME` or `file`."""

    scope: str
    before: Mode
    after: Mode
    actor: str


class Modes:
    """For the whole server. All of it may be used on any thread; close it at the end."""

    def __init__(self, file: Path | None = None) -> None:
        self._file, self._text = file, ""
        # Neither is ever altered, only replaced: who reads needs no lock.
        self._set: Mapping[str, Mode] = {}
        self._in_file: Mapping[str, Mode] = {}
        self._listeners: list[Callable[[Change], object]] = []
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        if file:
            self._look(file)
            threading.Thread(target=self._watch, args=(file,), name="modes", daemon=True).start()

    @property
    def all(self) -> Mapping[str, Mode]:
        """The scopes that are not as normal."""
        scopes = {*self._set, *self._in_file}
        return {scope: self._strictest(scope) for scope in sorted(scopes)}

    def of(self, tenant: str, session: str, tool: str) -> Mode:
        """What holds for a call now."""
        return self._strictest("all", f"tenant:{tenant}", f"session:{session}", f"tool:{tool}")

    def set(self, scope: str, mode: Mode, actor: str) -> None:
        """From now on. Raises ValueError where there is no such scope."""
        _check(scope)
        with self._lock:
            before = self._strictest(scope)
            others = {name: set_ for name, set_ in self._set.items() if name != scope}
            self._set = others if mode is Mode.NORMAL else {**others, scope: mode}
            after = self._strictest(scope)
        self._told(Change(scope, before, after, actor))

    def subscribe(self, listener: Callable[[Change], object]) -> Callable[[], None]:
        """It is told of every change, on the thread that makes it, until what is returned is
        called."""
        with self._lock:
            self._listeners = [*self._listeners, listener]

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = [one for one in self._listeners if one is not listener]

        return unsubscribe

    def close(self) -> None:
        """The file is looked at no more."""
        self._is_closed.set()

    def _strictest(self, *scopes: str) -> Mode:
        # Each is read once: another thread may replace it in between.
        held = (modes.get(scope) for modes in (self._set, self._in_file) for scope in scopes)
        return max((mode for mode in held if mode), key=_ORDER.__getitem__, default=Mode.NORMAL)

    def _watch(self, file: Path) -> None:
        while not self._is_closed.wait(_LOOK_S):
            try:
                self._look(file)
            except Exception:  # whoever listens must not end the looking
                _log.exception("modes_listener_raised")

    def _look(self, file: Path) -> None:
        modes = _modes_in(file)
        if modes == self._in_file:
            return
        with self._lock:
            scopes = sorted({*modes, *self._in_file})
            before = {scope: self._strictest(scope) for scope in scopes}
            self._in_file = modes
        for scope in scopes:
            after = self._strictest(scope)
            if after is not before[scope]:
                self._told(Change(scope, before[scope], after, "file"))

    def _told(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)


async def keep(modes: Modes, journal: Journal) -> None:
    """Writes every change of a mode down, until cancelled. It holds at once: to switch things off
    must not wait for a log."""
    loop, changes = asyncio.get_running_loop(), asyncio.Queue[Change]()
    unsubscribe = modes.subscribe(lambda one: loop.call_soon_threadsafe(changes.put_nowait, one))
    try:
        while True:
            one = await changes.get()
            details = {"scope": one.scope}
            tenant = one.scope.removeprefix("tenant:") if one.scope.startswith("tenant:") else ""
            entry = Entry(tenant, "", "", "mode", one.actor, one.before, one.after, details)
            try:
                await journal.append(entry)
            except NOT_WRITTEN:
                _log.exception("mode_not_written", scope=one.scope, mode=one.after)
    finally:
        unsubscribe()


def _check(scope: str) -> None:
    kind, _, name = scope.partition(":")
    if scope != "all" and (kind not in ("tenant", "tool", "session") or not name):
        raise ValueError(f"scope {scope[:80]!r} is none of all, tenant:, tool: and session:NAME")


def _modes_in(file: Path) -> Mapping[str, Mode]:
    """What a file sets. Where in doubt, nothing may run."""
    try:
        with file.open() as opened:
            text = opened.read(_LONGEST + 1)
        modes = {}
        for line in text.splitlines():
            if line.strip():
                scope, mode = line.split()
                _check(scope)
                modes[scope] = Mode(mode)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return _ALL_OFF
    return modes if modes and len(text) <= _LONGEST else _ALL_OFF
