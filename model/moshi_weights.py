"""Weights of the Moshi family (arXiv 2410.00037) in our classes, and back: Moshi and PersonaPlex.

The joint arrangement is theirs, so this is renaming, and stacking of the depth transformer's
weights, which they keep one by one or one behind the other. Nothing is computed: there and back
gives the same bits. PersonaPlex's depth steps 8 to 15 predict what the caller says: they are held
and saved, and never run.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from model.duplex import DuplexConfig, DuplexModel

Layout = Literal["moshi", "personaplex"]

# Our names and theirs; `#` is a depth step, over which ours are stacked.
_RULES = [
    (r"embeddings\.agent_text\.weight", "text_emb.weight"),
    (r"code_embeddings\.(\d+)\.weight", r"emb.\1.weight"),
    (r"heads\.agent_text\.weight", "text_linear.weight"),
    (r"temporal\.norm\.weight", "out_norm.alpha"),
    (r"temporal(.*)\.attention_norm\.weight", r"transformer\1.norm1.alpha"),
    (r"temporal(.*)\.attention\.input\.weight", r"transformer\1.self_attn.in_projs.0.weight"),
    (r"temporal(.*)\.attention\.output\.weight", r"transformer\1.self_attn.out_projs.0.weight"),
    (r"temporal(.*)\.feed_forward_norm\.weight", r"transformer\1.norm2.alpha"),
    (r"temporal(.*)\.feed_forward\.input\.weight", r"transformer\1.gating.linear_in.weight"),
    (r"temporal(.*)\.feed_forward\.output\.weight", r"transformer\1.gating.linear_out.weight"),
    (r"depth\.input", "depformer_in.#.weight"),
    (r"depth\.text_embedding\.weight", "depformer_text_emb.weight"),
    (r"depth\.embeddings\.(\d+)\.weight", r"depformer_emb.\1.weight"),
    (r"depth\.heads", "linears.#.weight"),
    (r"depth(.*)\.attention_norm\.weight", r"depformer\1.norm1.alpha"),
    (r"depth(.*)\.attention_input", r"depformer\1.self_attn.in_projs.#.weight"),
    (r"depth(.*)\.attention_output", r"depformer\1.self_attn.out_projs.#.weight"),
    (r"depth(.*)\.feed_forward_norm\.weight", r"depformer\1.norm2.alpha"),
    (r"depth(.*)\.feed_forward_input", r"depformer\1.gating.#.linear_in.weight"),
    (r"depth(.*)\.feed_forward_output", r"depformer\1.gating.#.linear_out.weight"),
]
# An attention's weights in one matrix, the depth steps one behind the other.
_FUSED = re.compile(r"(?P<attention>.+\.self_attn\.)(?P<side>in|out)_proj[._]weight")
_APART = re.compile(r"(?P<attention>.+\.self_attn\.)(?P<side>in|out)_projs\.\d+\.weight")
_NAMED = 8  # differences that an error names; it counts the others


@dataclasses.dataclass(frozen=True)
class _Part:
    """One of our tensors: its shape, and the names of theirs, one or one for each depth step."""

    ours: str
    shape: torch.Size
    theirs: tuple[str, ...]

    @property
    def their_shape(self) -> torch.Size:
        """That of each of theirs."""
        if self.theirs[0].endswith("alpha"):
            return torch.Size([1, 1, *self.shape])
        return self.shape[1:] if len(self.shape) == 3 else self.shape


def from_moshi(weights: Mapping[str, Tensor], config: DuplexConfig) -> dict[str, Tensor]:
    """The state dict of `DuplexModel(config)` from that of moshi's or PersonaPlex's `LMModel`.

    An attention's weights may be one matrix for all depth steps (`in_proj_weight`,
    `in_proj.weight`, `out_proj.weight`) or one for each (`in_projs.0.weight`). Data types stay.
    What Moshi has not (action channel, user text, floor) is not in the result. ValueError names
    what is missing, unknown, there twice or of another shape.
    """
    parts = _parts(config)
    apart = _taken_apart(weights, config)
    shapes = {name: part.their_shape for part in parts for name in part.theirs}
    if differences := _differences(apart, shapes):
        raise ValueError(f"weights that do not fit the configuration: {differences}")
    return {part.ours: _joined([apart[name] for name in part.theirs], part.shape) for part in parts}


def to_moshi(
    weights: Mapping[str, Tensor], config: DuplexConfig, layout: Layout
) -> dict[str, Tensor]:
    """The opposite of `from_moshi`; what Moshi has not is left out.

    In `moshi`'s layout each depth step has a matrix of its own. In `personaplex`'s, which is that
    of Kyutai's published files too, an attention has one. The package `moshi` reads both.
    """
    parts = _parts(config)
    names = {part.ours for part in parts}
    own = {name: tensor for name, tensor in weights.items() if name in names}
    if differences := _differences(own, {part.ours: part.shape for part in parts}):
        raise ValueError(f"weights that do not fit the configuration: {differences}")
    apart = {
        name: tensor.reshape(part.their_shape)
        for part in parts
        for name, tensor in zip(part.theirs, _steps(own[part.ours], part), strict=True)
    }
    return apart if layout == "moshi" else _fused(apart)


def _parts(config: DuplexConfig) -> list[_Part]:
    """Every tensor of the model that Moshi has, with their names for it."""
    with torch.device("meta"):
        weights = DuplexModel(config).state_dict()
    assert config.depth is not None, "Moshi's arrangement is joint"
    parts = []
    for ours, tensor in weights.items():
        for rule, name in _RULES:
            if match := re.fullmatch(rule, ours):
                theirs = (
                    match.expand(name).replace("#", str(s)) for s in range(config.depth.steps)
                )
                parts.append(_Part(ours, tensor.shape, tuple(dict.fromkeys(theirs))))
    return parts


def _taken_apart(weights: Mapping[str, Tensor], config: DuplexConfig) -> dict[str, Tensor]:
    """With a matrix for each depth step."""
    assert config.depth is not None
    apart: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        named = [(name, tensor)]
        if match := _FUSED.fullmatch(name):
            steps = config.depth.steps if name.startswith("depformer.") else 1
            if tensor.shape[0] % steps:
                raise ValueError(f"{name} has {tensor.shape[0]} rows: not those of {steps} steps")
            prefix = f"{match['attention']}{match['side']}_projs"
            matrices = enumerate(tensor.chunk(steps))
            named = [(f"{prefix}.{step}.weight", matrix) for step, matrix in matrices]
        for part, matrix in named:
            if part in apart:
                raise ValueError(f"{part} is there twice, the second time as {name}")
            apart[part] = matrix
    return apart


def _fused(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With one matrix for all depth steps, named as PyTorch's own attention names it."""
    together: dict[str, list[Tensor]] = {}
    for name, tensor in weights.items():
        if match := _APART.fullmatch(name):
            side = "in_proj_weight" if match["side"] == "in" else "out_proj.weight"
            name = match["attention"] + side
        together.setdefault(name, []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in together.items()}


def _joined(theirs: list[Tensor], shape: torch.Size) -> Tensor:
    tensor = theirs[0] if len(theirs) == 1 else torch.stack(theirs)
    return tensor.reshape(shape)


def _steps(tensor: Tensor, part: _Part) -> tuple[Tensor, ...]:
    return (tensor,) if len(part.theirs) == 1 else tensor.unbind()


def _differences(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> str:
    """What is missing, unknown or of another shape, in words; empty where all is right."""
    found = [f"{name} is missing" for name in shapes if name not in weights]
    found += [f"{name} is unknown" for name in weights if name not in shapes]
    found += [
        f"{name} is {list(weights[name].shape)}, must be {list(shape)}"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != shape
    ]
    more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return "; ".join(found[:_NAMED] + more)
