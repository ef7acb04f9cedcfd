"""The codes of one frame, one after the other: Moshi's depth transformer (arXiv 2410.00037).

Causal over the codebooks of a frame, with weights of its own at each of them and without positions:
the weights tell the codebooks apart. The weights of all steps are stacked, so that whole frames are
trained by one batched product a matrix.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.ops import kept, kernels_for, pack_large
from model.sampling import Sampler
from model.transformer import RMSNorm


@dataclass(frozen=True)
class DepthConfig:
    """Sizes. `steps` codebooks of `codebook` codes; `input_dim` channels come from the temporal
    transformer, and a text token where `text_vocabulary` is above 0."""

    input_dim: int
    dim: int
    layers: int
    heads: int
    hidden: int
    steps: int
    codebook: int
    text_vocabulary: int = 0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("input_dim", "dim", "layers", "heads", "hidden", "steps", "codebook"):
            assert getattr(self, name) > 0, f"{name} {getattr(self, name)} must be positive"
        assert self.text_vocabulary >= 0, f"text_vocabulary {self.text_vocabulary} is negative"
        assert self.dim % self.heads == 0, (
            f"dim {self.dim} must be a multiple of heads {self.heads}"
        )


def _stacked(steps: int, outputs: int, inputs: int) -> nn.Parameter:
    """A linear layer's weight for each step [steps, outputs, inputs]."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(steps, outputs, inputs).uniform_(-bound, bound))


