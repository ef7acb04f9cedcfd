"""More and more callers, until frames are late."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from model.frame import FRAME_S
from serve.bench.callers import Callers, read_speech
from serve.bench.engine_process import EngineProcess
from serve.engine.messages import Heard, Refused
from train.intervals import Metric, exact
from train.report import Outcome, Table

COLD_FRAMES = 12  # of each number of callers, which do not count
COLUMNS = ("p50", "p95", "p99", "longest", "late")  # of `latencies`
_MOST_LATE = 0.001  # share of frames


@dataclass(frozen=True)
class Ramp:
    """`callers` at a time, so many `seconds` each time."""

    callers: tuple[int, ...]
    seconds: float

    def __post_init__(self) -> None:
        if not self.callers or min(self.callers) < 1 or self.seconds <= 0:
            raise ValueError(f"callers {self.callers} and seconds {self.seconds}: must be above 0")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """`sessions_max` is the last number of which no more than one frame in a thousand is late
        and one in a hundred takes 80 ms."""
        sound, metrics, rows, sessions_max = read_speech(speech), {}, [], 0
        with EngineProcess(checkpoint, threads, slots=max(self.callers)) as engine:
            for count in tqdm(self.callers, unit="step", desc="ramp"):
                names = [f"{number} of {count}" for number in range(count)]
                callers = Callers(engine.address, sound, names)
                callers.come()
                heard = callers.talk(COLD_FRAMES + int(self.seconds / FRAME_S))
                callers.go()
                found = figures(heard, f"_{count}")
                metrics |= found
                rows.append((f"{count} callers", tuple(found)))
                if not holds(found, f"_{count}"):
                    break
                sessions_max = count
            metrics["resident_mib"] = exact(engine.resident_mib(), 1, "MiB")
        metrics["sessions_max"] = exact(sessions_max, 1, "sessions")
        return Outcome(
            metrics, (Table("From when a frame is sent until it is answered", COLUMNS, (*rows,)),)
        )


def figures(told: list[Heard | Refused], suffix: str) -> dict[str, Metric]:
    """By names that end in `suffix`."""
    return latencies(waited_s(told), suffix)


def waited_s(told: list[Heard | Refused]) -> list[float]:
    """How long callers waited for what came of each frame but the first ones; where it was dropped,
    a second."""
    answers = [one for one in told if isinstance(one, Refused) or one.number >= COLD_FRAMES]
    return [getattr(one, "latency_s", 1.0) for one in answers]


def latencies(seconds: Sequence[float], suffix: str) -> dict[str, Metric]:
    """Of answers after so long, by names that end in `suffix`."""
    latency_ms = 1000 * np.array(seconds)
    quantiles = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    found = {
        f"frame_latency_ms_{name}{suffix}": exact(np.quantile(latency_ms, q), len(seconds), "ms")
        for name, q in quantiles.items()
    }
    late = float(np.mean(latency_ms > 1000 * FRAME_S))
    return found | {f"late{suffix}": exact(late, len(seconds), "share")}


def holds(found: dict[str, Metric], suffix: str) -> bool:
    """Whether callers with these figures are served in time."""
    late, p99_ms = found[f"late{suffix}"].value, found[f"frame_latency_ms_p99{suffix}"].value
    return late <= _MOST_LATE and p99_ms < 1000 * FRAME_S
