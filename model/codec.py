"""The codec interface: 80 ms of speech to `K` integers and back, streaming.

    state = codec.init_state(batch)
    frame = codec.encode(pcm, state)          # [B, frame_size] -> codes [B, K], latent [B, D]
    pcm   = codec.decode(frame.codes, state)  # [B, K] -> [B, frame_size]

Whole files are a loop over it, so both give the same numbers.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from model.frame import FRAME_RATE_HZ, FRAME_SIZE, SAMPLE_RATE_HZ
from model.streaming import State


class CodecFrame(NamedTuple):
    """One frame of every row: `codes` int64 [B, K], `latent` float32 [B, D] (not quantised)."""

    codes: Tensor
    latent: Tensor


StateT = TypeVar("StateT", bound=State)


class Codec(nn.Module, ABC, Generic[StateT]):
    """What every codec is: 24 kHz in and out, one frame of 80 ms a step.

    `delay_samples` is by how much the decoded audio is later than the audio that was encoded,
    beyond the frame itself.
    """

    num_codebooks: int
    codebook_size: int
    latent_dim: int
    delay_samples: int

    @property
    def bitrate_bps(self) -> float:
        """Bits a second of the codes."""
        bits = (self.codebook_size - 1).bit_length()
        return FRAME_RATE_HZ * self.num_codebooks * bits

    @abstractmethod
    def init_state(self, batch: int) -> StateT:
        """A fresh state of encoder and decoder for `batch` rows."""

    def encode(self, pcm: Tensor, state: StateT, active: Tensor | None = None) -> CodecFrame:
        """float32 [B, 1920] in -1..1 -> one `CodecFrame`. Raises ValueError as `check_pcm`."""
        latent = self.hear(pcm, state, active)
        return CodecFrame(self.quantize(latent), latent)

    @abstractmethod
    def hear(self, pcm: Tensor, state: StateT, active: Tensor | None = None) -> Tensor:
        """The latent of `encode` alone, float32 [B, D]: all that is remembered happens here."""

    @abstractmethod
    def quantize(self, latent: Tensor) -> Tensor:
        """float32 [B, D] -> codes int64 [B, K]."""

    @abstractmethod
    def decode(self, codes: Tensor, state: StateT, active: Tensor | None = None) -> Tensor:
        """int64 [B, K] -> float32 [B, 1920]. Raises ValueError as `check_codes`."""


def check_pcm(pcm: Tensor) -> None:
    """Raises ValueError unless `pcm` is finite float32 [B, 1920]."""
    if pcm.dim() != 2 or pcm.shape[1] != FRAME_SIZE or pcm.shape[0] == 0:
        raise ValueError(f"pcm has shape {list(pcm.shape)}: must be [batch, {FRAME_SIZE}]")
    if pcm.dtype != torch.float32:
        raise ValueError(f"pcm is {pcm.dtype}: must be torch.float32 in -1..1")
    if not pcm.isfinite().all():
        rows = (~pcm.isfinite()).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"pcm holds NaN or infinity in rows {rows}: must be finite")


def check_codes(codes: Tensor, codec: Codec) -> None:
    """Raises ValueError unless `codes` is int64 [B, K] in 0..codebook_size-1."""
    if codes.dim() != 2 or codes.shape[1] != codec.num_codebooks or codes.shape[0] == 0:
        raise ValueError(
            f"codes has shape {list(codes.shape)}: must be [batch, {codec.num_codebooks}]"
        )
    if codes.dtype != torch.int64:
        raise ValueError(f"codes is {codes.dtype}: must be torch.int64")
    if codes.min() < 0 or codes.max() >= codec.codebook_size:
        raise ValueError(
            f"codes go from {codes.min().item()} to {codes.max().item()}: "
            f"must lie in 0..{codec.codebook_size - 1}"
        )


def check_rate(rate_hz: int) -> None:
    """Raises ValueError unless the rate is the one every codec takes."""
    if rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(
            f"audio is at {rate_hz} Hz: must be {SAMPLE_RATE_HZ} Hz, resample it first (soxr)"
        )


def frames_of(pcm: Tensor) -> Iterator[Tensor]:
    """Cuts [B, T] into frames [B, 1920]; the last one is filled up with zeros.

    Raises ValueError where there is no sample at all.
    """
    if pcm.dim() != 2 or pcm.shape[0] == 0 or pcm.shape[1] == 0:
        raise ValueError(f"pcm has shape {list(pcm.shape)}: must be [batch, samples], not empty")
    for frame in pcm.split(FRAME_SIZE, dim=1):
        yield torch.nn.functional.pad(frame, (0, FRAME_SIZE - frame.shape[1]))


@torch.inference_mode()
def encode_file(codec: Codec, pcm: Tensor) -> CodecFrame:
    """[B, T] -> codes [B, frames, K] and latents [B, frames, D], frame by frame."""
    state = codec.init_state(pcm.shape[0])
    frames = [codec.encode(frame, state) for frame in frames_of(pcm)]
    return CodecFrame(
        torch.stack([frame.codes for frame in frames], dim=1),
        torch.stack([frame.latent for frame in frames], dim=1),
    )


@torch.inference_mode()
def decode_file(codec: Codec, codes: Tensor) -> Tensor:
    """[B, frames, K] -> [B, frames * 1920], frame by frame."""
    state = codec.init_state(codes.shape[0])
    return torch.cat([codec.decode(codes[:, t], state) for t in range(codes.shape[1])], dim=1)


@torch.inference_mode()
def reconstruct(codec: Codec, pcm: Tensor) -> Tensor:
    """[B, T] -> [B, T]: through the codec and back, shifted so that it lies on the original."""
    samples = pcm.shape[1]
    codes = encode_file(codec, torch.nn.functional.pad(pcm, (0, codec.delay_samples))).codes
    return decode_file(codec, codes)[:, codec.delay_samples :][:, :samples]
