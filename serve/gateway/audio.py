"""Sound as clients send and want it, to and from the frames of the engine.

Rates are changed a frame at a time, by a filter that gives exactly a frame for a frame and is late
by 7.25 ms at 8 kHz, by 3.625 ms at 16 and 48 kHz, and not at all at 24 kHz. soxr's streams work in
blocks: with them a telephone's sound was up to 73 ms late, each way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm
from typing import Literal

import numpy as np
from scipy.signal import firwin, kaiser_beta

from model.frame import FRAME_SIZE, SAMPLE_RATE_HZ

_RATES_HZ = {"pcm16": (8_000, 16_000, 24_000, 48_000), "mulaw": (8_000,), "alaw": (8_000,)}
_TAPS = 349  # at the lower common multiple of both rates; flat up to 0.9 of what fits, then -90 dB


@dataclass(frozen=True)
class AudioFormat:
    """Mono. `pcm16` is little-endian, `mulaw` and `alaw` are a byte a sample (ITU-T G.711). Raises
    ValueError on what there is no such sound of."""

    encoding: Literal["pcm16", "mulaw", "alaw"] = "pcm16"
    rate_hz: int = SAMPLE_RATE_HZ

    def __post_init__(self) -> None:
        if self.encoding not in _RATES_HZ:
            raise ValueError(f"encoding {self.encoding!r} must be one of {', '.join(_RATES_HZ)}")
        rates_hz = _RATES_HZ[self.encoding]
        if self.rate_hz not in rates_hz:
            allowed = ", ".join(map(str, rates_hz))
            raise ValueError(f"rate_hz {self.rate_hz!r} of {self.encoding} must be of {allowed}")

    @property
    def sample_bytes(self) -> int:
        """What a sample takes."""
        return 2 if self.encoding == "pcm16" else 1

    @property
    def frame_bytes(self) -> int:
        """What 80 ms take."""
        return _frame_size(self.rate_hz) * self.sample_bytes


class Incoming:
    """A client's sound, in pieces of any size, as frames for the engine: 1920 samples at 24 kHz,
    int16 little-endian. Half a sample at the end of a piece is kept until its other half comes."""

    def __init__(self, sound: AudioFormat) -> None:
        self._format = sound
        self._resampler = _resampler(sound.rate_hz, SAMPLE_RATE_HZ)
        self._held = bytearray()  # less than a frame

    def feed(self, audio: bytes) -> list[bytes]:
        """More of it; the frames that are whole now."""
        self._held += audio
        return [
            self._frame(self._format.frame_bytes)
            for _ in range(len(self._held) // self._format.frame_bytes)
        ]

    def fill(self) -> bytes:
        """A frame of what there is, the rest of it silence; all of it where there is nothing. For
        a client who is late."""
        return self._frame(len(self._held) - len(self._held) % self._format.sample_bytes)

    def _frame(self, size: int) -> bytes:
        """Of the next `size` bytes and silence."""
        samples = np.zeros(_frame_size(self._format.rate_hz), np.int16)
        said = decoded(bytes(self._held[:size]), self._format)
        samples[: len(said)] = said
        del self._held[:size]
        return _bytes_of(self._resampler(samples))


class Outgoing:
    """The engine's frames as a client wants them."""

    def __init__(self, sound: AudioFormat) -> None:
        self._format = sound
        self._resampler = _resampler(SAMPLE_RATE_HZ, sound.rate_hz)

    def encode(self, pcm: bytes) -> bytes:
        """A frame, 1920 samples as int16 little-endian -> exactly 80 ms in the client's format."""
        return encoded(self._resampler(np.frombuffer(pcm, "<i2")), self._format)


def decoded(audio: bytes, sound: AudioFormat) -> np.ndarray:
    """Whole samples in a client's format -> int16 [T]."""
    if sound.encoding == "pcm16":
        return np.frombuffer(audio, "<i2")
    table = _FROM_MULAW if sound.encoding == "mulaw" else _FROM_ALAW
    return table[np.frombuffer(audio, np.uint8)]


