"""Moves a codec's codebooks during training: moving averages, and new starts for dead codes.

Exponential moving averages as in VQ-VAE (arXiv 1711.00937, appendix A.1); codes that nobody uses
are set on inputs of the current batch, as in Jukebox (arXiv 2005.00341).
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

_DECAY = 0.97
_DEAD_USAGE = 0.1  # inputs a step, averaged, below which a code starts anew


def _sum_over_processes(*tensors: Tensor) -> None:
    if dist.is_available() and dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def _same_in_processes(tensor: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        tensor = tensor.contiguous()
        dist.broadcast(tensor, 0)
    return tensor


class CodebookTracker(nn.Module):
    """Usage and sum of inputs of one codebook [N, D]; its buffers go into training checkpoints."""

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("usage", torch.ones(codebook_size))
        self.register_buffer("sums", torch.zeros(codebook_size, dim))
        self.register_buffer("is_started", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def start(self, codebook: Tensor) -> None:
        """Goes on from a codebook that is trained."""
        self.get_buffer("usage").fill_(1.0)
        self.get_buffer("sums").copy_(codebook)
        self.get_buffer("is_started").fill_(True)

    @torch.no_grad()
    def update(self, codebook: Tensor, inputs: Tensor, codes: Tensor) -> None:
        """Moves `codebook` [N, D] in place, given inputs [M, D] and the codes [M] they got."""
        usage, sums = self.get_buffer("usage"), self.get_buffer("sums")
        inputs = inputs.float()
        if not self.get_buffer("is_started"):
            codebook.copy_(_same_in_processes(_picks(inputs, len(codebook))))
            self.start(codebook)
            return
        counts = torch.bincount(codes, minlength=len(codebook)).float()
        batch_sums = torch.zeros_like(sums).index_add_(0, codes, inputs)
        _sum_over_processes(counts, batch_sums)
        usage.lerp_(counts, 1 - _DECAY)
        sums.lerp_(batch_sums, 1 - _DECAY)
        codebook.copy_(sums / usage.clamp(min=1e-4)[:, None])
        dead = (usage < _DEAD_USAGE).nonzero()[:, 0]
        if len(dead):
            fresh = _same_in_processes(_picks(inputs, len(dead)))
            codebook[dead] = fresh
            usage[dead] = 2 * _DEAD_USAGE
            sums[dead] = fresh * 2 * _DEAD_USAGE


def _picks(inputs: Tensor, count: int) -> Tensor:
    """`count` random inputs with a little noise, so that no two are the same."""
    chosen = inputs[torch.randint(len(inputs), (count,))]
    return chosen + torch.randn_like(chosen) * inputs.std() * 0.02
