"""EnCodec through our interface against the encodec package, on random weights."""

import importlib
import sys
import types
from typing import Any

import pytest
import torch
from codec_law import (
    assert_close,
    assert_codes_vary,
    check_pause,
    check_reset,
    check_row_alone,
    decode_all,
    encode_all,
    random_codes,
    random_pcm,
)
from torch import Tensor

from model.encodec_codec import EncodecCodec, load_encodec
from model.frame import FRAME_SIZE

STEPS = 6  # EnCodec steps a frame
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def encodec() -> types.ModuleType:
    """The real package, imported with an empty stand-in for torchaudio.

    encodec imports torchaudio at the top of its helpers for reading and resampling files, which
    nothing here calls; a torchaudio that fits this torch cannot be had everywhere. The stand-in is
    gone again after the import, since transformers looks for torchaudio, too.
    """
    pytest.importorskip("einops")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
        return importlib.import_module("encodec")


def random_model(encodec: types.ModuleType, pad_mode: str) -> Any:
    """A narrow model of the published structure: strides, kernels, LSTMs, weight norm, bins."""
    torch.manual_seed(0)
    modules, quantization = encodec.modules, importlib.import_module("encodec.quantization")
    sizes: dict[str, Any] = dict(n_filters=4, dimension=16, causal=True, pad_mode=pad_mode)
    quantizer = quantization.ResidualVectorQuantizer(dimension=16, n_q=8, bins=64)
    encoder, decoder = modules.SEANetEncoder(**sizes), modules.SEANetDecoder(**sizes)
    model = encodec.EncodecModel(encoder, decoder, quantizer, [0.9, 1.8, 3.6], 24_000, 1)
    return enlivened(model.eval())


@torch.no_grad()
def enlivened(model: Any) -> Any:
    """Gains near one, and codebooks made of what they quantise.

    As initialised, signals fade on their way and codebooks are zeros: all would be near a constant,
    and equal for that reason.
    """
    for name, parameter in model.named_parameters():
        parameter.mul_(2 if name.endswith(("weight_g", "weight_ih_l0", "weight_ih_l1")) else 1)
    residual = model.encoder(random_pcm(4, seed=2)[:, None]).transpose(1, 2).flatten(0, 1)
    for layer in model.quantizer.vq.layers:
        chosen = residual[torch.randint(len(residual), layer.codebook.shape[:1])]
        layer.codebook.copy_(chosen + 0.5 * chosen.std(0) * torch.randn_like(chosen))
        codes = layer._codebook.quantize(residual)
        residual = residual - layer.codebook[codes]
    return model


def whole_file(model: Any, pcm: Tensor, bandwidth_kbps: float) -> Tensor:
    """The package's codes of a file, in the order of our frames: [B, frames, K]."""
    model.set_target_bandwidth(bandwidth_kbps)
    with torch.no_grad():
        [(codes, _)] = model.encode(pcm[:, None])  # [B, codebooks, steps]
    return codes.transpose(1, 2).unflatten(1, (-1, STEPS)).flatten(2)


def decode_whole_file(model: Any, codes: Tensor) -> Tensor:
    """[B, frames, K] -> [B, samples], by the package."""
    steps = codes.unflatten(2, (STEPS, -1)).flatten(1, 2)  # [B, steps, codebooks]
    with torch.no_grad():
        return model.decode([(steps.transpose(1, 2), None)])[:, 0]


def test_streaming_equals_whole_file(encodec: types.ModuleType) -> None:
    model = random_model(encodec, "constant")
    pcm = random_pcm(2, frames=7)
    expected = whole_file(model, pcm, 1.8)
    with torch.no_grad():
        latent = model.encoder(pcm[:, None]).transpose(1, 2).unflatten(1, (-1, STEPS)).flatten(2)
    codec = EncodecCodec(model, 1.8)

    encoded = encode_all(codec, pcm)
    assert torch.equal(encoded.codes, expected)
    assert_codes_vary(encoded.codes)
    assert_close(encoded.latent, latent)
    audio = decode_all(codec, encoded.codes)
    assert_close(audio, decode_whole_file(model, encoded.codes))
    assert audio.std() > 0.1


