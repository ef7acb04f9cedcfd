"""Says the agent's text: a streaming synthesiser inside the split model.

    text -> reader -> phones due now and soon --.
    codes of the frame before --------------------+-> transformer -> depth transformer -> codes

It sees no sound but its own and no text but what is to be said, so it learns from any sentence that
a voice has spoken. Where nothing is to be said it does not run: the codec's silence comes out, and
the transformer goes on with the next word as if the silence had not been.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.codec import Codec
from model.depth import DepthConfig, DepthTransformer
from model.frame import FRAME_SIZE
from model.ops import kept, kernels_for, pack
from model.reading import Reader, ReaderConfig, ReaderState, Reading
from model.sampling import Sampler
from model.streaming import State, keep
from model.transformer import RMSNorm, Transformer, TransformerConfig, TransformerState

_SILENT_FRAMES = 25  # after which the codec's codes of silence no longer change


@dataclass(frozen=True)
class SpeechConfig:
    """Sizes of the parts; `depth.steps` codebooks are spoken. `transformer.pinned` frames at a
    row's beginning, a voice's prompt, are never forgotten."""

    reader: ReaderConfig
    transformer: TransformerConfig
    depth: DepthConfig

    def __post_init__(self) -> None:
        assert self.depth.input_dim == self.transformer.dim, (
            f"depth.input_dim {self.depth.input_dim} must be transformer.dim {self.transformer.dim}"
        )
        assert self.depth.text_vocabulary == 0, "the depth transformer is told no text"


@dataclass
class SpeechState(State):
    """`codes` int64 [B, K]: the last frame's, each plus 1; 0 where it was silence."""

    reader: ReaderState
    transformer: TransformerState
    codes: Tensor


class SummedEmbedding(nn.Module):
    """int64 [..., columns] -> the sum of a vector for each column [..., dim].

    Column i has `sizes[i]` values; where `skip_zero`, 0 has no vector.
    """

    offset: Tensor

    def __init__(self, sizes: tuple[int, ...], dim: int, skip_zero: bool) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(sum(sizes) + 1, dim, mode="sum", padding_idx=0)
        nn.init.normal_(self.table.weight, std=len(sizes) ** -0.5)
        with torch.no_grad():
            self.table.weight[0] = 0
        offset = torch.tensor([0, *sizes[:-1]]).cumsum(0) + 1
        self.register_buffer("offset", offset, persistent=False)
        self.skip_zero = skip_zero

    def forward(self, values: Tensor) -> Tensor:
        places = values + self.offset
        if self.skip_zero:
            places = torch.where(values > 0, places, 0)
        return self.table(places.flatten(0, -2)).unflatten(0, values.shape[:-1])


