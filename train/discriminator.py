"""Discriminators on complex spectrograms at several resolutions.

The multi-scale STFT discriminator of EnCodec (arXiv 2210.13438), made small for a CPU: it strides
early along frequency, where most of the positions are.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WINDOWS = (512, 1024, 2048)  # samples; hop is a half
_CHANNELS = (16, 32, 64)


class SpectrogramDiscriminator(nn.Module):
    """[B, T] -> the activations of every layer; the last one [B, 1, frames, bands] judges."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        weight_norm = nn.utils.parametrizations.weight_norm
        channels = (2, *_CHANNELS)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (3, 8), stride=(1, 4), padding=(1, 2)))
            for a, b in itertools.pairwise(channels)
        )
        self.judge = weight_norm(nn.Conv2d(_CHANNELS[-1], 1, 3, padding=1))

    def forward(self, audio: Tensor) -> list[Tensor]:
        window = self.get_buffer("window")
        size = len(window)
        spectrum = torch.fft.rfft(audio.unfold(1, size, size // 2) * window / size**0.5)
        # A square root on magnitudes keeps quiet bands in sight.
        spectrum = spectrum / (spectrum.abs() + 1e-4).sqrt()
        h = torch.view_as_real(spectrum).permute(0, 3, 1, 2)  # [B, 2, frames, bins]
        outputs = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.1)
            outputs.append(h)
        return [*outputs, self.judge(h)]


class Discriminators(nn.Module):
    """One discriminator a resolution; [B, T] -> a list of activations each."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(SpectrogramDiscriminator(size) for size in _WINDOWS)

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        return [discriminator(audio) for discriminator in self.discriminators]
