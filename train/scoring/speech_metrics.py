"""How near a reconstruction is to its original, and how good it sounds: float32 [T] at 16 kHz."""

import functools
import importlib.util
import warnings
from pathlib import Path

import librosa
import numpy as np
import soxr
from numpy.typing import NDArray
from pesq import PesqError
from pesq import pesq as pesq_of
from pystoi import stoi

from data.voices.utterance import SAMPLE_RATE_HZ

RATE_HZ = 16_000
Audio = NDArray[np.float32]
_MELS = 80
_WINDOW = 1024
_HOP = 160
_FLOOR = 1e-5
_LOWEST_PESQ = 1.0  # given where PESQ finds no speech in the reconstruction
_MIN_VOICED_S = 0.4


def at_16khz(audio: Audio) -> Audio:
    """24 kHz -> 16 kHz, what every measure here takes."""
    return soxr.resample(audio, SAMPLE_RATE_HZ, RATE_HZ).astype(np.float32)


def pesq_wb(original: Audio, heard: Audio) -> float:
    """Wide-band PESQ, 1.0 to 4.6."""
    score = pesq_of(RATE_HZ, original, heard, "wb", on_error=PesqError.RETURN_VALUES)
    return float(score) if score > _LOWEST_PESQ else _LOWEST_PESQ  # -1 and NaN mean no speech


def estoi(original: Audio, heard: Audio) -> float:
    """Extended short-time objective intelligibility, up to 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # under 0.4 s of speech it gives 1e-5
        return float(stoi(original, heard, RATE_HZ, extended=True))


def _log_mel(audio: Audio) -> Audio:
    spectrum = np.abs(librosa.stft(audio, n_fft=_WINDOW, hop_length=_HOP))
    filters = librosa.filters.mel(sr=RATE_HZ, n_fft=_WINDOW, n_mels=_MELS)
    return np.log(np.maximum(filters @ spectrum, _FLOOR))  # [mels, frames]


def log_mel_distance(original: Audio, heard: Audio) -> float:
    """Mean absolute difference of the natural logarithms of 80 mel amplitudes."""
    return float(np.mean(np.abs(_log_mel(original) - _log_mel(heard))))


@functools.cache
def _speaker_encoder():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports are deprecated ones
        from resemblyzer import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)


def speaker_embedding(audio: Audio) -> Audio:
    """Resemblyzer's embedding, of unit length; pauses are cut out where speech is left."""
    encoder = _speaker_encoder()
    from resemblyzer import preprocess_wav

    voiced = preprocess_wav(audio) if np.abs(audio).max() > 0 else audio
    long_enough = len(voiced) >= _MIN_VOICED_S * RATE_HZ
    return np.asarray(encoder.embed_utterance(voiced if long_enough else audio), np.float32)


def speaker_similarity(original: Audio, heard: Audio) -> float:
    """Cosine of the two speaker embeddings."""
    return float(speaker_embedding(original) @ speaker_embedding(heard))


class _Dnsmos:
    """speechmos' DNSMOS, its overall score alone: a third less work, and one thread."""

    seconds = 9.01  # the model's window; shorter audio is repeated
    overall = np.poly1d([-0.06766283, 1.11546468, 0.04602535])

    def __init__(self) -> None:
        import onnxruntime

        package = importlib.util.find_spec("speechmos")
        if package is None or package.origin is None:
            raise ModuleNotFoundError("speechmos is not installed: run `make setup`")
        path = Path(package.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options)

    def __call__(self, audio: Audio) -> float:
        samples = int(self.seconds * RATE_HZ)
        while len(audio) < samples:
            audio = np.append(audio, audio)
        hops = int(np.floor(len(audio) / RATE_HZ) - self.seconds) + 1
        starts = [hop * RATE_HZ for hop in range(hops) if hop * RATE_HZ + samples <= len(audio)]
        windows = [audio[None, start : start + samples] for start in starts]
        raw = [np.asarray(self.session.run(None, {"input_1": w})[0])[0, 2] for w in windows]
        return float(np.mean(self.overall(np.array(raw))))


@functools.cache
def _dnsmos() -> _Dnsmos:
    return _Dnsmos()


def dnsmos(audio: Audio) -> float:
    """DNSMOS P.835 overall quality, 1 to 5, without a reference."""
    if len(audio) == 0:
        raise ValueError("audio is empty")
    return _dnsmos()(audio.clip(-1, 1).astype(np.float32))


def score(original: Audio, heard: Audio) -> dict[str, float]:
    """Every measure of one 24 kHz reconstruction that lies on its original."""
    if original.shape != heard.shape or original.ndim != 1:
        raise ValueError(f"shapes {original.shape} and {heard.shape}: must be the same [samples]")
    first, second = at_16khz(original), at_16khz(heard)
    return {
        "pesq_wb": pesq_wb(first, second),
        "estoi": estoi(first, second),
        "log_mel_distance": log_mel_distance(first, second),
        "speaker_similarity": speaker_similarity(first, second),
    }
