"""Mimi (Défossez et al., arXiv 2410.00037) as a streaming codec.

Layers and weights are those of transformers' `MimiModel`; the state is ours, because the library
streams its encoder alone, and all rows in step. A stream gives what `MimiModel.encode` and
`MimiModel.decode` give for the whole file.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from model.attention import AttentionConfig, AttentionState, SlidingWindowAttention
from model.codec import Codec, check_codes, check_pcm
from model.frame import FRAME_SIZE, SAMPLE_RATE_HZ
from model.seanet_streaming import (
    Chain,
    ChainState,
    Stateless,
    Streamed,
    StreamedConv,
    StreamedConvTranspose,
    StreamedResidual,
    check_streams,
)
from model.streaming import State

WEIGHTS = "kyutai/mimi"


@dataclasses.dataclass
class MimiState(State):
    """One stream's encoder and decoder."""

    encoder: ChainState
    decoder: ChainState


class MimiCodec(Codec[MimiState]):
    """Mimi behind the codec interface: `model` is transformers' `MimiModel` (5.23 or later).

    The first codebook is semantic. The latent is the encoder's output after it was brought down to
    12.5 Hz, before quantisation: [B, 512]. The model is taken apart and only its layers are kept.
    """

    delay_samples = 0

    def __init__(self, model: Any, num_codebooks: int = 8) -> None:
        super().__init__()
        config = model.config
        if config.sampling_rate != SAMPLE_RATE_HZ or config.frame_size != FRAME_SIZE:
            raise ValueError(
                f"model has {config.sampling_rate} Hz and frames of {config.frame_size} samples: "
                f"must be {SAMPLE_RATE_HZ} Hz and {FRAME_SIZE}"
            )
        if not config.num_semantic_quantizers <= num_codebooks <= config.num_quantizers:
            raise ValueError(
                f"num_codebooks {num_codebooks}: must lie in "
                f"{config.num_semantic_quantizers}..{config.num_quantizers}"
            )
        self.num_codebooks, self.codebook_size = num_codebooks, config.codebook_size
        self.latent_dim = config.hidden_size
        self.quantizer = model.quantizer
        encoder, decoder = model.encoder, model.decoder
        self.encoder = _chain(
            encoder.encoder_seanet, encoder.encoder_transformer, [encoder.downsample]
        )
        self.decoder = _chain(
            [decoder.upsample], decoder.decoder_transformer, decoder.decoder_seanet
        )
        self.eval().requires_grad_(False)

    @classmethod
    def pretrained(cls, num_codebooks: int = 8) -> "MimiCodec":
        """With the published weights; ImportError or RuntimeError say what is missing."""
        return cls(load_mimi(), num_codebooks)

    def init_state(self, batch: int) -> MimiState:
        """A fresh state of encoder and decoder for `batch` rows."""
        return MimiState(self.encoder.init_state(batch), self.decoder.init_state(batch))

    @torch.no_grad()
    def hear(self, pcm: Tensor, state: MimiState, active: Tensor | None = None) -> Tensor:
        """float32 [B, 1920] -> latent [B, 512]."""
        check_pcm(pcm)
        return self.encoder(pcm[:, :, None], state.encoder, active)[:, 0].float()

    @torch.no_grad()
    def quantize(self, latent: Tensor) -> Tensor:
        """[B, 512] -> codes [B, num_codebooks]."""
        codes = self.quantizer.encode(latent[:, :, None], self.num_codebooks)  # [K, B, 1]
        return codes[:, :, 0].T.contiguous()

    @torch.no_grad()
    def decode(self, codes: Tensor, state: MimiState, active: Tensor | None = None) -> Tensor:
        """int64 [B, num_codebooks] -> float32 [B, 1920]."""
        check_codes(codes, self)
        embedding = self.quantizer.decode(codes[:, :, None])  # [B, 512, 1]
        return self.decoder(embedding.transpose(1, 2), state.decoder, active)[:, :, 0].float()


