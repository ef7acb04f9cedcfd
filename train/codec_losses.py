"""Spectral losses of the codec, and the adversarial ones."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.frame import SAMPLE_RATE_HZ
from model.spectrogram import mel_filters

_FLOOR = 1e-3
_RESOLUTIONS = ((256, 40), (512, 64), (1024, 80), (2048, 100))  # window in samples, mels


class SpectralLoss(nn.Module):
    """L1 of log-mels and relative error of magnitudes at several window sizes.

    As the multi-resolution STFT loss of Parallel WaveGAN (arXiv 1910.11480), with mels as in DAC
    (arXiv 2306.06546).
    """

    def __init__(self) -> None:
        super().__init__()
        for window, mels in _RESOLUTIONS:
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)
            filters = mel_filters(SAMPLE_RATE_HZ, window, mels) * (512 / window)
            self.register_buffer(f"filters_{window}", filters, persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Two waveforms [B, T] -> scalar."""
        losses = []
        for window, _ in _RESOLUTIONS:
            magnitudes = [self._magnitudes(x, window) for x in (output, target)]
            filters = self.get_buffer(f"filters_{window}")
            made, wanted = (torch.log(m @ filters + _FLOOR) for m in magnitudes)
            error = (magnitudes[0] - magnitudes[1]).norm(dim=(1, 2))
            relative = error / (magnitudes[1].norm(dim=(1, 2)) + 1.0)
            losses.append(F.l1_loss(made, wanted) + 0.5 * relative.mean())
        return torch.stack(losses).mean()

    def _magnitudes(self, audio: Tensor, window: int) -> Tensor:
        """[B, T] -> [B, windows, bins]; half-overlapping windows do, since crops lie at random."""
        windows = audio.unfold(1, window, window // 2) * self.get_buffer(f"window_{window}")
        spectrum = torch.fft.rfft(windows)
        # A complex number's abs() takes twice as long on a CPU.
        return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()


def discriminator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Least-squares loss (arXiv 1611.04076) on the last layer of each discriminator."""
    terms = [
        (1 - r[-1]).square().mean() + f[-1].square().mean() for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def generator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """(adversarial, feature matching) losses of the codec, HiFi-GAN's (arXiv 2010.05646)."""
    adversarial = torch.stack([(1 - layers[-1]).square().mean() for layers in fake]).mean()
    matching = [
        (f - r.detach()).abs().mean() / (r.detach().abs().mean() + 1e-3)
        for real_layers, fake_layers in zip(real, fake, strict=True)
        for r, f in zip(real_layers[:-1], fake_layers[:-1], strict=True)
    ]
    return adversarial, torch.stack(matching).mean()
