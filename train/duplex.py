"""Training of the temporal transformer (and, where it is joint, of the agent's codes with it)."""

import copy
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F

from model.agent import Agent
from model.checkpoint import load_duplex
from model.duplex import FRAME, DuplexConfig, DuplexModel, Outputs, Stream
from model.tokens import END, IDLE, PAD, load_tokenizer
from train.assemble import joined
from train.duplex_inputs import delayed_codes, inputs_of, newest_before
from train.optimization import OptimizationConfig, optimizer_of
from train.packing import DialogueBatch

_HIDDEN_FRAMES = (1, 2, 3)  # in a row


@dataclass(frozen=True)
class DuplexTrainingConfig:
    """Weights of the losses, and what makes them hard.

    `*_nothing_weight` is that of `<pad>` or `<idle>`, which most frames hold. `latent_noise` is the
    share of its deviation that is added to a latent; `hidden_share` of the latents are replaced by
    their mean, one to three in a row (as SpecAugment masks time, arXiv 1904.08779).
    `speaking_frames` bounds the frames a batch whose codes are learned (joint). `init_from` is a
    model's directory, or the name of one that ships, from whose weights it goes on, hearing latents
    as spread as there.
    """

    agent_text_weight: float = 1.0
    agent_text_nothing_weight: float = 0.4
    action_weight: float = 2.0
    action_nothing_weight: float = 0.3
    user_text_weight: float = 1.5
    user_text_nothing_weight: float = 0.3
    floor_weight: float = 0.3
    first_code_weight: float = 1.0
    acoustic_code_weight: float = 0.3
    latent_noise: float = 0.1
    hidden_share: float = 0.0
    speaking_frames: int = 640
    bfloat16: bool = True
    checkpoint_activations: bool = False
    init_from: str | None = None

    def __post_init__(self) -> None:
        weights = {name: value for name, value in vars(self).items() if name.endswith("_weight")}
        for name, value in weights.items():
            assert value >= 0, f"{name} {value} must be at least 0"
        assert self.latent_noise >= 0, f"latent_noise {self.latent_noise} must be at least 0"
        assert 0 <= self.hidden_share < 1, (
            f"hidden_share {self.hidden_share} must be in 0..1, not 1"
        )
        assert self.speaking_frames > 0, f"speaking_frames {self.speaking_frames} must be positive"


