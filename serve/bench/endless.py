"""One call that does not end: memory and time stay flat, and tools still work."""

import json
import time
from dataclasses import dataclass, field

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


@dataclass
class _Log:
    """Of each frame the seconds until its answer and the engine's memory in MiB; what was called
    while the recording was said for the n-th time, and whether each call is valid under its tool's
    schema."""

    took_s: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    made: list[list[str]] = field(default_factory=list)
    is_valid: list[list[bool]] = field(default_factory=list)


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
        """Growth from the second tenth to the last; the share of the recordings after the first in
        which the same was called as in the first; of those of the last tenth the share in which
        anything was called, and whether something was and all of it is valid."""
        sound = read_speech(speech)
        turn = np.concatenate([sound, np.zeros((_SILENCE_FRAMES, sound.shape[1]), sound.dtype)])
        metrics, notes = {}, []
        for kind, minutes in (("", self.minutes), ("real_", self.real_minutes)):
            with EngineProcess(checkpoint, threads, slots=1) as engine:
                log = _call(engine, turn, int(60 * minutes / FRAME_S), is_paced=bool(kind))
            metrics |= _figures(log, f"{_NAME}_{kind}")
            notes.append(f"{_NAME}, {minutes} minutes: the first time it called {log.made[0]}")
        return Outcome(metrics, notes=(*notes,))


def _call(engine: EngineProcess, turn: NDArray[np.int16], frames: int, is_paced: bool) -> _Log:
    line, log, backend = Line(engine.address), _Log(), Backend(load_domain(_DOMAIN))
    system, tools = prompts(_DOMAIN, 0)
    schemas = {str(tool["name"]): tool["parameters"] for tool in tools}
    line.open(Open(_NAME, system, tools))
    begun_s = time.monotonic()
    for number in tqdm(range(frames), unit="frame", desc=_NAME):
        if number % len(turn) == 0:
            log.made.append([])
            log.is_valid.append([])
        if is_paced:
            time.sleep(max(0.0, begun_s + FRAME_S * number - time.monotonic()))
        pcm = turn[number % len(turn)].tobytes()
        line.send(Frame(_NAME, number, pcm, time.monotonic()))
        while not isinstance(reply := line.receive(WAIT_S), Heard):
            if reply is None:
                raise RuntimeError(f"frame {number} was not answered")
            if isinstance(reply, Acted) and reply.kind == "made":
                arguments = json.dumps(dict(reply.arguments), sort_keys=True)
                log.made[-1].append(f"{reply.action} {reply.tool} {arguments}")
                if reply.action in ("call", "revise"):
                    schema = jsonschema.Draft202012Validator(schemas[reply.tool])
                    log.is_valid[-1].append(schema.is_valid(dict(reply.arguments)))
                    result = dict(backend.answer(reply.tool, reply.arguments).result)
                    line.send(Result(_NAME, reply.call, result, after=number))
        log.took_s.append(reply.latency_s)
        log.memory.append(engine.resident_mib())
    line.send(Close(_NAME))
    line.socket.close()
    return log


def _figures(log: _Log, prefix: str) -> dict[str, Metric]:
    tenth = len(log.took_s) // 10
    round_growth = np.median(log.took_s[-tenth:]) / np.median(log.took_s[tenth : 2 * tenth]) - 1
    memory_growth = log.memory[-1] / log.memory[2 * tenth] - 1
    again = log.made[1:-1] or log.made  # the last one may be cut off
    same = sum(made == log.made[0] for made in again) / len(again)
    last = log.is_valid[:-1][-(len(log.made) // 10 or 1) :] or log.is_valid
    valid = [is_valid for calls in last for is_valid in calls]
    return {
        f"{prefix}memory_growth": exact(memory_growth, len(log.memory), "share"),
        f"{prefix}round_growth": exact(round_growth, tenth, "share"),
        f"{prefix}same_calls": exact(same, len(again), "share"),
        f"{prefix}calls_at_end": exact(sum(map(bool, last)) / len(last), len(last), "share"),
        f"{prefix}valid_at_end": exact(bool(valid) and all(valid), len(valid), "truth"),
    }
