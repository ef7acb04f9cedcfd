"""A session's line to whichever engine serves: frames a few at a time, and all of it again where
another engine has to go on."""

import time
from collections import deque
from typing import Any

from model.frame import FRAME_S
from serve.engine.messages import Frame, Open, Result, Saved, Tell
from serve.engine.remembered import Remembered
from serve.gateway.events import Settings
from serve.gateway.link import Link

_IN_FLIGHT = 4  # frames that the engine has not answered


class Upstream:
    """`number` is that of the newest frame, -1 before the first."""

    def __init__(self, name: str, seed: int, link: Link, traceparent: str) -> None:
        self.number = -1
        self._name, self._seed, self._link = name, seed, link
        self._traceparent = traceparent
        self._remembered: Remembered | None = None
        self._unsent: deque[Frame] = deque()  # to an engine that is behind
        self._in_flight = 0
        self._early: list[Tell] = []  # before the first frame

    @property
    def behind_s(self) -> float:
        """How much of the caller's sound the engine has not been sent, since it is behind."""
        return len(self._unsent) * FRAME_S

    def open(self, settings: Settings, tools: list[dict[str, Any]]) -> None:
        """In the beginning, and again with other settings before the first frame."""
        about = (settings.instructions, tools, self._seed, self._traceparent)
        opening = Open(self._name, *about)
        self._remembered = Remembered(opening)
        self._link.send(opening)
        for command in self._early:
            self._say(command)

    def frame(self, pcm: bytes) -> None:
        """The next one of the caller, int16 [1920]."""
        self.number += 1
        frame = Frame(self._name, self.number, pcm, time.monotonic())
        self._memory.said(frame)
        self._unsent.append(frame)
        self._pump()

    def give(self, call: int, result: dict[str, Any]) -> None:
        """What a call has brought."""
        self._say(Result(self._name, call, result, self.number))

    def tell(self, text: str, tools: list[dict[str, Any]] | None) -> None:
        """What the agent is to know, and the tools that it has, from now on."""
        command = Tell(self._name, text, tools, self.number)
        if self.number < 0:
            self._early.append(command)
        self._say(command)

    def answered(self) -> None:
        """A frame was heard, or refused."""
        self._in_flight -= 1
        self._pump()

    def saved(self, reply: Saved) -> None:
        """What another engine would begin with."""
        self._memory.told(reply)

    def moved(self) -> None:
        """Tells another engine all that it must know."""
        again = self._memory.again()
        self._link.send(*(command for command in again if not isinstance(command, Frame)))
        self._unsent = deque(command for command in again if isinstance(command, Frame))
        self._in_flight = 0
        self._pump()

    @property
    def _memory(self) -> Remembered:
        assert self._remembered, f"session {self._name} was not opened"
        return self._remembered

    def _say(self, command: Result | Tell) -> None:
        self._memory.said(command)
        self._link.send(command)

    def _pump(self) -> None:
        while self._unsent and self._in_flight < _IN_FLIGHT and self._link.is_up:
            self._link.send(self._unsent.popleft())
            self._in_flight += 1
