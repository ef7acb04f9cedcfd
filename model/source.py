"""A voice's source, streaming: pitch to a train of band-limited pulses, as windowed spectra.

A vocoder that only predicts spectra must keep every harmonic's phase in step from window to window
by itself; given a source whose phase runs on in the state, it only has to shape it (the neural
source-filter idea, arXiv 1810.11946, here in front of an inverse STFT).
"""

import dataclasses
import math

import torch
from torch import Tensor, nn

from model.streaming import PastState, State, keep, with_past

MIN_PITCH_HZ, MAX_PITCH_HZ = 60.0, 450.0
PITCH_BINS = 160  # of 22 cents


def pitch_of_bins() -> Tensor:
    """Hz of each pitch bin [PITCH_BINS], in equal steps of its logarithm.

    Pitch is chosen among bins because its phase adds up: a last bit that differs between a batch
    and a row alone would grow into another waveform, and a choice has no last bit.
    """
    steps = torch.linspace(0, 1, PITCH_BINS, dtype=torch.float64)
    return (MIN_PITCH_HZ * (MAX_PITCH_HZ / MIN_PITCH_HZ) ** steps).float()


@dataclasses.dataclass
class SourceState(State):
    """`turns` [B] (float64, 0..1) and `pitch_hz` [B] (zero: none yet) at the end of the last hop,
    and the `samples` that the next window still needs."""

    turns: Tensor
    pitch_hz: Tensor
    samples: PastState


class PulseSource(nn.Module):
    """Pitch [B, T] in Hz, one value a hop -> spectra of the source [B, T, window // 2 + 1].

    Window j ends with the samples of hop j. The source has unit power and a flat spectrum up to the
    highest harmonic below half the sample rate.
    """

    def __init__(self, rate_hz: int, window: int, hop: int) -> None:
        super().__init__()
        self.rate_hz, self.hop, self.past_steps = rate_hz, hop, window - hop
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("ramp", torch.arange(1, hop + 1) / hop, persistent=False)

    def init_state(self, batch: int) -> SourceState:
        """A fresh state for `batch` rows."""
        zeros = self.get_buffer("window").new_zeros
        samples = PastState(zeros(batch, self.past_steps, 1))
        return SourceState(zeros(batch, dtype=torch.float64), zeros(batch), samples)

    def forward(
        self, pitch_hz: Tensor, state: SourceState | None = None, active: Tensor | None = None
    ) -> Tensor:
        pitch_hz = pitch_hz.float().clamp(MIN_PITCH_HZ, MAX_PITCH_HZ)
        before = pitch_hz[:, 0]
        if state is not None:
            before = torch.where(state.pitch_hz > 0, state.pitch_hz, before)
        last = torch.cat([before[:, None], pitch_hz[:, :-1]], dim=1)
        ramp = self.get_buffer("ramp")
        # Pitch goes in a straight line through each hop; its integral is the phase, in turns.
        within = last[..., None] * ramp + (pitch_hz - last)[..., None] * ramp.square() / 2
        within = within.double() * (self.hop / self.rate_hz)  # [B, T, hop], since the hop began
        turns = within + torch.cumsum(within[..., -1:], dim=1) - within[..., -1:]
        if state is not None:
            turns = turns + state.turns[:, None, None]
            keep(state.turns, turns[:, -1, -1].remainder(1), active)
            keep(state.pitch_hz, pitch_hz[:, -1], active)
        phases = (turns.remainder(1) * (2 * math.pi)).float()
        samples = _pulses(phases, (self.rate_hz / 2 / pitch_hz).floor()[..., None])
        past = None if state is None else state.samples
        x = with_past(samples.flatten(1)[..., None], self.past_steps, past, active)
        window = self.get_buffer("window")
        return torch.fft.rfft(x[..., 0].unfold(1, len(window), self.hop) * window)


def _pulses(phases: Tensor, harmonics: Tensor) -> Tensor:
    """Sum of cos(k * phase) over k = 1..harmonics (Dirichlet's kernel), at unit power."""
    half = (phases / 2).sin()
    near_pulse = half.abs() < 1e-4
    kernel = ((harmonics + 0.5) * phases).sin() / torch.where(near_pulse, 1.0, 2 * half) - 0.5
    return torch.where(near_pulse, harmonics, kernel) * (2 / harmonics).sqrt()
