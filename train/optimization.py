"""The optimiser of the dialogue models and its schedule."""

import math
from dataclasses import dataclass
from typing import Literal

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class OptimizationConfig:
    """AdamW over `steps` steps: a warm-up to `learning_rate`, then one of two ways down.

    `cosine` falls from there on. `wsd` (warm up, stay, decay: arXiv 2404.06395) stays and falls in
    a straight line over the last `decay_share` of the steps, so that a run can be made longer
    before it decays. Both end at `final_share` of the learning rate. Only matrices are decayed.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    schedule: Literal["cosine", "wsd"] = "cosine"
    decay_share: float = 0.2
    final_share: float = 0.03
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        assert 0 <= self.warmup_steps < self.steps, (
            f"warmup_steps {self.warmup_steps} must be from 0 to less than steps, {self.steps}"
        )
        assert self.learning_rate > 0, f"learning_rate {self.learning_rate} must be positive"
        assert self.schedule in ("cosine", "wsd"), f"schedule {self.schedule}: cosine or wsd"
        assert 0 < self.decay_share <= 1, f"decay_share {self.decay_share} must be in 0..1, not 0"
        assert 0 <= self.final_share <= 1, f"final_share {self.final_share} must be in 0..1"

    def share_at(self, step: int) -> float:
        """What part of the learning rate step 0, 1, ... is taken with."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = self.steps - self.warmup_steps
        if self.schedule == "wsd":
            left = min(left, self.decay_share * self.steps)
        done = min(1.0, max(0.0, 1 - (self.steps - step) / left))
        fallen = done if self.schedule == "wsd" else (1 - math.cos(math.pi * done)) / 2
        return 1 - fallen * (1 - self.final_share)


def optimizer_of(module: nn.Module, config: OptimizationConfig) -> OptimizerLRSchedulerConfig:
    """What `configure_optimizers` returns: all that `module` is to learn, and its schedule."""
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    scheduler = LambdaLR(optimizer, config.share_at)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
