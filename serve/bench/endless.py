"""One call that does not end: memory and time stay flat, and tools still work."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from tqdm import tqdm

from data.dialogue import FRAME_S
from data.scripts.backend import Backend, prompts
from data.scripts.domain import load_domain
from model.load_agent import load_agent
from serve.bench.callers import read_speech
from serve.engine.engine import Engine, EngineConfig
from serve.engine.messages import Acted, Frame, Heard, Open, Result
from train.intervals import exact
from train.report import Outcome

_DOMAIN = "front_desk"
_SILENCE_FRAMES = 75  # between two of his calls, in which the agent answers


@dataclass(frozen=True)
class Endless:
    """`minutes` of a caller who says the recording, waits, and says it again, as fast as he is
    answered."""

    minutes: float

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise ValueError(f"minutes {self.minutes}: must be above 0")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """Growth from the second tenth, when the window is full, to the last; and the share of the
        recordings after the first in which the same call was made as in the first."""
        torch.set_num_threads(threads)
        sound = read_speech(speech)
        turn = [*sound, *np.zeros((_SILENCE_FRAMES, *sound.shape[1:]), sound.dtype)]
        engine = Engine(load_agent(checkpoint), EngineConfig(slots=1))
        engine.take(Open("endless", *prompts(_DOMAIN, 0), 0))
        backend, process = Backend(load_domain(_DOMAIN)), psutil.Process()
        took_s, memory, made = [], [], [[]]
        for number in tqdm(range(int(60 * self.minutes / FRAME_S)), unit="frame", desc="endless"):
            if number and number % len(turn) == 0:
                made.append([])
            engine.take(Frame("endless", number, turn[number % len(turn)].tobytes()))
            while not engine.is_idle:
                for reply in engine.step():
                    if isinstance(reply, Heard):
                        took_s.append(reply.latency_s)
                    if isinstance(reply, Acted) and reply.kind == "made":
                        made[-1].append((reply.action, reply.tool, _plain(reply.arguments)))
                        if reply.action in ("call", "revise"):
                            answer = backend.answer(reply.tool, reply.arguments).result
                            engine.take(Result("endless", reply.call, dict(answer), number))
            memory.append(process.memory_info().rss)
        tenth = len(took_s) // 10
        whole = made[1:-1] if len(made) > 2 else made  # the last one may be cut off
        same = np.mean([made[0] == again for again in whole])
        rounds = f"{len(whole)} repetitions, the first made {made[0]}"
        memory_growth = memory[-1] / memory[2 * tenth] - 1
        round_growth = np.median(took_s[-tenth:]) / np.median(took_s[tenth : 2 * tenth]) - 1
        metrics = {
            "endless_memory_growth": exact(memory_growth, len(memory), "share"),
            "endless_round_growth": exact(round_growth, tenth, "share"),
            "endless_same_calls": exact(float(same), len(whole), "share"),
        }
        return Outcome(metrics, notes=(rounds,))


def _plain(arguments: Mapping[str, Any]) -> str:
    return json.dumps(dict(arguments), sort_keys=True)
