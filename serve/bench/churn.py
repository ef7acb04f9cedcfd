"""Callers who come and go at random: each hears, bit by bit, what he hears alone."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.scripts.backend import Backend, prompts
from data.scripts.domain import load_domain
from model.frame import FRAME_S
from serve.bench.callers import WAIT_S, Line, read_speech
from serve.bench.engine_process import EngineProcess
from serve.engine.messages import (
    VERSION,
    Acted,
    Close,
    Frame,
    Heard,
    Hello,
    Open,
    Opened,
    Refused,
    Result,
)
from train.intervals import exact
from train.report import Outcome

_DOMAIN = "front_desk"
_FRAMES = (25, 250)  # of a call
_PROMPTS = 6  # different ones
_WARM = 0.5  # share of the calls after which memory is to stay as it is: malloc keeps enough then


@dataclass
class _Call:
    """One caller, `frames` long, from `start` of the recording on."""

    seed: int
    frames: int
    start: int
    number: int = 0
    said: Any = field(default_factory=hashlib.sha256)
    made: list[Acted] = field(default_factory=list)  # whose result is still to be given

    @property
    def name(self) -> str:
        return f"call {self.seed}"

    def again(self) -> "_Call":
        return _Call(self.seed, self.frames, self.start)


@dataclass(frozen=True)
class Churn:
    """`callers` at most, for `minutes` of rounds that are full; of their calls `compared` are made
    again alone."""

    callers: int
    minutes: float
    compared: int

    def __post_init__(self) -> None:
        if min(vars(self).values()) <= 0:
            raise ValueError(f"{self}: all must be above 0")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """Share of the calls that differ, slots that are not given back, growth of memory."""
        sound = read_speech(speech)
        settings = {"slots": self.callers, "buckets": [self.callers]}
        rng = random.Random(0)
        with EngineProcess(checkpoint, threads, **settings) as engine:
            line = Line(engine.address)
            memory: list[float] = []
            done = []
            for call in tqdm(self._all(line, sound, rng), unit="call", desc="churn"):
                done.append(call)
                memory.append(engine.resident_mib())
            line.send(Hello(VERSION))  # is answered once all that was sent before has been taken
            while not isinstance(line.receive(WAIT_S), Hello):
                pass
            leaked = engine.counted("duologue_sessions")
            some = rng.sample(done, min(self.compared, len(done)))
            differ = 0
            for call in tqdm(some, unit="call", desc="alone"):
                ((alone),) = _run(line, sound, [call.again()], 1, random.Random(0))
                differ += alone.said.digest() != call.said.digest()
            line.socket.close()
        first = memory[int(_WARM * len(memory))]
        metrics = {
            "churn_differ": exact(differ / len(some), len(some), "share"),
            "churn_slots_leaked": exact(leaked, len(done), "slots"),
            "churn_memory_growth": exact(memory[-1] / first - 1, len(done), "share"),
        }
        return Outcome(metrics)

    def _all(self, line: Line, sound: NDArray[np.int16], rng: random.Random) -> Iterator[_Call]:
        frames = int(60 * self.minutes / FRAME_S) * self.callers
        calls = []
        while frames > 0:
            call = _Call(len(calls), rng.randint(*_FRAMES), rng.randrange(len(sound)))
            frames -= call.frames
            calls.append(call)
        return _run(line, sound, calls, self.callers, rng)


def _run(
    line: Line, sound: NDArray[np.int16], calls: list[_Call], most: int, rng: random.Random
) -> Iterator[_Call]:
    """Each call once it is over; a new one may come with any answer. Frames go as fast as they are
    answered. Raises RuntimeError where the engine refuses something."""
    backend = Backend(load_domain(_DOMAIN))
    live: dict[str, _Call] = {}
    left = calls[::-1]
    while live or left:
        if left and len(live) < most and (not live or rng.random() < 1 / most):
            call = left.pop()
            live[call.name] = call
            line.send(Open(call.name, *prompts(_DOMAIN, call.seed % _PROMPTS), call.seed))
        reply = line.receive(WAIT_S)
        if reply is None or isinstance(reply, Refused):
            raise RuntimeError(reply.message if reply else "no reply came")
        call = live.get(reply.session) if isinstance(reply, Acted | Heard | Opened) else None
        if call is None:  # it is over already
            continue
        if isinstance(reply, Acted):
            call.said.update(repr(reply).encode())
            if (reply.kind, reply.action) in (("made", "call"), ("made", "revise")):
                call.made.append(reply)
        elif isinstance(reply, Heard):
            call.said.update(reply.pcm + reply.agent_text.encode() + reply.user_text.encode())
            for one in call.made:
                result = dict(backend.answer(one.tool, one.arguments).result)
                line.send(Result(call.name, one.call, result, after=reply.number))
            call.made.clear()
            call.number += 1
            if call.number == call.frames:
                line.send(Close(call.name))
                yield live.pop(call.name)
                continue
        if not isinstance(reply, Acted):
            pcm = sound[(call.start + call.number) % len(sound)]
            line.send(Frame(call.name, call.number, pcm.tobytes()))
