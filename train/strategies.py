"""How several processes share the training of one model, beside DDP: DeepSpeed's ZeRO and FSDP2.

Both run on GPUs, and on CPUs with gloo.
"""

import atexit
import os
import warnings

import lightning
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard

from model.transformer import Layer


def mean_over_processes(count: Tensor) -> Tensor:
    """The mean of a number over all processes, the number itself where there is one process.

    A sum divided by the mean count, and averaged over the processes as gradients are, is the mean
    over all that the processes have together, however unlike their batches.
    """
    if not distributed.is_initialized():
        return count
    total = count.detach().float().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


class Zero(DeepSpeedStrategy):
    """DeepSpeed's ZeRO (arXiv 1910.02054): shards optimiser and gradients (`stage` 2), weights too
    (3), but for those of at most `whole_size` numbers. Lightning's own strategy refuses CPUs."""

    def __init__(self, stage: int, whole_size: int = 100_000) -> None:
        super().__init__(stage=stage)
        assert isinstance(self.config, dict)
        self.config["zero_optimization"]["stage3_param_persistence_threshold"] = whole_size
        # It calls what torch 2.13 has renamed, and says so in every step.
        warnings.filterwarnings("ignore", ".*_tensor` is deprecated", FutureWarning)

    def setup_environment(self) -> None:
        """As DDP does it, once a CPU looks like what DeepSpeed expects."""
        if "CROSS_RANK" in os.environ:  # what the `deepspeed` launcher calls it
            os.environ.setdefault("NODE_RANK", os.environ["CROSS_RANK"])
        if isinstance(self.accelerator, CPUAccelerator):
            self._prepare_cpu()
        DDPStrategy.setup_environment(self)
        atexit.register(_leave)

    def _prepare_cpu(self) -> None:
        import deepspeed

        # Nothing is compiled: gloo does what a reduction in shared memory would.
        deepspeed.ops.__compatible_ops__ = {}  # pyright: ignore[reportAttributeAccessIssue]
        assert self.parallel_devices is not None
        count = len(self.parallel_devices)
        self.parallel_devices = [torch.device("cpu", index) for index in range(count)]


def _leave() -> None:
    """Without it, now and then a process that ends first takes the others down."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


class FullySharded(ModelParallelStrategy):
    """FSDP2 (arXiv 2304.11277) over all processes: weights, gradients and optimiser are sharded,
    and the weights of a transformer's layer are together only while it runs.

    What is no layer is together from a module's forward to the end of the step: training asks for
    more than `forward`.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1)

    def setup_environment(self) -> None:
        """Lightning's own default shards over nodes alone."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: lightning.Trainer) -> None:
        """Lightning's own wants every LightningModule to shard itself."""
        assert self.model is not None
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        for part in self.model.children():
            self._shard(part)
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _shard(self, part: nn.Module) -> None:
        mesh = self.device_mesh["data_parallel"]
        for module in part.modules():
            if isinstance(module, Layer):
                fully_shard(module, mesh=mesh)
        fully_shard(part, mesh=mesh)
