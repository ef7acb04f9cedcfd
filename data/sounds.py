"""What else is heard in a call: coughs, hold music, a room. Mono float32 [T] at 24 kHz."""

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import butter, sosfilt

from data.augment import Audio
from data.recordings import music_of, read
from data.sentences import Split
from data.voices.utterance import SAMPLE_RATE_HZ

_COUGH_HZ = (250.0, 3_500.0)
_MUSIC_S = (8.0, 20.0)
_FLAT_BELOW_HZ = 100.0
_FALLS_BY = (0.5, 1.0)  # powers of the frequency: pink (3 dB an octave) to brown (6 dB)
_LOUDNESS = 0.05  # of music, root mean square


def cough(rng: np.random.Generator) -> Audio:
    """One to three bursts of breath."""
    bands = butter(2, _COUGH_HZ, "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    bursts = []
    for _ in range(rng.integers(1, 4)):
        samples = int(rng.uniform(0.12, 0.3) * SAMPLE_RATE_HZ)
        times = np.arange(samples) / SAMPLE_RATE_HZ
        envelope = np.minimum(times / 0.01, 1.0) * np.exp(-times / rng.uniform(0.04, 0.09))
        burst = np.asarray(sosfilt(bands, rng.standard_normal(samples))) * envelope
        bursts += [burst, np.zeros(int(rng.uniform(0.05, 0.2) * SAMPLE_RATE_HZ))]
    sound = np.concatenate(bursts)
    return (sound * rng.uniform(0.15, 0.4) / np.abs(sound).max()).astype(np.float32)


def room_noise(samples: int, rng: np.random.Generator) -> Audio:
    """Steady noise of unit power, as of rooms, streets and cars: most of it is low."""
    length: int = next_fast_len(samples, real=True)  # pyright: ignore[reportAssignmentType]
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE_HZ)
    spectrum /= np.maximum(hz, _FLAT_BELOW_HZ) ** rng.uniform(*_FALLS_BY)
    noise = np.fft.irfft(spectrum, length)[:samples]
    return (noise / (noise.std() + 1e-9)).astype(np.float32)


def silent_music(rng: np.random.Generator) -> Audio:
    """Zeros as long as hold music lasts, for what nobody hears."""
    return np.zeros(int(rng.uniform(*_MUSIC_S) * SAMPLE_RATE_HZ), np.float32)


def music(split: Split, rng: np.random.Generator) -> Audio:
    """Some seconds of hold music; each piece belongs to training or to tests."""
    pieces = music_of(split)
    piece = read(pieces[rng.integers(len(pieces))].path)
    samples = int(rng.uniform(*_MUSIC_S) * SAMPLE_RATE_HZ)
    first = int(rng.integers(max(1, len(piece) - samples)))
    part = piece[first : first + samples]
    return part * np.float32(_LOUDNESS / (np.sqrt(np.mean(part**2)) + 1e-9))
