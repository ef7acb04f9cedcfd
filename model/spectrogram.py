"""Streaming spectra: waveform to log-mel frames, and complex spectra back to a waveform."""

import math

import torch
from torch import Tensor, nn

from model.ops import kept, kernels_for, pack, roots_of
from model.streaming import OverlapState, PastState, overlap_add, with_past

_FLOOR = 1e-3


def mel_filters(rate_hz: int, window: int, mels: int) -> Tensor:
    """Triangular mel filters (HTK scale, 20 Hz to half the rate) [window // 2 + 1, mels]."""

    def to_mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    points = torch.linspace(to_mel(20), to_mel(rate_hz / 2), mels + 2)
    points_hz = 700 * (10 ** (points / 2595) - 1)
    bins_hz = torch.linspace(0, rate_hz / 2, window // 2 + 1)
    low, centre, high = points_hz[:-2, None], points_hz[1:-1, None], points_hz[2:, None]
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0).T.contiguous()


class LogMel(nn.Module):
    """[B, T] -> natural-log mel magnitudes [B, T / hop, mels], about zero mean and unit variance.

    Frame j ends with sample (j + 1) * hop: it sees no future.
    """

    def __init__(self, rate_hz: int, window: int, hop: int, mels: int) -> None:
        super().__init__()
        self.hop, self.past_steps = hop, window - hop
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filters(rate_hz, window, mels), persistent=False)

    def init_state(self, batch: int) -> PastState:
        """A fresh state for `batch` rows."""
        return PastState(self.get_buffer("window").new_zeros(batch, self.past_steps, 1))

    def forward(
        self, pcm: Tensor, state: PastState | None = None, active: Tensor | None = None
    ) -> Tensor:
        if pcm.shape[1] % self.hop:
            raise ValueError(f"{pcm.shape[1]} samples: must be a multiple of hop {self.hop}")
        window = self.get_buffer("window")
        if state is not None and (ops := kernels_for(pcm)):
            filters, roots = kept(self, self._constants)
            mels = self.get_buffer("filters").shape[1]
            past = state.past
            return ops.log_mel(
                pcm.contiguous(), filters, window, roots, past, active, self.hop, mels
            )
        x = with_past(pcm[..., None], self.past_steps, state, active)[..., 0]
        spectrum = torch.fft.rfft(x.unfold(1, len(window), self.hop) * window)  # [B, T, bins]
        # Twice as fast on a CPU as the absolute value of a complex number.
        magnitude = (spectrum.real.square() + spectrum.imag.square()).sqrt()
        return (torch.log(magnitude @ self.get_buffer("filters") + _FLOOR) + 3.5) / 2

    def _constants(self) -> tuple[Tensor, Tensor]:
        """The filters and the transform's roots as the operator wants them."""
        return pack(self.get_buffer("filters").T), roots_of(len(self.get_buffer("window")))


class InverseStft(nn.Module):
    """Complex spectra [B, T, window // 2 + 1] -> waveform [B, T * hop].

    The head of Vocos (arXiv 2306.00814), streaming: window j begins at sample j * hop, and its
    first hop is complete when it has come.
    """

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def init_state(self, batch: int) -> OverlapState:
        """A fresh state for `batch` rows."""
        window = self.get_buffer("window")
        return OverlapState(window.new_zeros(batch, len(window) - self.hop, 1))

    def forward(
        self, spectrum: Tensor, state: OverlapState | None = None, active: Tensor | None = None
    ) -> Tensor:
        window = self.get_buffer("window")
        frames = torch.fft.irfft(spectrum, n=len(window)) * window  # [B, T, window]
        return overlap_add(frames[..., None], self.hop, state, active)[..., 0]
