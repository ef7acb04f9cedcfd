"""Callers whose gateway dies, one after the other, beside others who are to notice nothing."""

import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.frame import FRAME_S
from serve.bench.callers import Callers, read_speech
from serve.bench.engine_process import EngineProcess
from serve.bench.ramp import COLD_FRAMES, figures
from train.intervals import exact
from train.report import Outcome

_STEADY = ("steady 0", "steady 1")
_SLOTS, _PATIENCE_S = 8, 2.0
_AGAIN_S = 0.05  # until one who was refused tries again
_SEND_MS = 100  # for what the dying one has said last
_PART_S = 4.0  # of the steady ones' talk


@dataclass(frozen=True)
class Kills:
    """So many `cycles` of coming in and dying, every second one with a frame under way, after
    `before_s` in which nobody dies."""

    cycles: int
    before_s: float

    def __post_init__(self) -> None:
        if self.cycles < 2 or self.before_s <= 0:
            raise ValueError(f"{self}: must be at least 2 cycles, and before_s above 0")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """Slots and memory that are not given back; late frames of the steady ones before and
        while others die."""
        sound = read_speech(speech)
        with EngineProcess(checkpoint, threads, slots=_SLOTS, patience_s=_PATIENCE_S) as engine:
            steady = Callers(engine.address, sound, _STEADY)
            steady.come()
            before = steady.talk(COLD_FRAMES + int(self.before_s / FRAME_S))
            done: list[float] = []  # MiB after each cycle
            dying = threading.Thread(target=self._die, args=(engine, sound, done))
            dying.start()
            heard = []
            while dying.is_alive():
                heard += steady.talk(int(_PART_S / FRAME_S))
            dying.join()
            heard += steady.talk(int(2 * _PATIENCE_S / FRAME_S))
            leaked = engine.counted("duologue_sessions") - len(_STEADY)
            steady.go()
        late = figures(heard, "")["late"].value - figures(before, "")["late"].value
        tenth = done[len(done) // 10]
        metrics = {
            "kills_slots_leaked": exact(leaked, len(done), "slots"),
            "kills_memory_growth": exact(done[-1] / tenth - 1, len(done), "share"),
            "kills_late_more": exact(late, len(heard), "share"),
        }
        return Outcome(metrics)

    def _die(self, engine: EngineProcess, sound: NDArray[np.int16], done: list[float]) -> None:
        for cycle in tqdm(range(self.cycles), unit="kill", desc="kills"):
            while True:
                one = Callers(engine.address, sound, [f"dying {cycle}"])
                try:
                    one.come()
                    break
                except RuntimeError:  # all slots are taken by the dead, until their time is over
                    one.socket.close(0)
                    time.sleep(_AGAIN_S)
            if cycle % 2:
                one.send(one.frame(0, 0))
            one.socket.close(_SEND_MS)
            done.append(engine.resident_mib())
