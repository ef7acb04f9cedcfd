"""Duologue's own codec: 80 ms of 24 kHz speech <-> 8 codes, streaming, on a CPU.

    pcm -> log-mel (100 Hz) -> ConvNeXt (50 Hz) -> ConvNeXt (12.5 Hz) -> latent
        -> 1 semantic + 7 acoustic codes
        -> ConvNeXt (12.5 Hz) -> ConvNeXt (50 Hz) -> ConvNeXt (100 Hz) -> inverse STFT -> pcm
                                          '-> pitch -> pulses, shaped ----^

The encoder sees no future beyond its frame; the decoded audio is `delay_samples` later than the
frame, so that its overlapping windows can be completed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.codec import Codec, check_codes, check_pcm
from model.convnext import ConvNext, ConvNextState
from model.frame import FRAME_SIZE, SAMPLE_RATE_HZ
from model.ops import kept, kernels_for, linear, roots_of
from model.quantizer import SplitQuantizer
from model.source import PITCH_BINS, PulseSource, SourceState, pitch_of_bins
from model.spectrogram import InverseStft, LogMel
from model.streaming import OverlapState, PastState, State


@dataclass(frozen=True)
class NativeCodecConfig:
    """Sizes of the codec. Widths are channels, blocks are ConvNeXt blocks at each rate."""

    num_codebooks: int = 8
    codebook_size: int = 1024
    semantic_dim: int = 48
    acoustic_dim: int = 48
    mels: int = 80
    window: int = 960  # samples, of analysis and synthesis
    hop: int = 240  # samples: 100 Hz
    delay_samples: int = 480
    width: int = 256  # at 100 and 50 Hz
    hidden: int = 640
    slow_width: int = 320  # at 12.5 Hz
    slow_hidden: int = 512
    encoder_blocks: int = 3
    encoder_slow_blocks: int = 2
    decoder_slow_blocks: int = 2
    decoder_blocks: int = 2
    vocoder_blocks: int = 4
    source_bands: int = 121  # of the filter that shapes the pulses, from 0 Hz to half the rate

    def __post_init__(self) -> None:
        if FRAME_SIZE % (8 * self.hop) or FRAME_SIZE // self.hop != 8:
            raise ValueError(f"hop {self.hop}: a frame of {FRAME_SIZE} samples must hold 8")
        if not 0 <= self.delay_samples < self.window:
            raise ValueError(f"delay_samples {self.delay_samples}: must be in 0..{self.window - 1}")
        if self.num_codebooks < 2:
            raise ValueError(f"num_codebooks {self.num_codebooks}: must be at least 2")


@dataclass
class EncoderState(State):
    """Encoder's past, by rate."""

    mel: PastState
    fast: ConvNextState
    slow: ConvNextState


class Encoder(nn.Module):
    """pcm [B, frames * 1920] -> latent [B, frames, semantic_dim + acoustic_dim]."""

    def __init__(self, config: NativeCodecConfig) -> None:
        super().__init__()
        self.mel = LogMel(SAMPLE_RATE_HZ, config.window, config.hop, config.mels)
        self.mel_to_fast = nn.Linear(2 * config.mels, config.width)
        self.fast = ConvNext(config.width, config.hidden, 7, config.encoder_blocks)
        self.fast_to_slow = nn.Linear(4 * config.width, config.slow_width)
        self.slow = ConvNext(config.slow_width, config.slow_hidden, 5, config.encoder_slow_blocks)
        self.norm = nn.LayerNorm(config.slow_width)
        self.to_latent = nn.Linear(config.slow_width, config.semantic_dim + config.acoustic_dim)

    def init_state(self, batch: int) -> EncoderState:
        """A fresh state for `batch` rows."""
        return EncoderState(
            self.mel.init_state(batch), self.fast.init_state(batch), self.slow.init_state(batch)
        )

    def forward(
        self, pcm: Tensor, state: EncoderState | None = None, active: Tensor | None = None
    ) -> Tensor:
        mel_state, fast_state, slow_state = _parts(state, "mel", "fast", "slow")
        mel = self.mel(pcm, mel_state, active)  # [B, 8 * frames, mels]
        h = linear(self.mel_to_fast, _stack(mel, 2))  # [B, 4 * frames, width]
        h = self.fast(h, fast_state, active)
        h = linear(self.fast_to_slow, _stack(h, 4))  # [B, frames, slow_width]
        h = self.slow(h, slow_state, active)
        return linear(self.to_latent, h, self.norm)


