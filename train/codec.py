"""Training of the native codec as a LightningModule.

Losses: log-mels read off the decoder's features (fast and stable), spectra of the spoken waveform,
phones read off the first codebook alone (which makes it semantic), commitment to the codebooks and,
in the last stage, discriminators. Later stages (`freeze_encoder`) tune the decoder to the agent
voices: only they are ever decoded in a call.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from data.voices.phones import PHONES
from model.checkpoint import load_codec
from model.frame import FRAME_SIZE
from model.native_codec import NativeCodec, NativeCodecConfig
from model.quantizer import Quantized
from train.codebooks import CodebookTracker
from train.codec_data import NO_LABEL, Crop
from train.codec_losses import SpectralLoss, discriminator_loss, generator_loss
from train.discriminator import Discriminators
from train.pitch import PitchTracker

_FEATURE_SIZE = FRAME_SIZE // 4  # samples a feature step (50 Hz) speaks
_UNHEARD_STEPS = 4  # feature steps at a segment's start, where the vocoder has no past
# Hops by which the tracker's frame is ahead of the decoder's hop that speaks of the same sound: the
# source's windows end with their hop and lie up to three hops later in the output. Measured: with
# 5 the source's harmonics lie best on the recordings'.
_PITCH_AHEAD = 5


@dataclass(frozen=True)
class CodecTrainingConfig:
    """Schedule and weights of the losses; `init_from` is an earlier stage without discriminators,
    `runs/NAME/checkpoints/last.ckpt`, or any codec's directory."""

    epochs: int
    learning_rate: float
    segment_steps: int = 36  # feature steps of each crop that are spoken
    warmup_steps: int = 100
    mel_weight: float = 3.0
    wave_weight: float = 2.0
    phone_weight: float = 0.5
    pitch_weight: float = 0.3
    true_pitch: bool = True  # the source is given the tracked pitch, else the decoder's own
    commitment_weight: float = 0.1
    semantic_gradient: float = 0.2  # share of the reconstruction's gradient into the semantic code
    quantizer_dropout: float = 0.2
    adversarial_weight: float = 0.0
    matching_weight: float = 2.0
    freeze_encoder: bool = False
    init_from: str | None = None
    bfloat16: bool = True

    def __post_init__(self) -> None:
        if self.segment_steps <= _UNHEARD_STEPS:
            raise ValueError(f"segment_steps {self.segment_steps}: must exceed {_UNHEARD_STEPS}")
        if self.epochs < 1 or self.learning_rate <= 0:
            raise ValueError("epochs must be at least 1 and learning_rate above 0")
        if self.freeze_encoder and not self.init_from:
            raise ValueError("freeze_encoder needs init_from: an encoder that has been trained")


