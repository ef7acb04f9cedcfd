"""Pitch of clean speech, to teach the decoder's pitch: normalised autocorrelation.

Boersma's method (1993): the autocorrelation of a window divided by that of the window itself.
"""

import torch
from torch import Tensor, nn

from model.frame import SAMPLE_RATE_HZ
from model.source import MAX_PITCH_HZ, MIN_PITCH_HZ

_DECIMATION = 3  # 8 kHz is plenty for pitch
_RATE_HZ = SAMPLE_RATE_HZ // _DECIMATION
_WINDOW, _HOP = 320, 80  # samples: 40 ms every 10 ms
_SIZE = 512
_MIN_LAG = int(_RATE_HZ / MAX_PITCH_HZ)
_MAX_LAG = min(int(_RATE_HZ / MIN_PITCH_HZ), _WINDOW * 5 // 12)
_VOICED = 0.55
_OCTAVE_COST = 0.06  # a lag twice as long must be better by this
_QUIET = 1e-3


class PitchTracker(nn.Module):
    """[B, T] at 24 kHz -> pitch in Hz [B, T / 240], zero where unvoiced.

    Frame j is about the 40 ms that end with sample (j + 1) * 240.
    """

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(_WINDOW)
        spectrum = torch.fft.rfft(window, _SIZE)
        reference = torch.fft.irfft(spectrum.abs().square(), _SIZE)[: _MAX_LAG + 2]
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("reference", reference / reference[0], persistent=False)
        lags = torch.arange(_MAX_LAG + 2).clamp(min=1)
        self.register_buffer("cost", _OCTAVE_COST * torch.log2(lags / _MIN_LAG), persistent=False)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        x = nn.functional.avg_pool1d(audio[:, None], _DECIMATION)[:, 0]
        x = nn.functional.pad(x, (_WINDOW - _HOP, 0)).unfold(1, _WINDOW, _HOP)
        x = (x - x.mean(-1, keepdim=True)) * self.get_buffer("window")
        power = torch.fft.rfft(x, _SIZE).abs().square()
        correlation = torch.fft.irfft(power, _SIZE)[..., : _MAX_LAG + 2]  # [B, frames, lags]
        energy = correlation[..., :1]
        similarity = correlation / (energy + 1e-9) / self.get_buffer("reference")
        judged = (similarity - self.get_buffer("cost"))[..., _MIN_LAG : _MAX_LAG + 1]
        lag = judged.argmax(-1, keepdim=True) + _MIN_LAG
        left, peak, right = (similarity.gather(-1, lag + step) for step in (-1, 0, 1))
        curve = (left - 2 * peak + right).clamp(max=-1e-6)
        exact = lag + (0.5 * (left - right) / curve).clamp(-0.5, 0.5)
        is_voiced = (peak > _VOICED) & (energy > _QUIET)
        return torch.where(is_voiced, _RATE_HZ / exact, 0.0)[..., 0]
