"""Callers of an engine, who say a recording again and again."""

import gc
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from model.frame import FRAME_S, FRAME_SIZE
from serve.engine.messages import Close, Command, Frame, Heard, Open, Opened, Refused, Reply
from train.talk import read_call

SYSTEM = "You are Ava, the receptionist of Acme. Be brief and polite."
WAIT_S = 30.0
_APART = 37  # frames of the recording between two callers


class Line:
    """A gateway's socket to an engine."""

    def __init__(self, address: str) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.connect(address)

    def send(self, *commands: Command) -> None:
        """In this order."""
        for command in commands:
            self.socket.send(msgspec.msgpack.encode(command))

    def receive(self, wait_s: float) -> Reply | None:
        """The next reply, None where none comes within so long."""
        if not self.socket.poll(max(1, int(1000 * wait_s))):
            return None
        return msgspec.msgpack.decode(self.socket.recv(), type=Reply)

    def open(self, *commands: Open) -> None:
        """Until all are in. Raises RuntimeError where one is refused or nothing comes."""
        self.send(*commands)
        waiting = {command.session for command in commands}
        while waiting:
            reply = self.receive(WAIT_S)
            if reply is None or isinstance(reply, Refused):
                raise RuntimeError(reply.message if reply else f"no reply about {sorted(waiting)}")
            if isinstance(reply, Opened):
                waiting.remove(reply.session)


class Callers(Line):
    """Some of them, each at a moment of his own within the 80 ms."""

    def __init__(self, address: str, sound: NDArray[np.int16], names: Sequence[str]) -> None:
        """`sound` int16 [n, 1920]."""
        super().__init__(address)
        self.sound, self.names = sound, names
        self._said = 0  # frames of each

    def come(self) -> None:
        """Raises RuntimeError where one is refused."""
        self.open(*(Open(name, SYSTEM, [], seed=seed) for seed, name in enumerate(self.names)))

    def talk(self, frames: int) -> list[Heard | Refused]:
        """So many frames of each at their real pace, and what came of each: an answer, or that it
        was dropped."""
        begun_s, told = time.perf_counter(), []
        total = frames * len(self.names)
        gc.disable()  # there is no garbage, and looking for it makes frames late
        for place in range(total):
            number, caller = divmod(place, len(self.names))
            due_s = begun_s + FRAME_S * place / len(self.names)
            while (left_s := due_s - time.perf_counter()) > 0:
                told += self._told(left_s)
            self.send(self.frame(caller, self._said + number))
        while len(told) < total:
            told += self._told(WAIT_S)
        gc.enable()
        self._said += frames
        return told

    def frame(self, caller: int, number: int) -> Frame:
        """What a caller says then."""
        pcm = self.sound[(number + _APART * caller) % len(self.sound)]
        return Frame(self.names[caller], number, pcm.tobytes(), time.monotonic())

    def go(self) -> None:
        """They hang up."""
        self.send(*map(Close, self.names))
        self.socket.close()

    def _told(self, wait_s: float) -> list[Heard | Refused]:
        reply = self.receive(wait_s)
        if reply is None and wait_s == WAIT_S:
            raise RuntimeError(f"no reply came for {WAIT_S:.0f} s")
        return [reply] if isinstance(reply, Heard | Refused) else []


def read_speech(path: str) -> NDArray[np.int16]:
    """A recording as frames int16 [n, 1920]; raises ValueError where it is none."""
    mono = read_call(Path(path))
    whole = mono[: len(mono) // FRAME_SIZE * FRAME_SIZE].reshape(-1, FRAME_SIZE)
    return (whole * (2**15 - 1)).astype("<i2")
