"""Opus and Codec 2 through their own programs, for the same table as ours.

Opus runs as its tool does best at these rates (tried: frames of 20, 40, 60 ms, variable and hard
constant rate): variable rate, 60 ms frames, tuned to speech. Its bit rate is what it printed,
without the Ogg container; it stays under the target. Codec 2 works at 8 kHz.
"""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.signal import correlate, correlation_lags

from data.augment import fit
from data.voices.engines import read_24khz, run_program
from data.voices.utterance import SAMPLE_RATE_HZ

Audio = NDArray[np.float32]
_CODEC2_RATE_HZ = 8_000
_MAX_DELAY_S = 0.1
_ENVELOPE_S = 0.004  # smoothing; what a vocoder keeps is the envelope, not the waveform


class Coded(NamedTuple):
    """What came back, float32 [T] at 24 kHz on the original's clock, and the bits it took."""

    audio: Audio
    bits: float


@dataclass(frozen=True)
class Baseline:
    """A codec that is a program, at one nominal rate."""

    program: Literal["opus", "codec2"]
    rate_bps: int

    def __call__(self, audio: Audio) -> Coded:
        """Codes and decodes float32 [T] at 24 kHz."""
        with tempfile.TemporaryDirectory() as folder:
            run = _opus if self.program == "opus" else _codec2
            heard, bits = run(audio, self.rate_bps, Path(folder))
        return Coded(align(audio, heard), bits)


BASELINES = {
    "opus_6": Baseline("opus", 6_000),
    "opus_12": Baseline("opus", 12_000),
    "codec2_2400": Baseline("codec2", 2_400),
    "codec2_1200": Baseline("codec2", 1_200),
}


_PACKAGES = {"opus": ("opusenc", "opus-tools"), "codec2": ("c2enc", "codec2")}


def usable() -> tuple[dict[str, Baseline], list[str]]:
    """The baselines whose programs are installed, and for the others a line that says so."""
    found, problems = {}, []
    for name, baseline in BASELINES.items():
        program, package = _PACKAGES[baseline.program]
        if shutil.which(program):
            found[name] = baseline
        else:
            problems.append(f"{name} is missing: apt-get install {package}")
    return found, problems


def _opus(audio: Audio, rate_bps: int, folder: Path) -> tuple[Audio, float]:
    source, coded, decoded = (folder / name for name in ("in.wav", "coded.opus", "out.wav"))
    soundfile.write(source, audio.clip(-1, 1), SAMPLE_RATE_HZ, subtype="PCM_16")
    options = ["--bitrate", str(rate_bps / 1000), "--framesize", "60", "--speech"]
    command = ["opusenc", *options, str(source), str(coded)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Bitrate: ([\d.]+) kbit/s", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-400:]}")
    run_program(
        ["opusdec", "--quiet", "--float", "--rate", str(SAMPLE_RATE_HZ), str(coded), str(decoded)]
    )
    return read_24khz(decoded), float(found[1]) * 1000 * len(audio) / SAMPLE_RATE_HZ


def _codec2(audio: Audio, rate_bps: int, folder: Path) -> tuple[Audio, float]:
    source, coded, decoded = (folder / name for name in ("in.raw", "coded.bit", "out.raw"))
    narrow = soxr.resample(audio, SAMPLE_RATE_HZ, _CODEC2_RATE_HZ)
    # Whole frames only are coded (20 or 40 ms), and the decoder is late: leave room at the end.
    narrow = np.pad(narrow, (0, int(_MAX_DELAY_S * _CODEC2_RATE_HZ)))
    (narrow.clip(-1, 1) * 32767).astype("<i2").tofile(source)
    run_program(["c2enc", str(rate_bps), str(source), str(coded)])
    run_program(["c2dec", str(rate_bps), str(coded), str(decoded)])
    heard = np.fromfile(decoded, "<i2").astype(np.float32) / 32768
    wide = soxr.resample(heard, _CODEC2_RATE_HZ, SAMPLE_RATE_HZ).astype(np.float32)
    return wide, rate_bps * len(audio) / SAMPLE_RATE_HZ


def _envelope(audio: Audio) -> NDArray[np.float64]:
    window = np.hanning(int(_ENVELOPE_S * SAMPLE_RATE_HZ))
    smooth = np.convolve(np.abs(audio.astype(np.float64)), window / window.sum(), mode="same")
    return smooth - smooth.mean()


def delay_of(original: Audio, heard: Audio) -> int:
    """By how many samples `heard` is late, at most 100 ms either way; both float32 [T], 24 kHz."""
    similarity = correlate(_envelope(heard), _envelope(original), method="fft")
    lags = correlation_lags(len(heard), len(original))
    near = np.abs(lags) <= _MAX_DELAY_S * SAMPLE_RATE_HZ
    return int(lags[near][np.argmax(similarity[near])])


def align(original: Audio, heard: Audio) -> Audio:
    """Shifts `heard` onto the original and gives it the same length."""
    delay = delay_of(original, heard)
    shifted = heard[delay:] if delay >= 0 else np.pad(heard, (-delay, 0))
    return fit(shifted, len(original))
