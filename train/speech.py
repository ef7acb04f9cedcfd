"""Training of the speech transformer as a LightningModule.

Given the true codes of the frame before, some of them hidden or wrong, it learns the codes of each
spoken frame: hidden, since otherwise the text matters too little; wrong, since it will hear its own
mistakes.
"""

from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F

from model.checkpoint import load_codec
from model.speech import SpeechConfig, SpeechTransformer, silence_of
from model.tokens import load_tokenizer
from train.optimization import OptimizationConfig, optimizer_of
from train.speech_data import SpokenFrames


@dataclass(frozen=True)
class SpeechTrainingConfig:
    """`spelling` is the checkpoint that `experiment=spelling` left, `tokenizer` a `tokenizer.json`.

    The depth transformer learns from `depth_frames` frames of a batch, drawn anew each step.
    """

    tokenizer: str
    spelling: str
    depth_frames: int = 512
    hidden_share: float = 0.12  # frames whose codes the next one is not told
    wrong_share: float = 0.06  # codes of the others that are any code
    first_weight: float = 2.0  # of the first codebook, against each of the others
    bfloat16: bool = True

    def __post_init__(self) -> None:
        assert self.depth_frames > 0, f"depth_frames {self.depth_frames} must be positive"
        for name in ("hidden_share", "wrong_share"):
            assert 0 <= getattr(self, name) < 1, f"{name} {getattr(self, name)}: must be in 0..1"


class SpeechTraining(lightning.LightningModule):
    """The speech transformer and its loss."""

    def __init__(
        self, speech: SpeechConfig, config: SpeechTrainingConfig, optimization: OptimizationConfig
    ) -> None:
        super().__init__()
        self.config, self.optimization = config, optimization
        self.tokenizer = load_tokenizer(config.tokenizer)
        self.speech = SpeechTransformer(speech)
        self.speech.silence.copy_(silence_of(load_codec()))
        reader = self.speech.reader
        reader.set_vocabulary(self.tokenizer)
        reader.spelling.load_state_dict(_spelling(config.spelling))
        reader.spelling.requires_grad_(False)

    def configure_optimizers(self):
        """AdamW with its schedule."""
        return optimizer_of(self.speech, self.optimization)

    def training_step(self, batch: SpokenFrames, batch_index: int) -> Tensor:
        """The weighted mean of all codebooks' cross-entropies."""
        previous = self._damaged(batch.previous)
        return self._loss(batch._replace(previous=previous), self.config.depth_frames, "train")

    def validation_step(self, batch: SpokenFrames, batch_index: int) -> None:
        """The same on held-out rows, of every frame and with nothing hidden."""
        self._loss(batch, batch.row.numel(), "val")

    def _damaged(self, codes: Tensor) -> Tensor:
        """Codes [B, T, K], some of them wrong, those of some frames hidden."""
        unknown = self.speech.config.depth.codebook
        wrong = torch.rand_like(codes, dtype=torch.float32) < self.config.wrong_share
        codes = torch.where(wrong, torch.randint_like(codes, unknown), codes)
        hidden = torch.rand(*codes.shape[:2], 1, device=codes.device) < self.config.hidden_share
        return torch.where(hidden, unknown, codes)

    def _loss(self, batch: SpokenFrames, frames: int, name: str) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            hidden = self.speech(batch.features, batch.previous, segment=batch.row).flatten(0, 1)
            drawn = torch.randperm(len(hidden), device=self.device)[:frames]
            codes = batch.codes.flatten(0, 1)[drawn]
            logits = self.speech.depth(hidden[drawn], codes)  # [n, K, codebook]
        each = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none").mean(0)  # [K]
        weights = torch.ones_like(each)
        weights[0] = self.config.first_weight
        loss = (each * weights).sum() / weights.sum()
        figures = {f"{name}/codebook_{k}": value for k, value in enumerate(each.detach(), 1)}
        self.log_dict(figures, on_step=False, on_epoch=True, sync_dist=True)
        self.log(f"{name}/loss", loss.detach(), prog_bar=True, on_step=False, on_epoch=True)
        return loss


def _spelling(checkpoint: str) -> dict[str, Tensor]:
    """The spelling network's weights; raises FileNotFoundError where it has not been trained."""
    if not Path(checkpoint).exists():
        raise FileNotFoundError(f"no {checkpoint}: run `python -m train.run experiment=spelling`")
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name.removeprefix("spelling."): tensor for name, tensor in weights.items()}
