"""The temporal transformer with its streams: it hears the caller, decides what to say and to do.

Frame positions carry one frame of every stream, action positions one token of the action channel
between two frames. A model of the family of Moshi (arXiv 2410.00037) has no action channel, its own
tables for what goes in and what comes out, and codes of both sides; ours has one table for all.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from model.attention import AttentionState, packing_of
from model.depth import DepthConfig, DepthTransformer
from model.frame import FLOORS
from model.ops import kept, kernels_for, linear, packed
from model.pointer import Pointed, Pointer, log_probability, mix, mixed_target
from model.streaming import State
from model.transformer import Transformer, TransformerConfig, TransformerState

Stream = Literal["agent_text", "user_text", "action"]
STREAMS: tuple[Stream, ...] = ("agent_text", "user_text", "action")
PADDING, FRAME, ACTION = 0, 1, 2  # kinds of positions
_POINTS_AT: dict[Stream, int] = {"agent_text": 0, "action": 1}  # row of `copy_targets`


@dataclasses.dataclass(frozen=True)
class DuplexConfig:
    """What goes in and comes out beside the temporal transformer.

    `arrangement` split: the caller's latents of `latent_dim` channels go in, the agent's codes are
    not this model's business. joint: `codebooks` codes of each side go in, and `depth` makes the
    agent's; codebooks after the first come `acoustic_delay` frames later. `vocabulary` is that of
    all `streams`, `pad` its token for nothing said; `tied`: they share one table for both
    directions. `pointer_dim` above 0: agent text can point at the action channel, actions at the
    user's words.
    """

    vocabulary: int
    temporal: TransformerConfig
    arrangement: Literal["split", "joint"] = "split"
    latent_dim: int = 0
    codebooks: int = 0
    codebook: int = 0
    acoustic_delay: int = 1
    depth: DepthConfig | None = None
    streams: tuple[Stream, ...] = STREAMS
    tied: bool = True
    pointer_dim: int = 0
    pad: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", tuple(self.streams))  # a list, out of JSON or Hydra
        assert self.vocabulary > 0, f"vocabulary {self.vocabulary} must be positive"
        assert set(self.streams) <= set(STREAMS), f"streams {self.streams}: must be of {STREAMS}"
        assert "agent_text" in self.streams, f"streams {self.streams}: must hold agent_text"
        if self.arrangement == "split":
            assert self.latent_dim > 0, f"latent_dim {self.latent_dim}: must be positive in split"
            assert self.depth is None, "depth: must be null in split, the speech transformer has it"
        else:
            assert self.arrangement == "joint", f"arrangement {self.arrangement}: split or joint"
            assert min(self.codebooks, self.codebook) > 0, "codebooks, codebook: must be positive"
            assert self.depth is not None, "depth: must be given in joint"
            assert self.depth.input_dim == self.temporal.dim, (
                f"depth.input_dim {self.depth.input_dim}: must be temporal.dim {self.temporal.dim}"
            )
            assert self.depth.steps >= self.codebooks, (
                f"depth.steps {self.depth.steps}: must be at least codebooks {self.codebooks}"
            )
        assert not self.pointer_dim or set(self.streams) == set(STREAMS), (
            f"pointer_dim {self.pointer_dim}: only with all of {STREAMS}"
        )


class Inputs(NamedTuple):
    """What goes in at positions [B, T]; integers are int64, masks bool.

    `agent_text` and `user_text` are the tokens of the frame before, `action` the newest token of an
    open burst (else `<idle>`), `is_new` whether it came at the position before this one. `latents`
    [B, T, D] are the caller's (split), `is_heard` whether there are any; where not, `is_speaking`
    says whether he speaks. Codes [B, T, K] (joint) come as the delays place them; index `codebook`
    stands for a frame before the first, -1 for nothing. What is no frame goes by its action alone.
    """

    kind: Tensor
    action: Tensor
    is_new: Tensor
    agent_text: Tensor
    user_text: Tensor
    latents: Tensor
    is_heard: Tensor
    is_speaking: Tensor
    agent_codes: Tensor
    user_codes: Tensor


@dataclasses.dataclass
class DuplexState(State):
    """All that the model remembers of its rows."""

    temporal: TransformerState
    pointers: tuple[AttentionState, ...]


class Outputs(NamedTuple):
    """`hidden` [B, T, dim] behind the last norm, and where the streams that can point do so."""

    hidden: Tensor
    pointed: dict[Stream, Pointed]


class DuplexModel(nn.Module):
    """Inputs at any number of positions, with or without state, to Outputs; then ask for a stream.

    Buffers: `copy_targets` int64 [2, vocabulary], what agent text writes for a token of the action
    channel and what that writes for one of the caller's; the mean and the deviation of latents [D].
    """

    copy_targets: Tensor
    latent_mean: Tensor
    latent_deviation: Tensor

    def __init__(self, config: DuplexConfig) -> None:
        super().__init__()
        dim, rows = config.temporal.dim, config.vocabulary
        self.config = config
        self.temporal = Transformer(config.temporal)
        if config.tied:
            self.embedding = nn.Embedding(rows, dim)
            nn.init.normal_(self.embedding.weight, std=dim**-0.5)
            self.input_rotations = _rotations(config.streams, dim)
            self.output_rotations = _rotations(config.streams, dim)
        else:  # one row more: before the first frame
            self.embeddings = nn.ModuleDict(
                {s: nn.Embedding(rows + 1, dim) for s in config.streams}
            )
            self.heads = nn.ModuleDict(
                {s: nn.Linear(dim, rows, bias=False) for s in config.streams}
            )
        if "action" in config.streams:
            self.action_position = nn.Parameter(torch.randn(dim))
        if "user_text" in config.streams:
            self.floor_head = nn.Linear(dim, len(FLOORS))
        self.pointers = nn.ModuleDict()
        if config.pointer_dim:
            window = config.temporal.attention.reach
            self.pointers = nn.ModuleDict(
                {s: Pointer(dim, config.pointer_dim, window) for s in _POINTS_AT}
            )
            self.register_buffer("copy_targets", torch.arange(rows).repeat(2, 1))  # [2, V]
        if config.arrangement == "split":
            self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
            self.register_buffer("latent_deviation", torch.ones(config.latent_dim))
            self.latent_input = nn.Linear(config.latent_dim, dim)
            self.unheard = nn.Embedding(2, dim)
        else:
            assert config.depth is not None
            self.code_embeddings = nn.ModuleList(
                nn.Embedding(config.codebook + 1, dim) for _ in range(2 * config.codebooks)
            )  # the agent's, then the caller's
            self.depth = DepthTransformer(config.depth)

    def init_state(self, batch: int) -> DuplexState:
        """A fresh state for `batch` rows."""
        pointers = tuple(pointer.init_state(batch) for pointer in self._pointers().values())
        return DuplexState(self.temporal.init_state(batch), pointers)

    def forward(
        self,
        inputs: Inputs,
        state: DuplexState | None = None,
        active: Tensor | None = None,
        segment: Tensor | None = None,
    ) -> Outputs:
        x = self._embed(inputs)  # [B, T, dim]
        hidden = self.temporal(x, state and state.temporal, active, segment)
        pointed: dict[Stream, Pointed] = {}
        for index, (stream, pointer) in enumerate(self._pointers().items()):
            packing = None if segment is None else packing_of(segment, pointer.config)
            source = _sources(stream, inputs, self.config.pad)
            past = state and state.pointers[index]
            pointed[stream] = pointer(hidden, source, past, active, packing)
        return Outputs(hidden, pointed)

    def log_probabilities(self, outputs: Outputs, stream: Stream) -> Tensor:
        """Of a stream's next token, float32 [B, T, vocabulary]."""
        hidden = outputs.hidden
        if self.config.tied and hidden.shape[1] == 1 and (ops := kernels_for(hidden)):
            return self._log_probabilities(ops, outputs, stream)
        logits = self.logits(hidden, stream)
        if stream in outputs.pointed:
            return mix(logits, outputs.pointed[stream], self._copied(stream))
        return logits.log_softmax(dim=-1)

    def log_probability(self, outputs: Outputs, stream: Stream, target: Tensor) -> Tensor:
        """Of the tokens target int64 [B, T] alone, float32 [B, T]; what training needs."""
        logits = self.logits(outputs.hidden, stream)
        if stream in outputs.pointed:
            return mixed_target(logits, outputs.pointed[stream], self._copied(stream), target)
        return log_probability(logits, target)

    def logits(self, hidden: Tensor, stream: Stream) -> Tensor:
        """Of naming a stream's next token, hidden [..., dim] -> float32 [..., vocabulary]."""
        if not self.config.tied:
            return self.heads[stream](hidden).float()
        rotated = self.output_rotations[stream](hidden)
        return nn.functional.linear(rotated, self.embedding.weight).float()

    def floor(self, hidden: Tensor) -> Tensor:
        """Logits of who holds the floor, hidden [..., dim] -> float32 [..., len(FLOORS)]."""
        return linear(self.floor_head, hidden).float()

    def _log_probabilities(self, ops: Any, outputs: Outputs, stream: Stream) -> Tensor:
        """Of one position, as one operator."""
        rotation, pointed = self.output_rotations[stream], outputs.pointed.get(stream)
        assert isinstance(rotation, nn.Linear)
        copying = (None, None, None, None)
        if pointed is not None:
            gate = pointed.gate[:, 0]
            copying = (pointed.weights[:, 0], pointed.sources, gate, self._copied(stream))
        y = ops.log_probabilities(
            outputs.hidden[:, 0].contiguous(),
            packed(rotation),
            packed(self.embedding),
            self.config.vocabulary,
            *copying,
        )
        return y[:, None]

    def _embed(self, inputs: Inputs) -> Tensor:
        is_ours = self.config.tied and set(self.config.streams) == set(STREAMS)
        is_ours &= self.config.arrangement == "split" and inputs.kind.shape[1] == 1
        if is_ours and (ops := kernels_for(inputs.latents)):
            return self._embed_at_once(ops, inputs)
        is_frame = (inputs.kind == FRAME)[..., None]  # [B, T, 1]
        x = self._embed_token("agent_text", inputs.agent_text)
        if "user_text" in self.config.streams:
            x = x + self._embed_token("user_text", inputs.user_text)
        x = x + self._embed_caller(inputs)
        if "action" not in self.config.streams:
            return x
        x = torch.where(is_frame, x, self.action_position.to(x.dtype))
        return x + self._embed_token("action", inputs.action)

    def _embed_at_once(self, ops: Any, inputs: Inputs) -> Tensor:
        """The same as one operator."""
        rows = (
            inputs.kind == FRAME,
            inputs.agent_text,
            inputs.user_text,
            inputs.action,
            inputs.latents,
            inputs.is_heard,
            inputs.is_speaking,
        )
        tables = kept(self.input_rotations, self._tables, self.embedding)
        weights = [
            *tables,
            self.action_position,
            self.unheard.weight,
            self.latent_mean,
            self.latent_deviation,
            packed(self.latent_input),
            self.latent_input.bias,
        ]
        y = ops.frame_input(*(each.flatten(0, 1).contiguous() for each in rows), weights)
        return y.unflatten(0, inputs.kind.shape)

    def _tables(self) -> list[Tensor]:
        """What goes in for each token, a table a stream."""
        every = torch.arange(self.config.vocabulary)
        return [self._embed_token(stream, every).contiguous() for stream in STREAMS]

    def _embed_token(self, stream: Stream, tokens: Tensor) -> Tensor:
        if self.config.tied:
            # The table is scaled for what comes out.
            scale = self.config.temporal.dim**0.5
            return self.input_rotations[stream](self.embedding(tokens)) * scale
        return _embed_or_nothing(self.embeddings[stream], tokens)

    def _embed_caller(self, inputs: Inputs) -> Tensor:
        if self.config.arrangement == "split":
            latents = (inputs.latents - self.latent_mean) / self.latent_deviation
            heard = self.latent_input(latents)
            unheard = self.unheard(inputs.is_speaking.long()).to(heard.dtype)
            return torch.where(inputs.is_heard[..., None], heard, unheard)
        codes = torch.cat([inputs.agent_codes, inputs.user_codes], dim=-1)  # [B, T, 2 K]
        tables = zip(self.code_embeddings, codes.unbind(-1), strict=True)
        return torch.stack([_embed_or_nothing(table, code) for table, code in tables]).sum(0)

    def _pointers(self) -> dict[Stream, Pointer]:
        pointers: dict[Stream, Pointer] = {}
        for stream in _POINTS_AT:
            if stream in self.pointers:
                pointer = self.pointers[stream]
                assert isinstance(pointer, Pointer)
                pointers[stream] = pointer
        return pointers

    def _copied(self, stream: Stream) -> Tensor:
        return self.copy_targets[_POINTS_AT[stream]]


def _rotations(streams: tuple[Stream, ...], dim: int) -> nn.ModuleDict:
    """What tells the streams apart that share a table."""
    rotations = nn.ModuleDict({stream: nn.Linear(dim, dim, bias=False) for stream in streams})
    for rotation in rotations.values():
        assert isinstance(rotation, nn.Linear)
        nn.init.orthogonal_(rotation.weight)
    return rotations


def _embed_or_nothing(table: nn.Module, index: Tensor) -> Tensor:
    """Rows of an embedding, zeros where the index is negative."""
    return table(index.clamp(min=0)) * (index >= 0)[..., None]


def _sources(stream: Stream, inputs: Inputs, pad: int) -> Tensor:
    """What a stream can point at [B, T]: token + 1, or 0. Each token of a source counts once."""
    if stream == "agent_text":
        return torch.where(inputs.is_new, inputs.action + 1, 0)
    is_word = (inputs.kind == FRAME) & (inputs.user_text != pad)
    return torch.where(is_word, inputs.user_text + 1, 0)