@dataclass
class DecoderState(State):
    """Decoder's past, by rate, and the windows that still overlap."""

    slow: ConvNextState
    fast: ConvNextState
    vocoder: ConvNextState
    source: SourceState
    output: OverlapState


class Decoder(nn.Module):
    """Codebook vectors [B, frames, Ds], [B, frames, Da] -> pcm [B, frames * 1920]."""

    def __init__(self, config: NativeCodecConfig) -> None:
        super().__init__()
        self.from_semantic = nn.Linear(config.semantic_dim, config.slow_width)
        self.from_acoustic = nn.Linear(config.acoustic_dim, config.slow_width, bias=False)
        self.slow = ConvNext(config.slow_width, config.slow_hidden, 5, config.decoder_slow_blocks)
        self.slow_to_fast = nn.Linear(config.slow_width, 4 * config.width)
        self.fast = ConvNext(config.width, config.hidden, 7, config.decoder_blocks)
        self.fast_to_vocoder = nn.Linear(config.width, 2 * config.width)
        self.vocoder = ConvNext(config.width, config.hidden, 7, config.vocoder_blocks)
        self.norm = nn.LayerNorm(config.width)
        self.to_spectrum = nn.Linear(config.width, config.window + 2)
        self.to_pitch = nn.Linear(config.width, 2 * PITCH_BINS)  # two hops a 50 Hz step
        self.register_buffer("bins_hz", pitch_of_bins(), persistent=False)
        self.source = PulseSource(SAMPLE_RATE_HZ, config.window, config.hop)
        self.to_source_filter = nn.Linear(config.width, 2 * config.source_bands)
        self.output = InverseStft(config.window, config.hop)

    def init_state(self, batch: int) -> DecoderState:
        """A fresh state for `batch` rows."""
        return DecoderState(
            self.slow.init_state(batch),
            self.fast.init_state(batch),
            self.vocoder.init_state(batch),
            self.source.init_state(batch),
            self.output.init_state(batch),
        )

    def features(
        self,
        semantic: Tensor,
        acoustic: Tensor,
        state: DecoderState | None = None,
        active: Tensor | None = None,
    ) -> Tensor:
        """Codebook vectors -> what the vocoder speaks from [B, 4 * frames, width], at 50 Hz."""
        slow_state, fast_state = _parts(state, "slow", "fast")
        h = linear(self.from_semantic, semantic) + linear(self.from_acoustic, acoustic)
        h = self.slow(h, slow_state, active)  # [B, frames, slow_width]
        h = (
            linear(self.slow_to_fast, h).unflatten(2, (4, -1)).flatten(1, 2)
        )  # [B, 4 * frames, width]
        return self.fast(h, fast_state, active)

    def pitch_logits(self, features: Tensor) -> Tensor:
        """Features [B, T, width] at 50 Hz -> logits of each hop's pitch [B, 2 * T, PITCH_BINS]."""
        return linear(self.to_pitch, features).unflatten(2, (2, -1)).flatten(1, 2)

    def pitch_hz(self, logits: Tensor) -> Tensor:
        """The likeliest pitch [B, 2 * T] in Hz."""
        return self.get_buffer("bins_hz")[logits.argmax(-1)]

    def speak(
        self,
        features: Tensor,
        pitch_hz: Tensor,
        state: DecoderState | None = None,
        active: Tensor | None = None,
    ) -> Tensor:
        """Features [B, T, width] at 50 Hz and pitch [B, 2 * T] -> pcm [B, T * 480]."""
        vocoder_state, source_state, output_state = _parts(state, "vocoder", "source", "output")
        h = linear(self.fast_to_vocoder, features).unflatten(2, (2, -1)).flatten(1, 2)
        h = self.vocoder(h, vocoder_state, active)  # [B, 2 * T, width]
        filters = linear(self.to_source_filter, h, self.norm)
        spectrum = linear(self.to_spectrum, h, self.norm)
        if state is not None and (ops := kernels_for(filters)):
            parts = (filters, spectrum, pitch_hz.contiguous())
            return self._voice(ops, *parts, state, active)
        pulses = self.source(pitch_hz, source_state, active)  # [B, 2 * T, bins]
        filters = filters.unflatten(2, (2, -1)).flatten(0, 1).float()
        filters = F.interpolate(filters, pulses.shape[2], mode="linear", align_corners=True)
        voiced = pulses * _polar(filters.flatten(1).unflatten(0, pulses.shape[:2]))
        unvoiced = _polar(spectrum.float())
        return self.output(voiced + unvoiced, output_state, active)

    def _voice(
        self,
        ops: Any,
        filters: Tensor,
        spectrum: Tensor,
        pitch_hz: Tensor,
        state: DecoderState,
        active: Tensor | None,
    ) -> Tensor:
        """Source, filters and inverse transform as one operator."""
        window, source = self.output.get_buffer("window"), state.source
        return ops.voice(
            pitch_hz,
            filters,
            spectrum,
            window,
            kept(self.output, lambda: roots_of(len(window))),
            source.turns,
            source.pitch_hz,
            source.samples.past,
            state.output.overlap,
            active,
            self.output.hop,
            self.source.rate_hz,
        )

    def forward(
        self,
        semantic: Tensor,
        acoustic: Tensor,
        state: DecoderState | None = None,
        active: Tensor | None = None,
    ) -> Tensor:
        features = self.features(semantic, acoustic, state, active)
        pitch_hz = self.pitch_hz(self.pitch_logits(features))
        return self.speak(features, pitch_hz, state, active)


