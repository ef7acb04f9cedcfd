"""What a line and a room do to speech: mu-law telephony, noise, reverberation, gain and speed.

All take and return mono float32 [T] at 24 kHz of the same length (but `speed`), and are random only
through the generator that is passed in.
"""

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from data.voices.utterance import SAMPLE_RATE_HZ

Audio = NDArray[np.float32]
_TELEPHONE_HZ = 8_000
_MU = 255.0  # ITU-T G.711


def telephone(audio: Audio) -> Audio:
    """Through an 8 kHz line with mu-law (G.711) companding and back to 24 kHz."""
    narrow = soxr.resample(audio, SAMPLE_RATE_HZ, _TELEPHONE_HZ).clip(-1, 1)
    companded = np.sign(narrow) * np.log1p(_MU * np.abs(narrow)) / np.log1p(_MU)
    levels = np.round(companded * 127) / 127
    expanded = np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(_MU)) / _MU
    wide = soxr.resample(expanded.astype(np.float32), _TELEPHONE_HZ, SAMPLE_RATE_HZ)
    return fit(wide.astype(np.float32), len(audio))


def fit(audio: Audio, samples: int) -> Audio:
    """Cuts or fills up with zeros to `samples`."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio))))


def speed(audio: Audio, factor: float) -> Audio:
    """Plays `factor` times faster, pitch and formants included (another speaker, nearly)."""
    positions = np.arange(int(len(audio) / factor)) * factor
    return np.interp(positions, np.arange(len(audio)), audio).astype(np.float32)


def coloured_noise(samples: int, rng: np.random.Generator) -> Audio:
    """Unit-power noise whose spectrum falls by 0 to 2 powers of the frequency (white to brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    slope = rng.uniform(0.0, 1.0)
    spectrum /= np.maximum(np.arange(len(spectrum)), 20.0) ** slope
    noise = np.fft.irfft(spectrum, samples)
    return (noise / (noise.std() + 1e-9)).astype(np.float32)


def add_noise(audio: Audio, noise: Audio, ratio_db: float) -> Audio:
    """Adds `noise` [T] at a signal-to-noise ratio, measured over the whole of both."""
    power = np.sqrt(np.mean(audio**2) + 1e-9)
    scale = power / (np.sqrt(np.mean(noise**2)) + 1e-9) * 10 ** (-ratio_db / 20)
    return (audio + noise * scale).astype(np.float32)


def reverberate(audio: Audio, decay_s: float, rng: np.random.Generator) -> Audio:
    """A room: the direct sound and a tail of noise that falls by 60 dB in `decay_s`."""
    samples = int(decay_s * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(samples) * 10 ** (-3 * np.arange(samples) / samples)
    tail[: SAMPLE_RATE_HZ // 200] = 0  # nothing comes back within 5 ms
    response = tail * rng.uniform(0.1, 0.4) / np.sqrt(np.sum(tail**2))
    response[0] = 1.0
    return fftconvolve(audio, response)[: len(audio)].astype(np.float32)