def load_mimi() -> Any:
    """transformers' `MimiModel` with its published weights, through the Hugging Face cache."""
    try:
        from transformers import MimiModel
    except (ImportError, OSError, RuntimeError) as error:  # the latter: a broken torchaudio
        raise ImportError(
            f"Mimi needs the package transformers ({error}). Install it with "
            "`pip install 'transformers>=5.23,<6'`, and no torchaudio but one built for exactly "
            f"the installed torch {torch.__version__}: transformers imports it where it finds it"
        ) from error
    try:
        return MimiModel.from_pretrained(WEIGHTS)
    except OSError as error:
        raise RuntimeError(
            f"Mimi's weights could not be loaded ({error}). They come from "
            f"https://huggingface.co/{WEIGHTS}: allow that download, or fetch them elsewhere with "
            f"`hf download {WEIGHTS}` and copy the folder that HF_HOME names"
        ) from error


def _chain(*parts: Any) -> Chain:
    """Wraps parts of the library's model, each a layer list or a module with one."""
    return Chain(_streamed(layer) for part in parts for layer in getattr(part, "layers", part))


def _streamed(layer: nn.Module) -> Streamed:
    """Wraps one layer of the library's encoder or decoder."""
    from transformers.models.mimi import modeling_mimi as mimi

    kind: Any = layer  # the library's attributes are not all typed
    if isinstance(layer, mimi.MimiConv1d):
        check_streams(kind.causal, layer)
        return StreamedConv(kind.conv, kind.pad_mode)
    if isinstance(layer, mimi.MimiConvTranspose1d):
        check_streams(kind.padding_left == 0, layer)
        return StreamedConvTranspose(kind.conv)
    if isinstance(layer, mimi.MimiResnetBlock):
        return StreamedResidual(_chain(kind.block), _streamed(kind.shortcut))
    if isinstance(layer, mimi.MimiTransformerLayer):
        return StreamedTransformerLayer(layer)
    check_streams(isinstance(layer, nn.ELU | nn.Identity), layer)
    return Stateless(layer)


class StreamedTransformerLayer(Streamed):
    """A layer of Mimi's transformers at 25 Hz, with our attention in place of the library's."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.attention = attention_of(layer.self_attn)
        self.attention_norm, self.attention_scale = (
            layer.input_layernorm,
            layer.self_attn_layer_scale,
        )
        self.network_norm, self.network_scale = (
            layer.post_attention_layernorm,
            layer.mlp_layer_scale,
        )
        self.network = layer.mlp

    def init_state(self, batch: int) -> AttentionState:
        """A fresh state for `batch` rows."""
        return self.attention.init_state(batch)

    def forward(
        self, x: Tensor, state: AttentionState | None = None, active: Tensor | None = None
    ) -> Tensor:
        x = x + self.attention_scale(self.attention(self.attention_norm(x), state, active))
        return x + self.network_scale(self.network(self.network_norm(x)))


def attention_of(library: Any) -> SlidingWindowAttention:
    """Our attention with the weights of transformers' `MimiAttention`.

    The library turns channel i with channel i + half; ours are neighbours, as in the weights that
    Kyutai trained. Queries and keys are brought back into that order.
    """
    config = library.config
    assert not config.attention_bias, "attention with biases is not supported"
    assert config.rope_parameters["rope_type"] == "default", "only plain rotary positions"
    ours = SlidingWindowAttention(
        AttentionConfig(
            dim=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            window=config.sliding_window,
            rope_period=config.rope_parameters["rope_theta"],
        )
    )
    head_dim = ours.config.head_dim
    assert config.head_dim == head_dim, f"head_dim {config.head_dim} must be {head_dim}"

    def neighbours(weight: Tensor) -> Tensor:
        """[heads * head_dim, dim], channels of a head from (half, pair) to (pair, half)."""
        halves = weight.unflatten(0, (-1, 2, head_dim // 2))  # [heads, 2, head_dim / 2, dim]
        return halves.transpose(1, 2).flatten(0, 2)

    query, key = neighbours(library.q_proj.weight), neighbours(library.k_proj.weight)
    ours.input.weight = nn.Parameter(torch.cat([query, key, library.v_proj.weight]).detach())
    ours.output.weight = nn.Parameter(library.o_proj.weight.detach())
    return ours