class DuplexTraining(lightning.LightningModule):
    """A duplex model with all that only training needs; batches are `DialogueBatch`es.

    `speech` is a run of the speech transformer, or a model that has one, with which `agent` talks.
    """

    def __init__(
        self,
        model: DuplexConfig,
        config: DuplexTrainingConfig,
        optimization: OptimizationConfig,
        tokenizer: str,
        speech: str | None = None,
    ) -> None:
        super().__init__()
        self.speech_run = speech
        self.words = words = load_tokenizer(tokenizer)
        assert len(words) <= model.vocabulary, (
            f"vocabulary {model.vocabulary}: must hold the tokenizer's {len(words)} tokens"
        )
        self.config, self.optimization = config, optimization
        self.model = DuplexModel(model)
        if config.init_from:
            self.model.load_state_dict(load_duplex(config.init_from).model.state_dict())
        self.model.temporal.checkpoint_activations = config.checkpoint_activations
        self.pad, self.idle, self.end = (words.id_of(token) for token in (PAD, IDLE, END))
        assert self.pad == model.pad, f"pad {model.pad}: must be the tokenizer's, {self.pad}"

    def setup(self, stage: str) -> None:
        """Takes what the data knows: how latents are spread, which token is copied as which."""
        model, data = self.model.config, self.trainer.datamodule  # pyright: ignore
        if model.pointer_dim:
            table = data.copy_targets()
            self.model.copy_targets[:, : table.shape[1]] = table
        if self.speech_run is not None:
            self.agent()  # what is missing is missed now, not at the first validation
        knows_latents = model.arrangement == "joint" or self.config.init_from
        statistics = None if knows_latents else data.latent_statistics()
        if statistics is not None:
            self.model.latent_mean[:], self.model.latent_deviation[:] = statistics

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW and its schedule."""
        return optimizer_of(self, self.optimization)

    def training_step(self, batch: DialogueBatch, batch_index: int) -> Tensor:
        """The weighted loss; logs that of every stream in nats a token that it is about."""
        loss, figures = self.losses(batch)
        self.log_dict({f"train/{name}": value for name, value in figures.items()})
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: DialogueBatch, batch_index: int) -> None:
        """The same figures on dialogues that are not trained on, and how many tokens are right."""
        loss, figures = self.losses(batch)
        figures["loss"] = loss
        told = batch.heard.any()  # else nothing tells the caller's words, and they are no figures
        self.log_dict(
            {
                f"validation/{name}": value
                for name, value in figures.items()
                if told or not name.startswith(("user_text", "floor"))
            },
            batch_size=len(batch.kind),
            sync_dist=True,
        )

    def agent(self) -> Agent:
        """What is trained, at work on the CPU. Raises ValueError where there is no speech
        transformer."""
        if self.speech_run is None:
            raise ValueError("speech is null: must be a run of experiment=speech for it to talk")
        positions = self.trainer.datamodule.config.positions  # pyright: ignore
        speech = Path(self.speech_run)
        model = copy.deepcopy(self.model).cpu()
        return Agent(joined(model, self.words, positions.describe_tools, speech))

    def losses(self, batch: DialogueBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted mean over all that is to be learned, and figures that have no gradient."""
        inputs = inputs_of(batch, self.model.config, self.pad, self.idle, self.end)
        if self.training and self.model.config.arrangement == "split":
            inputs = inputs._replace(latents=self.disturbed(inputs.latents))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            outputs = self.model(inputs, segment=batch.segment)
            losses, figures = self._stream_losses(outputs, batch)
            if self.model.config.arrangement == "joint":
                losses |= self._code_losses(outputs, batch, figures)
        return torch.stack(list(losses.values())).sum(), figures

    def disturbed(self, latents: Tensor) -> Tensor:
        """The caller's latents [B, L, D] with noise, some of them hidden."""
        scale = self.config.latent_noise * self.model.latent_deviation
        noisy = latents + scale * torch.randn_like(latents)
        hidden = torch.zeros_like(latents[..., 0], dtype=torch.bool)  # [B, L]
        each = self.config.hidden_share / sum(_HIDDEN_FRAMES)
        for frames in _HIDDEN_FRAMES:
            begins = (torch.rand_like(latents[..., 0]) < each).float()
            hidden |= F.max_pool1d(F.pad(begins, (frames - 1, 0)), frames, stride=1) > 0
        return torch.where(hidden[..., None], self.model.latent_mean, noisy)

    def _stream_losses(
        self, outputs: Outputs, batch: DialogueBatch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        config = self.config
        heard = batch.learn_heard
        counts = self._counts(batch)
        weights: dict[Stream, tuple[Tensor, Tensor, int, float, float]] = {
            "agent_text": (
                batch.agent_text, batch.learn_frame, self.pad,
                config.agent_text_weight, config.agent_text_nothing_weight,
            ),
            "action": (
                batch.action, batch.learn_action, self.idle,
                config.action_weight, config.action_nothing_weight,
            ),
            "user_text": (
                batch.user_text, heard, self.pad,
                config.user_text_weight, config.user_text_nothing_weight,
            ),
        }  # fmt: skip
        losses, figures = {}, {}
        for stream in self.model.config.streams:
            target, is_learned, nothing, weight, nothing_weight = weights[stream]
            log_probability = self.model.log_probability(outputs, stream, target)  # [B, L]
            is_token = is_learned & (target != nothing)
            weighed = torch.where(target == nothing, nothing_weight, weight) * is_learned
            losses[stream] = -(weighed * log_probability).sum() / counts[stream]
            figures[stream] = -_mean(log_probability.detach(), is_token)
            figures[f"{stream}_nothing"] = -_mean(log_probability.detach(), is_learned & ~is_token)
            if not self.training:
                likeliest = self.model.log_probabilities(outputs, stream).argmax(dim=-1)
                figures[f"{stream}_accuracy"] = _mean((likeliest == target).float(), is_token)
        if "user_text" in self.model.config.streams:
            logits = self.model.floor(outputs.hidden)
            floor = F.cross_entropy(logits.flatten(0, 1), batch.floor.flatten(), reduction="none")
            figures["floor"] = _mean(floor.detach().view_as(heard), heard)
            weighed = config.floor_weight * floor.view_as(heard) * heard
            losses["floor"] = weighed.sum() / counts["user_text"]
        return losses, figures

    def _counts(self, batch: DialogueBatch) -> dict[str, Tensor]:
        """Over how many positions each stream's loss is averaged: those of all processes, shared
        out, so that several train as one would on all of their batches."""
        masks = {
            "agent_text": batch.learn_frame,
            "action": batch.learn_action,
            "user_text": batch.learn_heard,
        }
        counts = torch.stack([mask.sum() for mask in masks.values()]).float()
        if self._trainer is not None and self.trainer.world_size > 1:
            counts = self.trainer.strategy.reduce(counts, reduce_op="mean")
        return dict(zip(masks, counts.clamp(min=1).unbind(), strict=True))

    def _code_losses(
        self, outputs: Outputs, batch: DialogueBatch, figures: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Of the agent's codes at some of the frames, what it says at each of them being known."""
        config, model = self.config, self.model.config
        is_frame = batch.kind == FRAME
        codes = delayed_codes(batch.agent_codes, newest_before(is_frame, batch.segment), model)
        is_whole = (codes < model.codebook).all(dim=-1)
        chosen = (batch.learn_heard & is_whole).flatten().nonzero()[:, 0]
        if len(chosen) > config.speaking_frames:
            order = torch.randperm(len(chosen), device=chosen.device)
            chosen = chosen[order[: config.speaking_frames]]
        target = codes.flatten(0, 1)[chosen]  # [N, K]
        hidden = outputs.hidden.flatten(0, 1)[chosen]
        logits = self.model.depth(hidden, target, batch.agent_text.flatten()[chosen])
        losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        losses = losses.view_as(target).mean(dim=0)  # [K]
        figures |= {"first_code": losses[0].detach(), "acoustic_codes": losses[1:].mean().detach()}
        return {
            "first_code": config.first_code_weight * losses[0],
            "acoustic_codes": config.acoustic_code_weight * losses[1:].sum(),
        }


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Of the values that count; 0 where none does."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