def encoded(samples: np.ndarray, sound: AudioFormat) -> bytes:
    """int16 [T] -> the same in a client's format."""
    if sound.encoding == "pcm16":
        return _bytes_of(samples)
    table = _TO_MULAW if sound.encoding == "mulaw" else _TO_ALAW
    return table[samples.view(np.uint16)].tobytes()


def _bytes_of(samples: np.ndarray) -> bytes:
    return samples.astype("<i2", copy=False).tobytes()


def _frame_size(rate_hz: int) -> int:
    """Samples in 80 ms."""
    return FRAME_SIZE * rate_hz // SAMPLE_RATE_HZ


def _span(rate_hz: int) -> int:
    """Samples in a frame and as many before it as a filter is long, or more: 96 ms."""
    return _frame_size(rate_hz) * 6 // 5


class _Resampler:
    """int16 frames of one rate to those of another, by overlap-save: a linear-phase low-pass is
    applied to the spectrum of a frame and of the end of the one before it, and the spectrum is
    filled up or cut off to the other rate."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common_hz, fitting_hz = lcm(from_hz, to_hz), min(from_hz, to_hz)
        beta = kaiser_beta(90)  # dB
        taps = firwin(_TAPS, 0.95 * fitting_hz / 2, window=("kaiser", beta), fs=common_hz)  # pyright: ignore[reportArgumentType]
        response = np.fft.rfft(taps, _span(common_hz)) * (to_hz / from_hz)
        self._response = response[: _span(fitting_hz) // 2 + 1]
        self._past = np.zeros(_span(from_hz) - _frame_size(from_hz), np.int16)
        self._to_hz = to_hz

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """int16, 80 ms at one rate -> int16, 80 ms at the other."""
        heard = np.concatenate((self._past, samples))
        self._past = samples[-len(self._past) :]
        spectrum = np.fft.rfft(heard)[: len(self._response)] * self._response
        made = np.fft.irfft(spectrum, _span(self._to_hz))[-_frame_size(self._to_hz) :]
        return made.round().clip(-32768, 32767).astype(np.int16)


def _resampler(from_hz: int, to_hz: int) -> Callable[[np.ndarray], np.ndarray]:
    return (lambda samples: samples) if from_hz == to_hz else _Resampler(from_hz, to_hz)


def _mulaw_tables() -> tuple[np.ndarray, np.ndarray]:
    """int16 [256] that codes stand for; uint8 [65536], the code of each int16 seen as uint16."""
    flipped = ~np.arange(256)
    segment, step = flipped >> 4 & 7, flipped & 15
    values = ((2 * step + 33 << segment) - 33) * 4 * np.where(flipped & 128, -1, 1)

    samples = np.arange(65536).astype(np.uint16).view(np.int16).astype(int)
    size = np.minimum((np.where(samples < 0, ~samples, samples) >> 2) + 33, 8191)
    segment = np.frexp(size)[1] - 6
    codes = ~(np.where(samples < 0, 128, 0) | segment << 4 | size >> segment + 1 & 15)
    return values.astype(np.int16), codes.astype(np.uint8)


def _alaw_tables() -> tuple[np.ndarray, np.ndarray]:
    """As `_mulaw_tables`."""
    flipped = np.arange(256) ^ 0x55
    segment, step = flipped >> 4 & 7, flipped & 15
    size = np.where(segment == 0, 2 * step + 1, 2 * step + 33 << np.maximum(segment - 1, 0))
    values = size * 8 * np.where(flipped & 128, 1, -1)

    samples = np.arange(65536).astype(np.uint16).view(np.int16).astype(int)
    size = np.where(samples < 0, ~samples, samples) >> 4
    segment = np.maximum(np.frexp(size)[1] - 4, 0)
    step = size >> np.maximum(segment - 1, 0) & 15
    codes = (np.where(samples < 0, 0, 128) | segment << 4 | step) ^ 0x55
    return values.astype(np.int16), codes.astype(np.uint8)


_FROM_MULAW, _TO_MULAW = _mulaw_tables()
_FROM_ALAW, _TO_ALAW = _alaw_tables()
