"""Split residual vector quantisation: one semantic codebook beside a residual stack.

As in Mimi (arXiv 2410.00037): the semantic codebook is not part of the residual chain, so what it
learns is not fixed by what the others leave over. The codebooks are plain buffers; training moves
them (train/codebooks.py).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.ops import cuda_kernels_for, kept, kernels_for


class Quantized(NamedTuple):
    """A quantised latent.

    `codes` int64 [..., K]; `semantic` [..., Ds] and `acoustic` [..., Da] the codebook vectors
    (their sum over the residual stack), straight through to the latent's gradient; `inputs` what
    each of the K codebooks was asked to quantise.
    """

    codes: Tensor
    semantic: Tensor
    acoustic: Tensor
    inputs: tuple[Tensor, ...]


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest row of `codebook` [N, D] for each of x [..., D]."""
    return (codebook.square().sum(1) - 2 * x @ codebook.T).argmin(-1)


class SplitQuantizer(nn.Module):
    """Latent [..., Ds + Da] <-> K codes: the first from the first Ds values, the rest residual."""

    def __init__(
        self, semantic_dim: int, acoustic_dim: int, codebook_size: int, num_codebooks: int
    ) -> None:
        super().__init__()
        self.semantic_dim = semantic_dim
        self.register_buffer("semantic_codebook", torch.randn(codebook_size, semantic_dim))
        self.register_buffer(
            "acoustic_codebooks", torch.randn(num_codebooks - 1, codebook_size, acoustic_dim)
        )

    def codebooks(self) -> list[Tensor]:
        """The K codebooks [N, D] as views that training may write to."""
        return [self.get_buffer("semantic_codebook"), *self.get_buffer("acoustic_codebooks")]

    def forward(self, latent: Tensor, stages: int | None = None) -> Quantized:
        """Quantises; `stages` limits the residual stack (training's quantiser dropout)."""
        semantic_in, residual = latent.float().tensor_split([self.semantic_dim], dim=-1)
        acoustic_in = residual
        semantic_codebook, *acoustic_codebooks = self.codebooks()
        codes = [nearest(semantic_in.detach(), semantic_codebook)]
        inputs = [semantic_in]
        for codebook in acoustic_codebooks[:stages]:
            code = nearest(residual.detach(), codebook)
            codes.append(code)
            inputs.append(residual)
            residual = residual - codebook[code]
        semantic = semantic_in + (semantic_codebook[codes[0]] - semantic_in).detach()
        acoustic = acoustic_in - residual.detach() if len(codes) > 1 else acoustic_in * 0
        return Quantized(torch.stack(codes, -1), semantic, acoustic, tuple(inputs))

    def encode(self, latent: Tensor) -> Tensor:
        """The codes alone: int64 [..., K]."""
        ops = cuda_kernels_for(latent)
        if ops is None:
            return self(latent).codes
        norms = kept(self, lambda: torch.stack([of.square().sum(1) for of in self.codebooks()]))
        rows = latent.flatten(0, -2).contiguous()
        codes = ops.rvq_encode(rows, self.semantic_codebook, self.acoustic_codebooks, norms)
        return codes.view(*latent.shape[:-1], -1)

    def lookup(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [..., K] -> semantic [..., Ds] and acoustic [..., Da] vectors."""
        books = (self.get_buffer("semantic_codebook"), self.get_buffer("acoustic_codebooks"))
        if ops := kernels_for(*books):
            semantic, acoustic = ops.code_vectors(codes.flatten(0, -2).contiguous(), *books)
            return (semantic.view(*codes.shape[:-1], -1), acoustic.view(*codes.shape[:-1], -1))
        semantic_codebook, *acoustic_codebooks = self.codebooks()
        if ops := cuda_kernels_for(*books):
            rows = codes[..., 1:].flatten(0, -2).contiguous()
            acoustic = ops.embedding_sum(rows, acoustic_codebooks)
            return semantic_codebook[codes[..., 0]], acoustic.view(*codes.shape[:-1], -1)
        stack = [book[codes[..., k + 1]] for k, book in enumerate(acoustic_codebooks)]
        acoustic = stack[0]
        for vector in stack[1:]:
            acoustic = acoustic + vector
        return semantic_codebook[codes[..., 0]], acoustic