class SpeechTransformer(nn.Module):
    """Agent text, one token a frame, to the agent's codes."""

    silence: Tensor

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.reader = Reader(config.reader)
        dim, depth = config.transformer.dim, config.depth
        reader = config.reader
        self.words = SummedEmbedding(reader.word_sizes, dim, skip_zero=True)
        self.word_sound = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.word_roles = nn.Linear(reader.roles * dim, dim, bias=False)
        self.times = SummedEmbedding(reader.frame_sizes, dim, skip_zero=False)
        self.codes = SummedEmbedding((depth.codebook + 1,) * depth.steps, dim, skip_zero=False)
        self.join = nn.Sequential(
            nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim, bias=False)
        )
        self.norm = RMSNorm(dim, config.transformer.norm_eps)
        self.transformer = Transformer(config.transformer)
        self.depth = DepthTransformer(depth)
        self.register_buffer("silence", torch.zeros(depth.steps, dtype=torch.int64))

    def init_state(self, batch: int) -> SpeechState:
        """A fresh state for `batch` rows."""
        return SpeechState(
            self.reader.init_state(batch),
            self.transformer.init_state(batch),
            self.silence.new_zeros(batch, self.config.depth.steps),
        )

    def forward(
        self,
        features: Tensor,
        previous: Tensor,
        state: TransformerState | None = None,
        active: Tensor | None = None,
        segment: Tensor | None = None,
    ) -> Tensor:
        """What the depth transformer says spoken frames from: [B, T, dim].

        `features` int64 [B, T, columns] are the reader's of those frames, one behind the other;
        `previous` int64 [B, T, K] the codes of the frame before each (`codebook`: unknown);
        `segment` as in `Transformer`.
        """
        reader = self.config.reader
        each = len(reader.word_sizes)
        words, frame = features.tensor_split([reader.roles * each], dim=-1)
        sound = self.words(words.unflatten(-1, (reader.roles, each)))  # [B, T, roles, dim]
        sound = sound + self.word_sound(sound)
        text = self.word_roles(sound.flatten(-2)) + self.times(frame)
        codes = self.codes(previous)
        x = text + codes + self.join(torch.cat([text, codes], dim=-1))
        return self.transformer(self.norm(x), state, active, segment)

    @torch.no_grad()
    def step(
        self,
        text: Tensor,
        state: SpeechState,
        sample: Callable[[Tensor, int], Tensor],
        active: Tensor | None = None,
    ) -> Tensor:
        """The codes int64 [B, K] of the frame that brings the tokens `text` int64 [B].

        `sample(logits, step)` picks from float32 [B, codebook] -> int64 [B]; rows that say nothing
        are in it and are not looked at.
        """
        hidden, is_spoken = self._hear(text, state, active)
        codes = self.silence.repeat(len(text), 1)
        if hidden is not None:
            codes[is_spoken] = self.depth.generate(hidden, _only(is_spoken, sample))
        self._remember(codes, is_spoken, state, active)
        return codes

    @torch.no_grad()
    def prefill(
        self, text: Tensor, codes: Tensor, state: SpeechState, active: Tensor | None = None
    ) -> None:
        """Goes on as if `text` int64 [B, T] had been said with `codes` int64 [B, T, K]: a voice's
        prompt."""
        for token, said in zip(text.unbind(1), codes.unbind(1), strict=True):
            _, is_spoken = self._hear(token, state, active)
            self._remember(said, is_spoken, state, active)

    def hush(self, state: SpeechState, mask: Tensor) -> None:
        """Drops what the rows in `mask` (bool [B]) still have to say: the next frame is silence."""
        state.reader.reset(mask)

    def _hear(
        self, text: Tensor, state: SpeechState, active: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """What is known of the rows that speak [n, dim] (None: none does), and which do [B]."""
        reading: Reading = self.reader(text[:, None], state.reader, active)
        is_spoken = reading.is_spoken[:, 0]
        if active is not None:
            is_spoken = is_spoken & active
        if not is_spoken.any():
            return None, is_spoken
        previous = torch.where(state.codes > 0, state.codes - 1, self.silence)
        if ops := kernels_for(self.norm.weight):
            x = self._input(ops, reading.features[:, 0], previous, is_spoken)
            x = self.transformer(x[:, None], state.transformer, is_spoken)
        else:
            x = self(reading.features, previous[:, None], state.transformer, is_spoken)
        return x[is_spoken, 0], is_spoken  # of [B, 1, dim]

    def _input(self, ops: Any, features: Tensor, previous: Tensor, is_spoken: Tensor) -> Tensor:
        """What goes into the transformer, as one operator: [B, dim]."""
        parts = (self.words, self.times, self.codes)
        return ops.speech_input(
            features.contiguous(),
            previous.contiguous(),
            [part.table.weight for part in parts],
            [part.offset for part in parts],
            kept(self.word_sound, self._weights, self.word_roles, self.join, self.norm),
            is_spoken,
            self.config.reader.roles,
            self.norm.eps,
        )

    def _weights(self) -> list[Tensor]:
        sound, join = self.word_sound.get_parameter, self.join.get_parameter
        return [
            pack(sound("0.weight")),
            sound("0.bias"),
            pack(sound("2.weight")),
            sound("2.bias"),
            pack(self.word_roles.weight),
            pack(join("0.weight")),
            join("0.bias"),
            pack(join("2.weight")),
            self.norm.weight,
        ]

    def _remember(
        self, codes: Tensor, is_spoken: Tensor, state: SpeechState, active: Tensor | None
    ) -> None:
        keep(state.codes, torch.where(is_spoken[:, None], codes + 1, 0), active)


def _only(rows: Tensor, sample: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """`sample`, which wants every row, for the logits of some rows (bool [B])."""
    if isinstance(sample, Sampler):
        return sample.only(rows)

    def sample_some(logits: Tensor, step: int) -> Tensor:
        whole = logits.new_zeros(len(rows), logits.shape[1])
        whole[rows] = logits
        return sample(whole, step)[rows]

    return sample_some


@torch.no_grad()
def silence_of(codec: Codec) -> Tensor:
    """The codes [K] that the codec makes of silence, once it has heard enough of it."""
    state = codec.init_state(1)
    nothing = torch.zeros(1, FRAME_SIZE)
    for _ in range(_SILENT_FRAMES):
        frame = codec.encode(nothing, state)
    return frame.codes[0]
