"""What others' loops hold on this machine, at the same sizes and the same pace; and this project's
engine where it does no more than one of them, vLLM's."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from serve.bench.callers import read_speech
from serve.bench.ramp import COLUMNS, holds, latencies
from train.intervals import exact
from train.report import Outcome, Table

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Peers:
    """`pythons` are those of the peers' own environments (`make bench` makes them), by the name of
    their loop; of `callers` at a time, each for so many `seconds`."""

    pythons: dict[str, str]
    callers: tuple[int, ...]
    seconds: float

    def __post_init__(self) -> None:
        if not self.callers or min(self.callers) < 1 or self.seconds <= 0:
            raise ValueError(f"callers {self.callers} and seconds {self.seconds}: must be above 0")
        for name, python in self.pythons.items():
            if not Path(python).is_file():
                raise ValueError(f"pythons.{name} is {python!r}: there is none; try `make peers`")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """`sessions_max_NAME`, by the same rule as an engine's."""
        metrics, rows, notes = {}, [], []
        with TemporaryDirectory() as folder:
            sound = Path(folder) / "speech.npy"
            np.save(sound, read_speech(speech))
            for name, python in self.pythons.items():
                numbers = map(str, self.callers)
                command = [python, str(_FOLDER / f"{name}_loop.py"), str(sound)]
                lines = _lines([*command, str(self.seconds), str(threads), *numbers])
                notes.append(f"{name}: random weights, {next(lines)['about']}")
                most = 0
                for line in tqdm(lines, total=len(self.callers), unit="step", desc=name):
                    suffix = f"_{name}_{line['callers']}"
                    found = latencies(line["latency_s"], suffix)
                    metrics |= found
                    rows.append((f"{name}, {line['callers']} callers", tuple(found)))
                    if not holds(found, suffix):
                        break
                    most = line["callers"]
                metrics[f"sessions_max_{name}"] = exact(most, 1, "sessions")
        table = Table("Peers: from a frame's time to its answer", COLUMNS, (*rows,))
        return Outcome(metrics, (table,), (*notes,))


def _lines(command: list[str]) -> Iterator[dict[str, Any]]:
    """What a loop prints; it is ended where nobody asks for more."""
    environment = os.environ | {"NO_TORCH_COMPILE": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            yield from (json.loads(line) for line in process.stdout if line.startswith("{"))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # vLLM has workers, who would stay
    if process.returncode > 0:
        raise RuntimeError(f"{' '.join(command)} failed: {process.returncode}")
