"""The operators that have CUDA kernels, in PyTorch: what a CPU runs and GPUs are tested against.

kernels/cuda/kernels.h says what the kernels do, kernels/torch/cuda.cpp has the schemas, and
docs/kernels.md what is claimed. States are written in place; an inactive row's outputs are 0.
"""

import math
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention import Turn, rotate, slot_of
from model.ops import use_kernels
from model.sampling import SamplingConfig, sample
from model.seanet_streaming import PaddedState, padded
from model.streaming import OverlapState, PastState, overlap_add, with_past

_WORD = 2**32 - 1


def half_turns(head_dim: int, period: float, device: torch.device) -> Tensor:
    """By what a step turns each pair of channels, in half turns: float64 [head_dim / 2]."""
    exponent = torch.arange(head_dim // 2, dtype=torch.float64, device=device) / (head_dim // 2)
    return period**-exponent / math.pi


def residual_rms_norm(x: Tensor, update: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Adds `update` to x [rows, dim], in place, and gives its `RMSNorm`."""
    if update is not None:
        x += update
    return F.rms_norm(x.float(), weight.shape, weight.float(), eps).to(x.dtype)


def rope_append(
    projected: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    position: Tensor,
    held: Tensor | None,
    active: Tensor | None,
    half_turns: Tensor,
    heads: int,
    window: int,
    pinned: int,
) -> tuple[Tensor, Tensor]:
    """Turns queries and keys [B, heads + 2 kv_heads, D] and puts keys and values into the ring.

    `keys`, `values` [R, pinned + window, kv_heads, D], as `projected` or int8 (times float32
    `scales` [R, pinned + window, kv_heads]) or float8; `position`, `held` int64 [B] as in
    `AttentionState`. Gives queries float32 [B, heads, D], turned by their position and, empty where
    nothing is pinned, as far as pinned keys ever seem to be away.
    """
    kv_heads = keys.shape[2]
    query = projected[:, None, :heads].float()
    turned = rotate(projected[:, None, :-kv_heads].float(), _turn(position, half_turns))[:, 0]
    near, key = turned.split([heads, kv_heads], dim=1)
    far = near.new_empty(0)
    if pinned:
        limited = position.clamp(max=pinned + window - 1)
        far = _only(rotate(query, _turn(limited, half_turns))[:, 0], active)
    rows = torch.arange(len(position), device=position.device) if held is None else held
    slot = slot_of(position, pinned, window)
    if active is not None:
        rows, slot = rows[active], slot[active]
    for into, scales, new in (
        (keys, key_scales, key),
        (values, value_scales, projected[:, -kv_heads:].float()),
    ):
        _write(into, scales, (rows, slot), new if active is None else new[active])
    return _only(near, active).contiguous(), far


def ring_attention(
    query: Tensor,
    far_query: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    position: Tensor,
    held: Tensor | None,
    active: Tensor | None,
    window: int,
    pinned: int,
    dtype: torch.dtype,
) -> Tensor:
    """Attention of one step, which is in the ring already: `dtype` [B, heads * D].

    All but `dtype`, that of activations, is as `rope_append` takes and leaves it.
    """
    batch, heads, head_dim = query.shape
    kv_heads, reach = keys.shape[2], pinned + window
    rows = torch.arange(batch, device=position.device) if held is None else held
    is_held = torch.arange(reach, device=position.device) <= position[:, None]  # [B, S]
    key, value = (
        _read(of, scales, rows).masked_fill(~is_held[..., None, None], 0)
        for of, scales in ((keys, key_scales), (values, value_scales))
    )
    group = (batch, kv_heads, heads // kv_heads, head_dim)
    scores = torch.einsum("bkgd,bskd->bkgs", query.view(group), key)
    if pinned:
        far = torch.einsum("bkgd,bskd->bkgs", far_query.view(group), key[:, :pinned])
        scores = torch.cat([far, scores[..., pinned:]], dim=-1)
    scores = scores.masked_fill(~is_held[:, None, None], -torch.inf)
    y = torch.einsum("bkgs,bskd->bkgd", (scores * head_dim**-0.5).softmax(-1), value)
    return _only(y.reshape(batch, heads * head_dim), active).to(dtype)


def sample_seeded(
    logits: Tensor,
    seed: Tensor,
    draw: Tensor,
    stream: int,
    active: Tensor | None,
    temperature: float,
    top_k: int,
    top_p: float,
) -> Tensor:
    """`sample` of model/sampling.py, int64 [B], with the numbers of a `philox`."""
    config = SamplingConfig(temperature, top_k, top_p)
    return _only(sample(logits, config, philox(seed, draw, stream)), active)


def philox(seed: Tensor, draw: Tensor, stream: int) -> Tensor:
    """Philox4x32-10 (Salmon et al., SC 2011) under key `seed`, at counter (draw, stream), int64:
    the first 53 bits as float64 [B] in [0, 1)."""
    low, high = _words(seed)
    a, b = _words(draw)
    c, d = _words(torch.full_like(draw, stream))
    for _ in range(10):
        of_a, of_c = _words(a * 0xD2511F53), _words(c * 0xCD9E8D57)
        a, b, c, d = of_c[1] ^ b ^ low, of_c[0], of_a[1] ^ d ^ high, of_a[0]
        low, high = (low + 0x9E3779B9) & _WORD, (high + 0xBB67AE85) & _WORD
    return ((a << 21) | (b >> 11)).double() * 2.0**-53


def conv_input(
    x: Tensor, past: Tensor, started: Tensor | None, active: Tensor | None, elu: bool, pad_mode: str
) -> Tensor:
    """What a causal convolution's product takes: `past` [B, steps, C], then x [B, T, C], after an
    ELU where one is asked for -> [B, steps + T, C]; `past` becomes its end. `started` and
    `pad_mode` are those of `StreamedConv`; without `started` fresh streams begin with zeros."""
    x, steps = F.elu(x) if elu else x, past.shape[1]
    if started is None:
        return _only(with_past(x, steps, PastState(past), active), active)
    return _only(padded(x, steps, PaddedState(past, started), active, pad_mode), active)


def conv_transpose_output(
    windows: Tensor, overlap: Tensor, bias: Tensor | None, active: Tensor | None, hop: int
) -> Tensor:
    """`overlap_add` of windows [B, T, window, C], and a bias [C] -> [B, T * hop, C]."""
    y = overlap_add(windows, hop, OverlapState(overlap), active)
    return _only(y if bias is None else y + bias, active).contiguous()


def rvq_encode(
    x: Tensor, semantic: Tensor | None, acoustic: Tensor, square_norms: Tensor
) -> Tensor:
    """Codes int64 [B, K] of latents [B, Ds + Da] under `semantic` [N, Ds], where there is such a
    codebook, and a residual stack `acoustic` [K or K - 1, N, Da]; `square_norms` [K, N]."""
    split = 0 if semantic is None else semantic.shape[1]
    first, residual = x.float().tensor_split([split], dim=1)
    codes = []
    if semantic is not None:
        codes.append((square_norms[0] - 2 * first @ semantic.T).argmin(-1))
    for codebook, norms in zip(acoustic, square_norms[len(codes) :], strict=True):
        codes.append((norms - 2 * residual @ codebook.T).argmin(-1))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes, dim=1)


def embedding_sum(tokens: Tensor, tables: list[Tensor]) -> Tensor:
    """The sum [B, dim] of one row of each table [rows, dim]: `tokens` int64 [B, tables], negative
    for none."""
    total = tables[0].new_zeros(len(tokens), tables[0].shape[1], dtype=torch.float32)
    for token, table in zip(tokens.unbind(1), tables, strict=True):
        total += _only(table[token.clamp(min=0)].float(), token >= 0)
    return total.to(tables[0].dtype)


@cache
def register() -> None:
    """Tells torch of the references and of what comes out of each; the library has the schemas."""
    for name, (reference, fake) in OPERATORS.items():
        torch.library.impl(f"duologue::{name}", "CPU")(_by_itself(reference))
        torch.library.register_fake(f"duologue::{name}")(fake)


def _by_itself(reference: Callable[..., Any]) -> Callable[..., Any]:
    """Done by PyTorch all through: a reference uses modules' code, which would use operators."""

    @wraps(reference)
    def run(*arguments: Any) -> Any:
        with use_kernels("off"):
            return reference(*arguments)

    return run


def _turn(position: Tensor, half_turns: Tensor) -> Turn:
    angle = position[:, None, None, None] * half_turns * math.pi  # [B, 1, 1, D / 2]
    return Turn(angle.cos().float(), angle.sin().float())


def _write(into: Tensor, scales: Tensor | None, at: tuple[Tensor, Tensor], new: Tensor) -> None:
    """Puts new float32 [n, kv_heads, D] where it belongs, rounded to what is kept there."""
    if scales is not None:
        scales[at] = new.abs().amax(-1) / 127  # [n, kv_heads]
        new = (new / scales[at][..., None].clamp(min=torch.finfo(torch.float32).tiny)).round()
    if into.dtype == torch.float8_e4m3fn:
        into.view(torch.uint8)[at] = new.clamp(-448, 448).to(into.dtype).view(torch.uint8)
    else:
        into[at] = new.to(into.dtype)


def _read(of: Tensor, scales: Tensor | None, rows: Tensor) -> Tensor:
    """float32 [n, slots, kv_heads, D]."""
    found = of.view(torch.uint8)[rows].view(of.dtype) if of.element_size() == 1 else of[rows]
    return found.float() if scales is None else found.float() * scales[rows][..., None]


def _only(y: Tensor, active: Tensor | None) -> Tensor:
    """0 in rows that are not active."""
    return y if active is None else y.masked_fill(~active.view(-1, *[1] * (y.dim() - 1)), 0)


def _words(bits: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper half of int64."""
    return bits & _WORD, (bits >> 32) & _WORD


def _like_first(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _fake_rope(projected, keys, values, key_scales, value_scales, position, held, active,
               half_turns, heads, window, pinned):  # fmt: skip
    query = projected.new_empty(len(projected), heads, projected.shape[2], dtype=torch.float32)
    return query, torch.empty_like(query) if pinned else query.new_empty(0)


def _fake_attention(query, *others):
    return query.new_empty(len(query), query[0].numel(), dtype=others[-1])


def _fake_sample(logits, seed, *_):
    return seed.new_empty(seed.shape)


def _fake_conv_input(x, past, *_):
    return x.new_empty(len(x), past.shape[1] + x.shape[1], x.shape[2])


def _fake_conv_transpose_output(windows, overlap, bias, active, hop):
    return windows.new_empty(len(windows), windows.shape[1] * hop, windows.shape[3])


def _fake_rvq_encode(x, semantic, acoustic, square_norms):
    return x.new_empty(len(x), len(square_norms), dtype=torch.int64)


def _fake_embedding_sum(tokens, tables):
    return tables[0].new_empty(len(tokens), tables[0].shape[1])


# What a CPU runs, and the shapes of what comes out.
OPERATORS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "residual_rms_norm": (residual_rms_norm, _like_first),
    "rope_append": (rope_append, _fake_rope),
    "ring_attention": (ring_attention, _fake_attention),
    "sample_seeded": (sample_seeded, _fake_sample),
    "conv_input": (conv_input, _fake_conv_input),
    "conv_transpose_output": (conv_transpose_output, _fake_conv_transpose_output),
    "rvq_encode": (rvq_encode, _fake_rvq_encode),
    "embedding_sum": (embedding_sum, _fake_embedding_sum),
}
