"""Voice activity and ends of turn: silero-vad, and a silence that is long enough."""

import functools
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray

from data.voices.utterance import SAMPLE_RATE_HZ

RATE_HZ = 16_000
WINDOW = 512  # samples, 32 ms
_WINDOW_MS = 1000 * WINDOW // RATE_HZ
_CONTEXT = 64  # samples before a window that the model is given with it
_STATE = (2, 1, 128)
_SPEECH, _SILENCE = 0.5, 0.35  # silero's own thresholds: from when speech is there, and no longer
_BEFORE = 10 * WINDOW  # samples before the first window of speech that are kept
_LONGEST_S = 30  # of what is recognised at once

Audio = NDArray[np.float32]


@functools.cache
def _model() -> onnxruntime.InferenceSession:
    """The network in the silero-vad package (MIT), which is not imported: it wants torchaudio."""
    package = importlib.util.find_spec("silero_vad")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("silero-vad is not installed: run `make setup`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(package.origin).parent / "data" / "silero_vad.onnx"
    return onnxruntime.InferenceSession(str(path), options)


class Vad:
    """Windows of 512 samples at 16 kHz, one after the other -> how likely each is speech."""

    def __init__(self) -> None:
        self.session = _model()
        self.state = np.zeros(_STATE, np.float32)
        self.context = np.zeros(_CONTEXT, np.float32)

    def __call__(self, window: Audio) -> float:
        heard = np.concatenate([self.context, window])[None]
        fed = {"input": heard, "state": self.state, "sr": np.array(RATE_HZ, np.int64)}
        probability, state = self.session.run(None, fed)
        self.state, self.context = np.asarray(state), window[-_CONTEXT:]
        return float(np.asarray(probability)[0, 0])


class Heard(NamedTuple):
    """What a frame told: for how long the caller has been speaking without a silence, in ms, and
    what he said (float32 [T] at 16 kHz), once it is over."""

    speaking_ms: int
    turn: Audio | None


@dataclass
class Listener:
    """One caller. His turn is over after `pause_ms` of silence; less than `least_ms` of speech
    in all is none."""

    pause_ms: int
    least_ms: int
    vad: Vad = field(default_factory=Vad)
    resampler: soxr.ResampleStream = field(
        default_factory=lambda: soxr.ResampleStream(SAMPLE_RATE_HZ, RATE_HZ, 1, dtype="float32")
    )
    rest: Audio = field(default_factory=lambda: np.zeros(0, np.float32))
    kept: Audio = field(default_factory=lambda: np.zeros(0, np.float32))
    is_speech: bool = False
    run_ms: int = 0
    speech_ms: int = 0  # of the turn
    silence_ms: int = 0

    def hear(self, pcm: Audio) -> Heard:
        """The next frame [1920] at 24 kHz."""
        resampled = np.asarray(self.resampler.resample_chunk(pcm), np.float32)
        self.rest = np.concatenate([self.rest, resampled])
        turn = None
        while len(self.rest) >= WINDOW:
            window, self.rest = self.rest[:WINDOW], self.rest[WINDOW:]
            if self._window(window):
                turn, self.kept = self.kept, self.kept[-_BEFORE:]
                self.speech_ms = 0
        return Heard(self.run_ms, turn)

    def _window(self, window: Audio) -> bool:
        """Takes in a window; whether the turn is over with it."""
        probability = self.vad(window)
        self.is_speech = probability >= (_SILENCE if self.is_speech else _SPEECH)
        self.kept = np.concatenate([self.kept, window])
        if self.is_speech:
            self.run_ms += _WINDOW_MS
            self.speech_ms += _WINDOW_MS
            self.silence_ms = 0
        else:
            self.run_ms = 0
            self.silence_ms += _WINDOW_MS
        if self.silence_ms < self.pause_ms and len(self.kept) < _LONGEST_S * RATE_HZ:
            return False
        if self.speech_ms >= self.least_ms:
            return True
        self.kept, self.speech_ms = self.kept[-_BEFORE:], 0
        return False
