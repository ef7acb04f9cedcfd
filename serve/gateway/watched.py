"""What an operator sees and hears of a session, and how he speaks in the agent's place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.frame import AGENTS, FLOORS, FRAME_SIZE, NOBODY, USERS
from serve.engine.messages import Heard

_FRAME_BYTES = 2 * FRAME_SIZE  # int16
_SILENCE = bytes(_FRAME_BYTES)
_START_BYTES = 2 * _FRAME_BYTES  # wait before the first is played: messages come unevenly
_MOST_BYTES = 25 * _FRAME_BYTES  # 2 s: the rest of what an operator says ahead is dropped
_VOICED = 100  # int16, root mean square: -50 dB of full scale

Floor = Literal["nobody", "agent", "user", "user_backchannel", "agent_backchannel"]


@dataclass(frozen=True)
class Frame:
    """80 ms of both sides, PCM16 at 24 kHz (1920 samples), and what came of them."""

    number: int
    caller: bytes
    agent: bytes
    agent_text: str
    user_text: str
    floor: Floor


class Watched:
    """Of one session. `operator` is who speaks instead of the agent, "" for nobody."""

    def __init__(self) -> None:
        self.operator = ""
        self._listeners: list[Callable[[Frame], None]] = []
        self._callers: dict[int, bytes] = {}  # frames that are not answered yet
        self._says = bytearray()
        self._is_saying = False

    def watch(self, listener: Callable[[Frame], None]) -> Callable[[], None]:
        """It gets every frame from now on, until what is returned is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def take_over(self, operator: str) -> None:
        """Raises ValueError where somebody has it already."""
        if self.operator:
            raise ValueError(f"{self.operator} has the call already")
        self.operator = operator

    def says(self, pcm: bytes) -> None:
        """What the operator does, int16 at 24 kHz."""
        self._says += pcm[: max(_MOST_BYTES - len(self._says), 0) // 2 * 2]

    def hand_back(self) -> None:
        """The agent speaks again."""
        self.operator = ""
        self._says.clear()

    def taken_in(self, number: int, pcm: bytes) -> bytes:
        """What the agent is to hear of a frame of the caller's."""
        if self.operator or self._listeners:
            self._callers[number] = pcm
        return _SILENCE if self.operator else pcm

    def given_out(self, heard: Heard) -> Frame:
        """What the caller is to hear."""
        caller = self._callers.get(heard.number, _SILENCE)
        self._callers = {n: pcm for n, pcm in self._callers.items() if n > heard.number}
        said = (heard.pcm, heard.agent_text, heard.user_text, FLOORS[heard.floor])
        if self.operator:
            said = self._operators(caller)
        frame = Frame(heard.number, caller, *said)
        for listener in [*self._listeners]:
            listener(frame)
        return frame

    def _operators(self, caller: bytes) -> tuple[bytes, str, str, Floor]:
        self._is_saying = len(self._says) >= (_FRAME_BYTES if self._is_saying else _START_BYTES)
        pcm = _SILENCE
        if self._is_saying:
            pcm = bytes(self._says[:_FRAME_BYTES])
            del self._says[:_FRAME_BYTES]
        floor = AGENTS if is_voiced(pcm) else USERS if is_voiced(caller) else NOBODY
        return pcm, "", "", FLOORS[floor]


def is_voiced(pcm: bytes) -> bool:
    """Whether there is anything in a frame."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    return float(np.sqrt(np.mean(samples**2))) > _VOICED
