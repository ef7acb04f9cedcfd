"""EnCodec at 24 kHz (Défossez et al., arXiv 2210.13438) as a streaming codec.

EnCodec makes 75 steps a second, so one frame of 80 ms is 6 of its steps. Layers and weights are the
`encodec` package's; the state is ours (`model.seanet_streaming`).

How a stream differs from the package's whole file. The published model mirrors the beginning of the
file into the time before it (`pad_mode="reflect"`), at every convolution. Two of them, the
encoder's last and the decoder's first, run at 75 Hz and mirror 6 steps about the first one: they
need 7, and the first frame has 6. We do what the package does with a file of one frame: the missing
step counts as zeros. In consequence, with the published model,

- encoding: the latent of the very first step of a stream (13 ms), and thus its codes, may differ
  from the whole file's. Everything after it is the same.
- decoding: the decoder's first convolution gives another output at that one step. Its LSTM
  remembers it, so the audio differs in the first frame and then less and less.
- a stream of one frame equals a file of one frame, in both directions.

With `pad_mode="constant"` streams and files are the same throughout.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from model.codec import Codec, check_codes, check_pcm
from model.frame import FRAME_RATE_HZ, FRAME_SIZE, SAMPLE_RATE_HZ
from model.seanet_streaming import (
    Chain,
    ChainState,
    Stateless,
    Streamed,
    StreamedConv,
    StreamedConvTranspose,
    StreamedLstm,
    StreamedResidual,
    check_streams,
)
from model.streaming import State


@dataclasses.dataclass
class EncodecState(State):
    """One stream's encoder and decoder."""

    encoder: ChainState
    decoder: ChainState


class EncodecCodec(Codec[EncodecState]):
    """EnCodec behind the codec interface: `model` is the package's 24 kHz `EncodecModel`.

    `bandwidth_kbps` is one of the model's (1.5, 3, 6, 12, 24). A frame's codes are its 6 steps in
    order, each with its codebooks in order: K = 6 * codebooks, code [step * codebooks + codebook].
    The latent is the encoder's output in the same order: [B, 6 * 128]. The model's weight
    normalisation is folded into its weights, once: the same function, computed faster.
    """

    delay_samples = 0

    def __init__(self, model: Any, bandwidth_kbps: float = 1.5) -> None:
        super().__init__()
        if model.sample_rate != SAMPLE_RATE_HZ or model.channels != 1:
            raise ValueError(
                f"model has {model.sample_rate} Hz and {model.channels} channels: "
                f"must be the {SAMPLE_RATE_HZ} Hz mono model"
            )
        if bandwidth_kbps not in model.target_bandwidths:
            raise ValueError(
                f"bandwidth_kbps {bandwidth_kbps}: must be one of {model.target_bandwidths}"
            )
        self.quantizer, self.step_rate_hz = model.quantizer, model.frame_rate
        self.steps = round(self.step_rate_hz / FRAME_RATE_HZ)
        assert self.steps * model.encoder.hop_length == FRAME_SIZE, "steps do not fill a frame"
        self.bandwidth_kbps = bandwidth_kbps
        self.step_codebooks = model.quantizer.get_num_quantizers_for_bandwidth(
            self.step_rate_hz, bandwidth_kbps
        )
        self.num_codebooks = self.steps * self.step_codebooks
        self.codebook_size = model.quantizer.bins
        self.latent_dim = self.steps * model.encoder.dimension
        _fold_weight_norm(model)
        self.encoder = Chain(_streamed(layer) for layer in model.encoder.model)
        self.decoder = Chain(_streamed(layer) for layer in model.decoder.model)
        self.eval().requires_grad_(False)

    @classmethod
    def pretrained(cls, bandwidth_kbps: float = 1.5) -> "EncodecCodec":
        """With the published weights; ImportError or RuntimeError say what is missing."""
        return cls(load_encodec(), bandwidth_kbps)

    def init_state(self, batch: int) -> EncodecState:
        """A fresh state of encoder and decoder for `batch` rows."""
        return EncodecState(self.encoder.init_state(batch), self.decoder.init_state(batch))

    @torch.no_grad()
    def hear(self, pcm: Tensor, state: EncodecState, active: Tensor | None = None) -> Tensor:
        """float32 [B, 1920] -> latent [B, 6 * 128]."""
        check_pcm(pcm)
        return self.encoder(pcm[:, :, None], state.encoder, active).flatten(1).float()

    @torch.no_grad()
    def quantize(self, latent: Tensor) -> Tensor:
        """[B, 6 * 128] -> codes [B, 6 * codebooks]."""
        by_step = latent.unflatten(1, (self.steps, -1)).transpose(1, 2)  # [B, 128, 6]
        codes = self.quantizer.encode(by_step, self.step_rate_hz, self.bandwidth_kbps)
        return codes.permute(1, 2, 0).flatten(1)  # of [codebooks, B, 6]

    @torch.no_grad()
    def decode(self, codes: Tensor, state: EncodecState, active: Tensor | None = None) -> Tensor:
        """int64 [B, 6 * codebooks] -> float32 [B, 1920]."""
        check_codes(codes, self)
        by_step = codes.unflatten(1, (self.steps, self.step_codebooks))
        embedding = self.quantizer.decode(by_step.permute(2, 0, 1))  # [B, 128, 6]
        return self.decoder(embedding.transpose(1, 2), state.decoder, active)[:, :, 0].float()


def load_encodec() -> Any:
    """The package's 24 kHz model with its published weights, through torch.hub's cache."""
    try:
        from encodec.model import EncodecModel
    except (ImportError, OSError) as error:  # OSError: a torchaudio built for another torch
        raise ImportError(
            f"EnCodec needs the packages encodec and torchaudio ({error}). Install them with "
            "`pip install --no-deps encodec einops` and a torchaudio built for exactly the "
            f"installed torch {torch.__version__}, from the index that torch came from; another "
            "torchaudio does not import, and breaks transformers too"
        ) from error
    try:
        return EncodecModel.encodec_model_24khz(pretrained=True)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"EnCodec's weights could not be loaded ({error}). They come from "
            "https://dl.fbaipublicfiles.com/encodec/v0/encodec_24khz-d7cc33bc.th: allow that "
            f"download, or put the file into {torch.hub.get_dir()}/checkpoints/"
        ) from error


def _fold_weight_norm(model: nn.Module) -> None:
    """Replaces each normalised weight by its value, in place."""
    for module in model.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)


def _streamed(layer: nn.Module) -> Streamed:
    """Wraps one layer of the package's encoder or decoder."""
    from encodec.modules.conv import SConv1d, SConvTranspose1d
    from encodec.modules.lstm import SLSTM
    from encodec.modules.seanet import SEANetResnetBlock

    kind: Any = layer  # the package's attributes are not typed
    if isinstance(layer, SConv1d):
        check_streams(kind.causal and isinstance(kind.conv.norm, nn.Identity), layer)
        return StreamedConv(kind.conv.conv, kind.pad_mode)
    if isinstance(layer, SConvTranspose1d):
        causal = kind.causal and kind.trim_right_ratio == 1
        check_streams(causal and isinstance(kind.convtr.norm, nn.Identity), layer)
        return StreamedConvTranspose(kind.convtr.convtr)
    if isinstance(layer, SLSTM):
        return StreamedLstm(kind.lstm, kind.skip)
    if isinstance(layer, SEANetResnetBlock):
        branch = Chain(_streamed(inner) for inner in kind.block)
        return StreamedResidual(branch, _streamed(kind.shortcut))
    check_streams(isinstance(layer, nn.ELU | nn.Identity | nn.Tanh), layer)
    return Stateless(layer)
