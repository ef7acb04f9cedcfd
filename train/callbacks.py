"""Callbacks of every training: an average of the weights, and random numbers that a resumed run
draws again."""

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from torch import Tensor


class WeightAverage(WeightAveraging):
    """Exponential average of the weights, over about 1 / (1 - `decay`) steps once there are many.

    Validation sees the average, checkpoints have it as their `state_dict` (and what is trained
    beside it), and so has the module when training ends.
    """

    def __init__(self, decay: float = 0.999) -> None:
        assert 0 < decay < 1, f"decay {decay} must be between 0 and 1"

        @torch.no_grad()
        def average(averages: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
            early = (1 + float(count)) / (10 + float(count))
            torch._foreach_lerp_(averages, weights, 1 - min(decay, early))

        super().__init__(use_buffers=False, multi_avg_fn=average)

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Raises ValueError where no process holds the whole weights."""
        if isinstance(trainer.strategy, DeepSpeedStrategy | ModelParallelStrategy):
            raise ValueError(
                "callbacks.average needs whole weights, and this strategy shards them: say "
                "callbacks.average=null, or strategy=ddp"
            )
        super().setup(trainer, pl_module, stage)


class SeedSteps(Callback):
    """Seeds torch anew for each step, by the step and the process: dropout and noise do not depend
    on whether a run was interrupted."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch, batch_idx
    ) -> None:
        """Before the step draws anything."""
        place = (self.seed, trainer.global_rank, trainer.current_epoch, batch_idx)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
