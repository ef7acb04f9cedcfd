"""Sound through the gateway and back, in every format that its protocols have, in front of an
engine that says what it hears."""

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate

from model.frame import FRAME_S, SAMPLE_RATE_HZ
from serve.bench.gateway_process import GatewayProcess
from serve.bench.web_caller import Protocol, WebCaller
from serve.gateway.audio import AudioFormat, decoded, encoded
from train.intervals import Metric, exact
from train.report import Outcome, Table

_PIECE_S = 0.05  # of sound in a message: frames do not end where messages do
_END_S = 1.0  # of sound at both ends, where the delay is looked for
_LATEST_S = 0.2
_TILE_S = 7  # of noise, said again and again
_BAND = 0.8  # of what fits: resampling leaves that as it is
_LOUDNESS = 3000  # root mean square
_MOST_DB = 120.0  # where nothing differs


@dataclass(frozen=True)
class _Way:
    """In which protocol, and how sound is said and heard."""

    protocol: Protocol
    spoken: AudioFormat
    heard: AudioFormat

    @property
    def name(self) -> str:
        """Of its figures."""
        kinds = [f"{one.encoding}_{one.rate_hz}" for one in (self.spoken, self.heard)]
        return "_".join([self.protocol, *dict.fromkeys(kinds)])

    @property
    def is_exact(self) -> bool:
        """Whether every bit must come back."""
        return self.spoken == self.heard == AudioFormat()

    def noise(self, rate_hz: int) -> NDArray[np.float32]:
        """A tile of the same sound at any rate, in a band that every rate on the way holds."""
        most_hz = _BAND * min(self.spoken.rate_hz, self.heard.rate_hz, SAMPLE_RATE_HZ) / 2
        rng, count = np.random.default_rng(0), int(most_hz * _TILE_S)
        spectrum = rng.normal(size=count) + 1j * rng.normal(size=count)
        tile = np.fft.irfft(spectrum, rate_hz * _TILE_S)
        return (tile * _LOUDNESS / tile.std()).astype(np.float32)

    def said(self, seconds: float) -> bytes:
        """All that the caller says."""
        tile = encoded(self.noise(self.spoken.rate_hz).round().astype(np.int16), self.spoken)
        frames = int(seconds / FRAME_S)
        return (tile * (1 + int(seconds / _TILE_S)))[: frames * self.spoken.frame_bytes]


def _ways() -> list[_Way]:
    rates_hz = (8_000, 16_000, 24_000, 48_000)
    sounds = [AudioFormat("pcm16", rate_hz) for rate_hz in rates_hz]
    sounds += [AudioFormat("mulaw", 8_000), AudioFormat("alaw", 8_000)]
    both: list[Protocol] = ["realtime", "live"]
    ways = [_Way(protocol, sound, sound) for protocol in both for sound in sounds]
    ways += [
        _Way("hydra", sounds[said], sounds[had]) for said, had in ((0, 2), (1, 3), (2, 2), (3, 1))
    ]
    return [*ways, _Way("twilio", sounds[4], sounds[4])]


@dataclass(frozen=True)
class Formats:
    """A caller in each way for so many `seconds`, all at once."""

    seconds: float

    def __post_init__(self) -> None:
        if self.seconds < 3 * _END_S:
            raise ValueError(f"seconds {self.seconds}: must be at least {3 * _END_S}")

    def measure(self, _checkpoint: str, _threads: int, _speech: str) -> Outcome:
        """Of what comes back: samples that are missing; by how many samples the delay changes from
        the beginning to the end; how far what differs is below the sound in the worst 80 ms, where
        a click or a gap is as loud; and of PCM16 at 24 kHz the share of frames that differ."""
        ways, metrics, rows = _ways(), {}, []
        with GatewayProcess(len(ways), kind="echo") as gateway:
            heard = asyncio.run(_calls(gateway.port, ways, self.seconds))
        found = [
            _compared(way, way.said(self.seconds), audio)
            for way, audio in zip(ways, heard, strict=True)
        ]
        columns = ("missing", "drift", "worst_db", "differ")
        for way, one in zip(ways, found, strict=True):
            metrics |= {f"audio_{key}_{way.name}": metric for key, metric in one.items()}
            names = (f"audio_{key}_{way.name}" for key in columns)
            rows.append((way.name.replace("_", " "), (*names,)))
        for key in ("missing", "drift", "differ"):
            metrics[f"audio_{key}_max"] = max((one[key] for one in found if key in one), key=_value)
        for kind in ("pcm16", "law"):
            worst = [
                one["worst_db"] for way, one in zip(ways, found, strict=True) if kind in way.name
            ]
            metrics[f"audio_worst_db_{kind}"] = min(worst, key=_value)
        return Outcome(metrics, (Table("Sound there and back", columns, (*rows,)),))


async def _calls(port: int, ways: list[_Way], seconds: float) -> list[bytes]:
    callers = [WebCaller(port, way.protocol, way.heard, way.spoken) for way in ways]
    async with asyncio.TaskGroup() as group:
        for caller, way in zip(callers, ways, strict=True):
            group.create_task(_call(caller, way.said(seconds)))
    return [b"".join(sound for sound, _ in caller.had) for caller in callers]


async def _call(caller: WebCaller, sound: bytes) -> None:
    async with caller:
        await caller.say(sound, _PIECE_S)


def _compared(way: _Way, said: bytes, audio: bytes) -> dict[str, Metric]:
    """`audio` is all that was heard."""
    frames = len(said) // way.spoken.frame_bytes
    heard = decoded(audio[: frames * way.heard.frame_bytes], way.heard).astype(np.float32)
    frame = len(decoded(bytes(way.heard.frame_bytes), way.heard))
    wanted = np.tile(
        way.noise(way.heard.rate_hz), 1 + frames * frame // (_TILE_S * way.heard.rate_hz)
    )
    wanted = wanted[: frames * frame]
    end = int(_END_S * way.heard.rate_hz)
    late = [_delay(wanted, heard, at, way.heard.rate_hz) for at in (0, len(heard) - end)]
    count = min(len(heard), len(wanted)) - late[0] - frame  # whole frames behind the first one
    count -= count % frame
    expected = wanted[frame : frame + count].reshape(-1, frame)
    error = heard[frame + late[0] :][:count].reshape(-1, frame) - expected
    power = np.square(expected).mean(1) / np.maximum(np.square(error).mean(1), 1e-9)
    found = {
        "missing": exact(len(wanted) - len(heard), frames, "samples"),
        "drift": exact(abs(late[1] - late[0]), frames, "samples"),
        "worst_db": exact(min(10 * np.log10(power.min()), _MOST_DB), frames, "dB"),
    }
    if way.is_exact:
        size = way.heard.frame_bytes
        pairs = ((said[at : at + size], audio[at : at + size]) for at in range(0, len(said), size))
        differ = float(np.mean([one != other for one, other in pairs]))
        found["differ"] = exact(differ, frames, "share")
    return found


def _delay(wanted: NDArray[np.float32], heard: NDArray[np.float32], at: int, rate_hz: int) -> int:
    """By how many samples what is heard from sample `at` on is behind what was wanted there."""
    most, end = int(_LATEST_S * rate_hz), int(_END_S * rate_hz)
    around = np.pad(wanted, most)[at : at + end + 2 * most]
    return most - int(correlate(around, heard[at : at + end], "valid").argmax())


def _value(metric: Metric) -> float:
    return metric.value