@dataclass
class NativeCodecState(State):
    """State of both directions."""

    encoder: EncoderState
    decoder: DecoderState


class NativeCodec(Codec[NativeCodecState]):
    """The codec behind the common interface; its parts are public for training."""

    def __init__(self, config: NativeCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.num_codebooks = config.num_codebooks
        self.codebook_size = config.codebook_size
        self.latent_dim = config.semantic_dim + config.acoustic_dim
        self.delay_samples = config.delay_samples
        self.encoder = Encoder(config)
        self.quantizer = SplitQuantizer(
            config.semantic_dim, config.acoustic_dim, config.codebook_size, config.num_codebooks
        )
        self.decoder = Decoder(config)

    def init_state(self, batch: int) -> NativeCodecState:
        return NativeCodecState(self.encoder.init_state(batch), self.decoder.init_state(batch))

    def hear(self, pcm: Tensor, state: NativeCodecState, active: Tensor | None = None) -> Tensor:
        check_pcm(pcm)
        return self.encoder(pcm, state.encoder, active)[:, 0]

    def quantize(self, latent: Tensor) -> Tensor:
        return self.quantizer.encode(latent)

    def decode(
        self, codes: Tensor, state: NativeCodecState, active: Tensor | None = None
    ) -> Tensor:
        check_codes(codes, self)
        semantic, acoustic = self.quantizer.lookup(codes[:, None])
        return self.decoder(semantic, acoustic, state.decoder, active)


def _polar(x: Tensor) -> Tensor:
    """Natural-log magnitudes and phases [..., 2 * bins] -> complex spectrum [..., bins]."""
    log_magnitude, phase = x.chunk(2, dim=-1)
    return torch.polar(log_magnitude.clamp(max=5.0).exp(), phase)


def _parts(state: State | None, *names: str) -> list:
    """The named sub-states, or None for each where there is no state to keep."""
    return [None if state is None else getattr(state, name) for name in names]


def _stack(x: Tensor, steps: int) -> Tensor:
    """Joins `steps` neighbours in time: [B, T, C] -> [B, T / steps, steps * C]."""
    return x.unflatten(1, (-1, steps)).flatten(2)
