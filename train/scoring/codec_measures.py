"""A codec over many recordings: codes, reconstructions, code use and real-time factors."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.codec import Codec, encode_file, reconstruct
from model.frame import FRAME_RATE_HZ, FRAME_SIZE

Audio = NDArray[np.float32]
Codes = NDArray[np.int64]
_BATCH = 16
_WARM_UP_STEPS = 8


def _batched(
    audios: Sequence[Audio], work: Callable[[Tensor], Tensor], advance: Callable[[int], object]
) -> list[NDArray]:
    """Runs `work` ([B, T] -> [B, ...]) over recordings of like length; they keep their order."""
    order = sorted(range(len(audios)), key=lambda number: len(audios[number]))
    results: list[NDArray] = [np.empty(0)] * len(audios)
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        longest = len(audios[rows[-1]])
        batch = np.stack([np.pad(audios[row], (0, longest - len(audios[row]))) for row in rows])
        done = work(torch.from_numpy(batch)).numpy()
        for row, result in zip(rows, done, strict=True):
            results[row] = result
        advance(len(rows))
    return results


def reconstruct_all(
    codec: Codec, audios: Sequence[Audio], advance: Callable[[int], object] = lambda count: None
) -> list[Audio]:
    """Every recording through the codec and back, of its own length and on its own clock."""
    done = _batched(audios, lambda pcm: reconstruct(codec, pcm), advance)
    return [heard[: len(audio)] for heard, audio in zip(done, audios, strict=True)]


def encode_all(
    codec: Codec, audios: Sequence[Audio], advance: Callable[[int], object] = lambda count: None
) -> list[Codes]:
    """Codes [frames, K] of every recording."""
    done = _batched(audios, lambda pcm: encode_file(codec, pcm).codes, advance)
    return [
        codes[: -(-len(audio) // FRAME_SIZE)] for codes, audio in zip(done, audios, strict=True)
    ]


class CodeUse(NamedTuple):
    """Of each codebook: the share of its codes that occur, and their entropy in bits."""

    share: list[float]
    entropy_bits: list[float]
    frames: int


def code_use(codes: Sequence[Codes], codebook_size: int) -> CodeUse:
    """Counts over all frames of all recordings."""
    frames = np.concatenate(codes)  # [frames, K]
    shares, entropies = [], []
    for column in frames.T:
        counts = np.bincount(column, minlength=codebook_size)
        chances = counts[counts > 0] / len(column)
        shares.append(float(np.mean(counts > 0)))
        entropies.append(float(-np.sum(chances * np.log2(chances))))
    return CodeUse(shares, entropies, len(frames))


@torch.inference_mode()
def step_seconds(codec: Codec, audio: Audio, batch: int, steps: int) -> NDArray[np.float64]:
    """Wall time of each of `steps` streaming steps, encode and decode, on one thread [steps].

    `audio` must hold at least one frame; rows start at different frames of it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    frames = torch.from_numpy(audio[: len(audio) // FRAME_SIZE * FRAME_SIZE]).view(-1, FRAME_SIZE)
    state = codec.init_state(batch)
    seconds = []
    try:
        for step in range(_WARM_UP_STEPS + steps):
            pcm = frames[(torch.arange(batch) * 7 + step) % len(frames)]
            start = time.perf_counter()
            codec.decode(codec.encode(pcm, state).codes, state)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return np.array(seconds[_WARM_UP_STEPS:])


def real_time_factors(codec: Codec, audio: Audio, batch: int, steps: int) -> NDArray[np.float64]:
    """Seconds of work for a second of one stream's audio, of each step [steps]."""
    return step_seconds(codec, audio, batch, steps) * FRAME_RATE_HZ / batch