class DepthLayer(nn.Module):
    """One layer over the codebooks of N frames; the norms are shared by the steps."""

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        dim, hidden, steps = config.dim, config.hidden, config.steps
        self.heads = config.heads
        self.attention_norm = RMSNorm(dim, config.norm_eps)
        self.attention_input = _stacked(steps, 3 * dim, dim)
        self.attention_output = _stacked(steps, dim, dim)
        self.feed_forward_norm = RMSNorm(dim, config.norm_eps)
        self.feed_forward_input = _stacked(steps, 2 * hidden, dim)
        self.feed_forward_output = _stacked(steps, dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """All steps at once: [steps, N, dim] -> [steps, N, dim]."""
        query, key, value = self._split(_each(self.attention_norm(x), self.attention_input))
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # [N, heads, steps,D]
        x = x + _each(y.permute(2, 0, 1, 3).flatten(2), self.attention_output)
        y = _gated(_each(self.feed_forward_norm(x), self.feed_forward_input))
        return x + _each(y, self.feed_forward_output)

    def step(self, x: Tensor, index: int, past: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Step `index` alone: [N, dim] -> [N, dim]; its key and value are put behind `past`."""
        heads = F.linear(self.attention_norm(x), self.attention_input[index])
        query, key, value = self._split(heads[None])  # [N, heads, 1, D]
        past.append((key, value))
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*past, strict=True))
        y = F.scaled_dot_product_attention(query, keys, values)
        x = x + F.linear(y.flatten(1), self.attention_output[index])
        y = _gated(F.linear(self.feed_forward_norm(x), self.feed_forward_input[index]))
        return x + F.linear(y, self.feed_forward_output[index])

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """[steps, N, 3 * dim] -> query, key and value [N, heads, steps, D]."""
        return x.unflatten(2, (3, self.heads, -1)).permute(2, 1, 3, 0, 4).unbind(0)


class DepthTransformer(nn.Module):
    """Makes the codes of frames from what the temporal transformer says of each."""

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        dim, steps = config.dim, config.steps
        self.input = _stacked(steps, dim, config.input_dim)
        self.text_embedding = (
            nn.Embedding(config.text_vocabulary, dim) if config.text_vocabulary else None
        )
        self.embeddings = nn.ModuleList(
            nn.Embedding(config.codebook + 1, dim) for _ in range(steps - 1)
        )
        for embedding in self.embeddings:
            assert isinstance(embedding, nn.Embedding)
            nn.init.normal_(embedding.weight, std=0.5)
        self.layers = nn.ModuleList(DepthLayer(config) for _ in range(config.layers))
        self.heads = _stacked(steps, config.codebook, dim)

    def forward(self, context: Tensor, codes: Tensor, text: Tensor | None = None) -> Tensor:
        """Logits of every code of N frames, given the true codes before it.

        `context` [N, input_dim], `codes` int64 [N, steps] (`codebook` where there is none), `text`
        int64 [N] where the configuration has a text vocabulary -> float32 [N, steps, codebook].
        """
        x = _each(context.expand(self.config.steps, -1, -1), self.input)  # [steps, N, dim]
        first = torch.zeros_like(x[0])
        if self.text_embedding is not None:
            first = self.text_embedding(self._checked(text))
        x = x + torch.stack(
            [first, *(embed(codes[:, step]) for step, embed in enumerate(self.embeddings))]
        )
        for layer in self.layers:
            x = layer(x)
        return _each(x, self.heads).transpose(0, 1).float()

    def generate(
        self,
        context: Tensor,
        sample: Callable[[Tensor, int], Tensor],
        text: Tensor | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """Codes int64 [N, steps], the first `steps` of them (default all); the others never run.

        `sample(logits, step)` picks a code of float32 [N, codebook]: int64 [N].
        """
        count = self.config.steps if steps is None else steps
        if isinstance(sample, Sampler) and (ops := kernels_for(context)):
            return self._generate(ops, context, sample, text, count)
        past: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.layers]
        codes: list[Tensor] = []
        inputs = _each(context.expand(count, -1, -1), self.input[:count])  # [steps, N, dim]
        for step, x in enumerate(inputs.unbind()):
            if step:
                x = x + self.embeddings[step - 1](codes[-1])
            elif self.text_embedding is not None:
                x = x + self.text_embedding(self._checked(text))
            for layer, seen in zip(self.layers, past, strict=True):
                assert isinstance(layer, DepthLayer)
                x = layer.step(x, step, seen)
            codes.append(sample(F.linear(x, self.heads[step]).float(), step))
        return torch.stack(codes, dim=1)

    def _generate(
        self, ops: Any, context: Tensor, sample: Sampler, text: Tensor | None, steps: int
    ) -> Tensor:
        """The same, as one operator."""
        config, drawn = self.config, sample.config
        embeddings = [table.weight for table in self.embeddings]
        if self.text_embedding is not None:
            embeddings.insert(0, self.text_embedding.weight)
            text = self._checked(text)
        return ops.depth_generate(
            context.contiguous(),
            text if self.text_embedding is not None else None,
            kept(self, self._weights),
            embeddings,
            sample.uniform[:, :steps].contiguous(),
            config.heads,
            config.hidden,
            config.codebook,
            config.norm_eps,
            drawn.temperature,
            drawn.top_k,
            drawn.top_p,
        )

    def _weights(self) -> list[Tensor]:
        """As the operator wants them: two, then six of each layer."""
        weights = [pack_large(self.input), pack_large(self.heads)]
        for layer in self.layers:
            assert isinstance(layer, DepthLayer)
            weights += [
                layer.attention_norm.weight,
                pack_large(layer.attention_input),
                pack_large(layer.attention_output),
                layer.feed_forward_norm.weight,
                pack_large(layer.feed_forward_input),
                pack_large(layer.feed_forward_output),
            ]
        return weights

    def _checked(self, text: Tensor | None) -> Tensor:
        if text is None:
            raise ValueError("text is missing: the first code depends on it")
        return text


def _each(x: Tensor, weight: Tensor) -> Tensor:
    """Every step through its own weight: [steps, N, inputs] -> [steps, N, outputs]."""
    return torch.bmm(x, weight.transpose(1, 2))


def _gated(x: Tensor) -> Tensor:
    """The gate's half of the channels lets the other half through."""
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value