class CodecTraining(lightning.LightningModule):
    """The codec with all that only training needs."""

    def __init__(self, codec: NativeCodecConfig, config: CodecTrainingConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.codec = NativeCodec(codec)
        if config.freeze_encoder:
            self.codec.encoder.requires_grad_(False)
        dims = [codec.semantic_dim] + [codec.acoustic_dim] * (codec.num_codebooks - 1)
        self.trackers = nn.ModuleList(CodebookTracker(codec.codebook_size, dim) for dim in dims)
        self.mel_head = nn.Linear(codec.width, 2 * codec.mels)
        self.phone_head = nn.Linear(codec.semantic_dim, 4 * len(PHONES))
        self.phone_head.requires_grad_(not config.freeze_encoder)
        self.spectral_loss = SpectralLoss()
        self.pitch_tracker = PitchTracker()
        if config.init_from:
            self._start_from(Path(config.init_from))
        self.discriminators = Discriminators() if config.adversarial_weight else None

    def _start_from(self, earlier: Path) -> None:
        """A codec's directory has no heads: they are learnt anew."""
        if not earlier.is_dir():
            self.load_state_dict(torch.load(earlier, weights_only=True)["state_dict"])
            return
        self.codec.load_state_dict(load_codec(earlier).state_dict())
        for tracker, codebook in zip(self.trackers, self.codec.quantizer.codebooks(), strict=True):
            assert isinstance(tracker, CodebookTracker)
            tracker.start(codebook)

    def configure_optimizers(self):
        """One optimiser for the codec and, in the adversarial stage, one for the discriminators."""
        codec_side = [self.codec, self.mel_head, self.phone_head]
        parameters = [p for part in codec_side for p in part.parameters() if p.requires_grad]
        rate = self.config.learning_rate
        optimizers = [AdamW(parameters, rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True)]
        if self.discriminators is not None:
            judges = self.discriminators.parameters()
            optimizers.append(AdamW(judges, rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True))
        return optimizers

    def training_step(self, batch: Crop, batch_index: int) -> None:
        """One step of every optimiser, at the scheduled learning rate."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        self._schedule(optimizers, batch_index)
        losses, spoken, heard = self._codec_losses(batch)
        if self.discriminators:
            losses |= self._adversarial_losses(spoken, heard, optimizers[1])
        weights = {
            "mel": self.config.mel_weight,
            "wave": self.config.wave_weight,
            "phone": self.config.phone_weight,
            "pitch": self.config.pitch_weight,
            "commitment": self.config.commitment_weight,
            "adversarial": self.config.adversarial_weight,
            "matching": self.config.adversarial_weight * self.config.matching_weight,
        }
        total = torch.stack([weights[n] * v for n, v in losses.items() if n in weights]).sum()
        self._step(optimizers[0], total, 2.0)
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in losses.items()},
            prog_bar=True, on_step=False, on_epoch=True, sync_dist=True,
        )  # fmt: skip

    def _codec_losses(self, batch: Crop) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Losses without discriminators; also the spoken segment and what should be heard."""
        clean = F.pad(batch.clean, (self.codec.delay_samples, 0))[:, : batch.clean.shape[1]]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            quantized = self._encode(batch.damaged)
            share = self.config.semantic_gradient
            semantic = quantized.semantic * share + quantized.semantic.detach() * (1 - share)
            features = self.codec.decoder.features(semantic, quantized.acoustic)
            mel = self.mel_head(features).float().unflatten(2, (2, -1)).flatten(1, 2)
            logits = self.codec.decoder.pitch_logits(features).float()
            pitch_loss, pitch_hz = self._pitch(logits, clean)
            start = int(torch.randint(features.shape[1] - self.config.segment_steps + 1, ()))
            segment = slice(start, start + self.config.segment_steps)
            hops = slice(2 * segment.start, 2 * segment.stop)
            spoken = self.codec.decoder.speak(features[:, segment], pitch_hz[:, hops]).float()
        first = (start + _UNHEARD_STEPS) * _FEATURE_SIZE
        heard = clean[:, first : segment.stop * _FEATURE_SIZE]
        spoken = spoken[:, _UNHEARD_STEPS * _FEATURE_SIZE :]
        wanted_mel = self.codec.encoder.mel(clean)
        losses = {
            "mel": F.l1_loss(mel, wanted_mel) + 0.5 * F.mse_loss(mel, wanted_mel),
            "wave": self.spectral_loss(spoken, heard),
            "pitch": pitch_loss,
        }
        if not self.config.freeze_encoder:
            # The label of a step is the phone of the step before: the decoder is as late.
            labels = F.pad(batch.labels, (1, 0), value=NO_LABEL)[:, :-1]
            phones = self.phone_head(quantized.semantic).unflatten(2, (4, -1)).flatten(1, 2)
            losses["phone"] = _cross_entropy(phones, labels)
            losses["commitment"] = self._move_codebooks(quantized)
        return losses, spoken, heard

    def _pitch(self, logits: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the pitch [B, hops, bins], and the pitch [B, hops] the source gets."""
        tracked_hz = F.pad(self.pitch_tracker(clean)[:, _PITCH_AHEAD:], (0, _PITCH_AHEAD))
        is_voiced = tracked_hz > 0
        bins_hz = self.codec.decoder.get_buffer("bins_hz")
        bins = torch.bucketize(tracked_hz, (bins_hz[1:] * bins_hz[:-1]).sqrt())
        labels = torch.where(is_voiced, bins, NO_LABEL)
        given_hz = self.codec.decoder.pitch_hz(logits)
        if self.config.true_pitch:
            given_hz = torch.where(is_voiced, bins_hz[bins], given_hz)
        return _cross_entropy(logits, labels), given_hz

    def _encode(self, pcm: Tensor) -> Quantized:
        if self.config.freeze_encoder:
            with torch.no_grad():
                return self.codec.quantizer(self.codec.encoder(pcm))
        stages = None
        if torch.rand(()) < self.config.quantizer_dropout:
            stages = int(torch.randint(1, self.codec.num_codebooks - 1, ()))
        return self.codec.quantizer(self.codec.encoder(pcm), stages)

    def _move_codebooks(self, quantized: Quantized) -> Tensor:
        """Moves the codebooks; returns the commitment loss, summed over them."""
        terms = []
        codebooks = self.codec.quantizer.codebooks()
        for index, inputs in enumerate(quantized.inputs):
            codes = quantized.codes[..., index].flatten()
            vectors = codebooks[index][codes].view_as(inputs)
            terms.append((inputs - vectors).square().mean())
            tracker = self.trackers[index]
            assert isinstance(tracker, CodebookTracker)
            tracker.update(codebooks[index], inputs.detach().flatten(0, 1), codes)
        return torch.stack(terms).sum()

    def _adversarial_losses(self, spoken: Tensor, heard: Tensor, optimizer) -> dict[str, Tensor]:
        """Steps the discriminators, then judges what was spoken."""
        assert self.discriminators is not None
        rows = len(heard)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            both = self.discriminators(torch.cat([heard, spoken.detach()]))
            real = [[layer[:rows].float() for layer in layers] for layers in both]
            fake = [[layer[rows:].float() for layer in layers] for layers in both]
            judged = discriminator_loss(real, fake)
        self._step(optimizer, judged, 1.0)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            real = [[layer.detach() for layer in layers] for layers in real]
            fake = [[x.float() for x in layers] for layers in self.discriminators(spoken)]
        adversarial, matching = generator_loss(real, fake)
        return {"discriminator": judged, "adversarial": adversarial, "matching": matching}

    def _step(self, optimizer, loss: Tensor, clip: float) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=clip)
        optimizer.step()

    def _schedule(self, optimizers: list, batch_index: int) -> None:
        """Warm-up, then a cosine down to 3 % over all epochs."""
        steps = int(self.trainer.num_training_batches)
        done = self.current_epoch * steps + batch_index
        share = done / (self.config.epochs * steps)
        rate = self.config.learning_rate * (0.03 + 0.97 * (1 + math.cos(math.pi * share)) / 2)
        rate *= min(1.0, (done + 1) / self.config.warmup_steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labels [B, T] that are known of logits [B, T, classes]; zero if none is."""
    total = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="sum"
    )
    return total / (labels != NO_LABEL).sum().clamp(min=1)
