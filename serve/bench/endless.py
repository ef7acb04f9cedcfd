"""One call that does not end: memory and time stay flat, and tools still work."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import jsonschema
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.scripts.backend import Backend, prompts
from data.scripts.domain import load_domain
from model.frame import FRAME_S
from serve.bench.callers import WAIT_S, Line, read_speech
from serve.bench.engine_process import EngineProcess
from serve.engine.messages import Acted, Close, Frame, Heard, Open, Result
from train.intervals import Metric, exact
from train.report import Outcome

_DOMAIN = "front_desk"
_NAME = "endless"
_SILENCE_FRAMES = 75  # between two of his calls, in which the agent answers
_FULL_FRAMES = (
    2000  # after which nano's window (1,500 positions) is full: until then a call gets slower
)


class _Call:
    """A caller who says `turn`, int16 [n, 1920], again and again, alone with an engine.

    Of each frame `took_s` is how long its answer took and `memory` the engine's in MiB; `made` is
    what was called while he said it for the n-th time, `is_valid` whether each call is, under its
    tool's schema."""

    def __init__(self, engine: EngineProcess, turn: NDArray[np.int16]) -> None:
        self._engine, self._turn = engine, turn
        self._line, self._backend = Line(engine.address), Backend(load_domain(_DOMAIN))
        system, tools = prompts(_DOMAIN, 0)
        self._schemas = {str(tool["name"]): tool["parameters"] for tool in tools}
        self.took_s: list[float] = []
        self.memory: list[float] = []
        self.made: list[list[str]] = []
        self.is_valid: list[list[bool]] = []
        self._line.open(Open(_NAME, system, tools))

    def say(self) -> None:
        """The next frame, until it is answered. Raises RuntimeError where it is not."""
        number = len(self.took_s)
        if number % len(self._turn) == 0:
            self.made.append([])
            self.is_valid.append([])
        pcm = self._turn[number % len(self._turn)].tobytes()
        self._line.send(Frame(_NAME, number, pcm, time.monotonic()))
        while not isinstance(reply := self._line.receive(WAIT_S), Heard):
            if reply is None:
                raise RuntimeError(f"frame {number} was not answered")
            if isinstance(reply, Acted) and reply.kind == "made":
                self._run(reply, number)
        self.took_s.append(reply.latency_s)
        self.memory.append(self._engine.resident_mib())

    def _run(self, call: Acted, number: int) -> None:
        arguments = json.dumps(dict(call.arguments), sort_keys=True)
        self.made[-1].append(f"{call.action} {call.tool} {arguments}")
        if call.action in ("call", "revise"):
            schema = jsonschema.Draft202012Validator(self._schemas[call.tool])
            self.is_valid[-1].append(schema.is_valid(dict(call.arguments)))
            result = dict(self._backend.answer(call.tool, call.arguments).result)
            self._line.send(Result(_NAME, call.call, result, after=number))

    def end(self) -> None:
        """He hangs up."""
        self._line.send(Close(_NAME))
        self._line.socket.close()


@dataclass(frozen=True)
class Endless:
    """A caller says the recording, waits, and says it again: `minutes` of that as fast as he is
    answered, and `real_minutes` at his own pace."""

    minutes: float
    real_minutes: float

    def __post_init__(self) -> None:
        if min(self.minutes, self.real_minutes) <= 0:
            raise ValueError(f"{self}: must be above 0")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """Growth of memory from the second tenth to the end; by how much longer the last tenth's
        frames take than those of a call whose window has just filled; the share of the recordings
        after the first in which the same was called as in the first; of those of the last tenth the
        share in which anything was called, and whether something was and all of it is valid."""
        sound = read_speech(speech)
        turn = np.concatenate([sound, np.zeros((_SILENCE_FRAMES, sound.shape[1]), sound.dtype)])
        metrics, notes = {}, []
        for kind, minutes in (("", self.minutes), ("real_", self.real_minutes)):
            frames = int(60 * minutes / FRAME_S)
            with (
                EngineProcess(checkpoint, threads, slots=1) as engine,
                EngineProcess(checkpoint, threads, slots=1) as other,
            ):
                old = _Call(engine, turn)
                alone = max(frames - frames // 10 - _FULL_FRAMES, 0) // len(turn) * len(turn)
                _talk([old], alone, is_paced=bool(kind))
                young = _Call(other, turn)  # who says the same at the same time
                _talk([old, young], frames - alone, is_paced=bool(kind))
                old.end()
                young.end()
            metrics |= _figures(old, young, frames // 10, f"{_NAME}_{kind}")
            notes.append(f"{_NAME}, {minutes} minutes: the first time it called {old.made[0]}")
        return Outcome(metrics, notes=(*notes,))


def _talk(calls: Sequence[_Call], frames: int, is_paced: bool) -> None:
    """So many frames of each, in turn: whatever else the machine does meets all alike. Who goes
    first changes: after a pause that is slower."""
    begun_s = time.monotonic()
    for number in tqdm(range(frames), unit="frame", desc=_NAME):
        if is_paced:
            time.sleep(max(0.0, begun_s + FRAME_S * number - time.monotonic()))
        for call in calls[:: 1 if number % 2 else -1]:
            call.say()


def _figures(old: _Call, young: _Call, tenth: int, prefix: str) -> dict[str, Metric]:
    round_growth = np.median(old.took_s[-tenth:]) / np.median(young.took_s[-tenth:]) - 1
    memory_growth = old.memory[-1] / old.memory[len(old.memory) // 5] - 1
    again = old.made[1:-1] or old.made  # the last one may be cut off
    same = sum(made == old.made[0] for made in again) / len(again)
    last = old.is_valid[:-1][-(len(old.made) // 10 or 1) :] or old.is_valid
    valid = [is_valid for calls in last for is_valid in calls]
    return {
        f"{prefix}memory_growth": exact(memory_growth, len(old.memory), "share"),
        f"{prefix}round_growth": exact(round_growth, tenth, "share"),
        f"{prefix}same_calls": exact(same, len(again), "share"),
        f"{prefix}calls_at_end": exact(sum(map(bool, last)) / len(last), len(last), "share"),
        f"{prefix}valid_at_end": exact(bool(valid) and all(valid), len(last), "truth"),
    }