def test_mirrored_beginning_encodes_all_but_the_first_step(encodec: types.ModuleType) -> None:
    model = random_model(encodec, "reflect")
    codec = EncodecCodec(model, 1.8)
    pcm = random_pcm(2, frames=7)
    expected = whole_file(model, pcm, 1.8)
    codes = encode_all(codec, pcm).codes
    first_step = slice(codec.step_codebooks)
    assert torch.equal(codes[:, 1:], expected[:, 1:])
    assert torch.equal(codes[:, 0, codec.step_codebooks :], expected[:, 0, codec.step_codebooks :])
    one_frame = whole_file(model, pcm[:, :FRAME_SIZE], 1.8)
    assert torch.equal(codes[:, 0], one_frame[:, 0])
    assert not torch.equal(codes[:, 0, first_step], expected[:, 0, first_step]), "docstring is old"


def test_mirrored_beginning_decodes_as_documented(encodec: types.ModuleType) -> None:
    model = random_model(encodec, "reflect")
    codec = EncodecCodec(model, 1.8)
    codes = random_codes(codec, 2, frames=7)
    audio = decode_all(codec, codes)
    assert_close(audio[:, :FRAME_SIZE], decode_whole_file(model, codes[:, :1]))

    # The one difference: step 6, which the package mirrors to the very beginning, counts as zeros.
    first = model.decoder.model[0].conv.conv

    def without_step_six(_: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        output[:, :, 0] -= inputs[0][:, :, 0] @ first.weight[:, :, 0].T
        return output

    hook = first.register_forward_hook(without_step_six)
    expected = decode_whole_file(model, codes)
    hook.remove()
    assert_close(audio, expected)
    assert audio.std() > 0.1
    difference = (audio - decode_whole_file(model, codes)).abs().amax(0)
    assert difference[-FRAME_SIZE:].max() < 0.1 * difference[:FRAME_SIZE].max(), "does not fade"


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
def test_rows_are_independent(encodec: types.ModuleType, pad_mode: str) -> None:
    codec = EncodecCodec(random_model(encodec, pad_mode), 0.9)
    check_row_alone(codec)
    check_pause(codec)
    check_reset(codec)


def test_pretrained_has_the_published_structure(
    encodec: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = enlivened(encodec.EncodecModel.encodec_model_24khz(pretrained=False))
    weights = model.state_dict()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: weights)
    codec = EncodecCodec.pretrained()
    assert (codec.num_codebooks, codec.codebook_size, codec.latent_dim) == (12, 1024, 768)
    assert codec.bitrate_bps == 1500
    pcm = random_pcm(1, frames=2)
    encoded = encode_all(codec, pcm)
    expected = whole_file(model, pcm, 1.5)
    assert torch.equal(encoded.codes[:, 0, 2:], expected[:, 0, 2:])
    assert torch.equal(encoded.codes[:, 1], expected[:, 1])
    first = decode_all(codec, encoded.codes[:, :1])
    assert_close(first, decode_whole_file(model, encoded.codes[:, :1]))
    assert EncodecCodec(model, 24.0).num_codebooks == 6 * 32


def test_bad_input_is_refused(encodec: types.ModuleType) -> None:
    model = random_model(encodec, "constant")
    with pytest.raises(ValueError, match=r"bandwidth_kbps 1\.5: must be one of"):
        EncodecCodec(model, 1.5)
    codec = EncodecCodec(model, 0.9)
    with pytest.raises(ValueError, match="pcm has shape"):
        codec.encode(torch.zeros(1, 1919), codec.init_state(1))
    with pytest.raises(ValueError, match=r"must lie in 0\.\.63"):
        codec.decode(torch.full((1, 12), 64), codec.init_state(1))


def test_models_that_cannot_stream_are_refused(encodec: types.ModuleType) -> None:
    model = random_model(encodec, "constant")
    model.encoder.model[0].causal = False
    with pytest.raises(ValueError, match="not causal"):
        EncodecCodec(model, 0.9)
    model.channels = 2
    with pytest.raises(ValueError, match="2 channels: must be the 24000 Hz mono model"):
        EncodecCodec(model, 0.9)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "encodec.model", None)
    with pytest.raises(ImportError, match="torchaudio built for exactly the installed torch"):
        load_encodec()


def test_missing_weights_say_where_they_come_from(
    encodec: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    with pytest.raises(RuntimeError, match=r"no network.*encodec_24khz-d7cc33bc\.th"):
        EncodecCodec.pretrained()
