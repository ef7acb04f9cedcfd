"""The shapes and types of what the operators of kernels/cpu give, as torch asks for them where
tensors have no numbers (`torch.library.register_fake`). Those with CUDA kernels are in cuda_ops.py.
"""

from collections.abc import Callable
from typing import Any

import torch


def register() -> None:
    """Once the library has been loaded."""

    def fake(name: str) -> Callable[..., Any]:
        return torch.library.register_fake(f"duologue::{name}")

    @fake("linear")
    def _(x, packed, bias, norm_weight, norm_bias, eps, outputs):
        return x.new_empty(x.shape[0], outputs)

    @fake("transformer_step")
    def _(x, *_):
        return torch.empty_like(x)

    @fake("conv_next")
    def _(x, *_):
        return torch.empty_like(x)

    @fake("log_mel")
    def _(pcm, filters, window, roots, past, active, hop, mels):
        return pcm.new_empty(pcm.shape[0], pcm.shape[1] // hop, mels)

    @fake("voice")
    def _(
        pitch_hz, filters, spectrum, window, roots, turns, last_hz, past, overlap, active, hop, *_
    ):
        return pitch_hz.new_empty(pitch_hz.shape[0], pitch_hz.shape[1] * hop)

    @fake("pointer_step")
    def _(x, source, query, key, gate, gate_bias, keys, *_):
        weights = x.new_empty(x.shape[0], keys.shape[1])
        return weights, weights.new_empty(weights.shape, dtype=torch.int64), x.new_empty(x.shape[0])

    @fake("log_probabilities")
    def _(hidden, rotation, table, vocabulary, *_):
        return hidden.new_empty(hidden.shape[0], vocabulary)

    @fake("frame_input")
    def _(is_frame, agent_text, user_text, action, latents, is_heard, is_speaking, weights):
        return latents.new_empty(latents.shape[0], weights[0].shape[1])

    @fake("depth_generate")
    def _(context, text, weights, embeddings, uniform, *_):
        return uniform.new_empty(uniform.shape, dtype=torch.int64)

    @fake("sample")
    def _(logits, uniform, *_):
        return uniform.new_empty(uniform.shape, dtype=torch.int64)

    @fake("reader_step")
    def _(token, tables, token_begins, spelling, letters, phones, *_):
        features = token.new_empty(token.shape[0], 4 * (phones.shape[2] + 1) + 11)
        return features, token.new_empty(token.shape, dtype=torch.bool)

    @fake("speech_input")
    def _(features, previous, tables, *_):
        return tables[0].new_empty(features.shape[0], tables[0].shape[1])

    @fake("gather_rows")
    def _(tensors, rows):
        return [tensor.new_empty(rows.shape[0], *tensor.shape[1:]) for tensor in tensors]

    @fake("scatter_rows")
    def _(tensors, rows, parts):
        return None

    @fake("uniforms")
    def _(seed, counter, streams):
        return seed.new_empty(seed.shape[0], streams.shape[0], dtype=torch.float64)

    @fake("code_vectors")
    def _(codes, semantic, acoustic):
        rows = codes.shape[0]
        return semantic.new_empty(rows, semantic.shape[1]), semantic.new_empty(
            rows, acoustic.shape[2]
        )
