"""One caller too many: how soon he is told, and whether the others notice."""

import threading
import time
from dataclasses import dataclass

from model.frame import FRAME_S
from serve.bench.callers import SYSTEM, WAIT_S, Callers, Line, read_speech
from serve.bench.engine_process import EngineProcess
from serve.bench.ramp import COLD_FRAMES, figures
from serve.engine.messages import Open, Refused
from train.intervals import exact
from train.report import Outcome


@dataclass(frozen=True)
class Refusal:
    """`callers` take all slots; another one tries to come in every `each_s` for `seconds`, after as
    many in which nobody does."""

    callers: int
    seconds: float
    each_s: float

    def __post_init__(self) -> None:
        if min(vars(self).values()) <= 0:
            raise ValueError(f"{self}: all must be above 0")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """Raises RuntimeError where one of them was let in."""
        frames, sound = int(self.seconds / FRAME_S), read_speech(speech)
        with EngineProcess(checkpoint, threads, slots=self.callers) as engine:
            callers = Callers(engine.address, sound, [f"{n}" for n in range(self.callers)])
            callers.come()
            before = figures(callers.talk(COLD_FRAMES + frames), "")["frame_latency_ms_p99"]
            told_s: list[float] = []
            over = threading.Event()
            knocking = threading.Thread(target=self._knock, args=(engine.address, told_s, over))
            knocking.start()
            heard = callers.talk(frames)
            over.set()
            knocking.join()
            callers.go()
        during = figures(heard, "")["frame_latency_ms_p99"]
        change = during.value / before.value - 1
        metrics = {
            "refused_ms_max": exact(1000 * max(told_s), len(told_s), "ms"),
            "refusal_p99_change": exact(change, len(heard), "share"),
        }
        return Outcome(metrics)

    def _knock(self, address: str, told_s: list[float], over: threading.Event) -> None:
        line = Line(address)
        while not over.wait(self.each_s):
            begun_s = time.perf_counter()
            line.send(Open(f"late comer {len(told_s)}", SYSTEM, []))
            reply = line.receive(WAIT_S)
            if not isinstance(reply, Refused):
                raise RuntimeError(f"was to be refused: {reply}")
            told_s.append(time.perf_counter() - begun_s)
        line.socket.close()
