"""`python -m serve.bench out=FILE.json`: how many callers an engine holds, how fast it answers.

A real engine process and callers at their real pace, each at a moment of his own within the 80 ms,
who say a recording again and again. Their number grows until frames are late.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import hydra
import msgspec
import numpy as np
import soundfile
import soxr
import zmq
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from data.dialogue import FRAME_S
from model.codec import FRAME_SIZE, SAMPLE_RATE_HZ
from serve.engine.messages import Close, Command, Frame, Heard, Open, Opened, Refused, Reply
from train import report
from train.intervals import Metric, exact
from train.report import Outcome, Report, Table

_SYSTEM = "You are Ava, the receptionist of Acme. Be brief and polite."
_COLD_FRAMES = 12  # of each number of callers, which do not count
_MOST_LATE = 0.001  # share of frames
_MOST_P99_S = 0.08
_WAIT_S = 30.0


@dataclass(frozen=True)
class BenchConfig:
    """`callers` at a time, so many `seconds` each time; they say the recording `speech`."""

    callers: tuple[int, ...]
    seconds: float
    speech: str

    def __post_init__(self) -> None:
        if not self.callers or min(self.callers) < 1 or self.seconds <= 0:
            raise ValueError(f"callers {self.callers} and seconds {self.seconds}: must be above 0")


class Callers:
    """Some callers of an engine, over one socket."""

    def __init__(self, address: str, sound: np.ndarray, count: int) -> None:
        self.sound, self.names = sound, [f"{number} of {count}" for number in range(count)]
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.connect(address)

    def come(self) -> None:
        """Raises RuntimeError where one is refused."""
        for number, name in enumerate(self.names):
            self._send(Open(name, _SYSTEM, [], seed=number))
        waiting = {*self.names}
        while waiting:
            reply = self._receive(_WAIT_S)
            if isinstance(reply, Refused):
                raise RuntimeError(f"{reply.session}: {reply.message}")
            if isinstance(reply, Opened):
                waiting.remove(reply.session)

    def talk(self, frames: int) -> list[Heard]:
        """So many frames of each; all that was answered."""
        begun_s, heard = time.perf_counter(), []
        total = frames * len(self.names)
        for place in range(total):
            number, caller = divmod(place, len(self.names))
            due_s = begun_s + FRAME_S * place / len(self.names)
            while (left_s := due_s - time.perf_counter()) > 0:
                heard += self._answers(left_s)
            pcm = self.sound[(number + 37 * caller) % len(self.sound)]
            self._send(Frame(self.names[caller], number, pcm.tobytes()))
        while len(heard) < total and (new := self._answers(_WAIT_S)):
            heard += new
        return heard

    def go(self) -> None:
        """They hang up."""
        for name in self.names:
            self._send(Close(name))
        self.socket.close()

    def _answers(self, wait_s: float) -> list[Heard]:
        reply = self._receive(wait_s)
        return [reply] if isinstance(reply, Heard) else []

    def _receive(self, wait_s: float) -> Reply | None:
        if not self.socket.poll(max(1, int(1000 * wait_s))):
            return None
        return msgspec.msgpack.decode(self.socket.recv(), type=Reply)

    def _send(self, command: Command) -> None:
        self.socket.send(msgspec.msgpack.encode(command))


def measure(address: str, config: BenchConfig) -> Outcome:
    """One number of callers after the other, until frames are late or somebody is refused."""
    sound, metrics, rows = _sound(config.speech), {}, []
    sessions_max = 0
    cpu_s, begun_s = time.process_time(), time.perf_counter()
    for count in tqdm(config.callers, unit="step"):
        callers = Callers(address, sound, count)
        try:
            callers.come()
            heard = callers.talk(_COLD_FRAMES + int(config.seconds / FRAME_S))
        except RuntimeError:
            break
        finally:
            callers.go()
        found = _figures(heard, count)
        metrics |= found
        rows.append((f"{count} callers", tuple(found)))
        late, p99 = (found[f"{name}_{count}"].value for name in ("late", "frame_latency_ms_p99"))
        if late > _MOST_LATE or p99 >= 1000 * _MOST_P99_S:
            break
        sessions_max = count
    share = (time.process_time() - cpu_s) / (time.perf_counter() - begun_s)
    metrics["sessions_max"] = exact(sessions_max, 1, "sessions")
    table = Table("From a frame's arrival to its answer", ("p50", "p99", "late"), tuple(rows))
    return Outcome(metrics, (table,), (f"The callers took {share:.0%} of a core themselves.",))


def _figures(heard: list[Heard], count: int) -> dict[str, Metric]:
    counted = [one for one in heard if one.number >= _COLD_FRAMES]
    latency_ms = [1000 * one.latency_s for one in counted]
    return {
        f"frame_latency_ms_p50_{count}": exact(float(np.median(latency_ms)), len(counted), "ms"),
        f"frame_latency_ms_p99_{count}": exact(
            float(np.quantile(latency_ms, 0.99)), len(counted), "ms"
        ),
        f"late_{count}": exact(
            float(np.mean([one.is_late for one in counted])), len(counted), "share"
        ),
    }


def _sound(path: str) -> np.ndarray:
    """A recording as frames int16 [n, 1920]."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate_hz, SAMPLE_RATE_HZ)
    whole = mono[: len(mono) // FRAME_SIZE * FRAME_SIZE].reshape(-1, FRAME_SIZE)
    return (whole.clip(-1, 1) * (2**15 - 1)).astype("<i2")


@contextlib.contextmanager
def _engine(checkpoint: str, threads: int, slots: int) -> Iterator[str]:
    """An engine's process that lets everybody in, warmed up: its address."""
    with TemporaryDirectory() as folder:
        address = f"ipc://{folder}/engine"
        given = (f"checkpoint={checkpoint}", f"address={address}", f"threads={threads}")
        command = [sys.executable, "-m", "serve.engine", *given]
        command += [f"engine.slots={slots}", "engine.most_share=1000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise ValueError(f"the engine did not start: {' '.join(command)}")
            try:
                yield address
            finally:
                process.terminate()


@hydra.main(version_base=None, config_path="../conf", config_name="bench")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    try:
        if not cfg.out:
            raise ValueError("out is missing: give out=a .json file")
        report.check_out(Path(cfg.out))
        config = instantiate(cfg.bench, _convert_="object")
        load, start = os.getloadavg(), time.monotonic()
        with _engine(cfg.checkpoint, cfg.threads, max(config.callers)) as address:
            outcome = measure(address, config)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    command = " ".join(["python -m serve.bench", *sys.argv[1:]])
    done = Report("engine", command, time.monotonic() - start, load, outcome)
    report.write(done, Path(cfg.out))
    print(report.markdown(done))


if __name__ == "__main__":
    main()
