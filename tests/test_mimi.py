"""Mimi through our interface against transformers' MimiModel, on random weights."""

import sys
from pathlib import Path
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

from model.frame import FRAME_SIZE
from model.mimi_codec import MimiCodec, attention_of, load_mimi

FRAMES = 7  # 14 steps of the transformers, whose window is 5 here


@pytest.fixture(scope="module")
def mimi() -> Any:
    return pytest.importorskip("transformers.models.mimi")


@pytest.fixture(scope="module")
def model(mimi: Any) -> Any:
    """A small model of the published structure: strides, kernels, both transformers, split VQ."""
    torch.manual_seed(0)
    config = mimi.MimiConfig(
        hidden_size=32,
        num_filters=4,
        codebook_size=64,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=6,
        upsample_groups=32,
        num_hidden_layers=2,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=5,
        layer_scale_initial_scale=0.5,
    )
    return with_random_codebooks(mimi.MimiModel(config).eval())


@torch.no_grad()
def with_random_codebooks(model: Any) -> Any:
    """Codebooks made of what they quantise: untrained ones are zeros, all codes would be equal."""
    latent = model.encoder(random_pcm(4, frames=20, seed=2)[:, None]).latents  # [4, C, 20]
    quantizer = model.quantizer
    for part in (
        quantizer.semantic_residual_vector_quantizer,
        quantizer.acoustic_residual_vector_quantizer,
    ):
        residual = part.input_proj(latent).transpose(1, 2).flatten(0, 1)
        for layer in part.layers:
            chosen = residual[torch.randint(len(residual), (layer.codebook.codebook_size,))]
            noise = 0.5 * chosen.std(0) * torch.randn_like(chosen)
            layer.codebook.embed_sum.copy_(chosen + noise)
            residual = residual - layer.codebook.embed[layer.codebook.quantize(residual)]
    return model


@pytest.fixture(scope="module")
def codec(model: Any) -> MimiCodec:
    return MimiCodec(model, num_codebooks=4)


def test_encode_equals_whole_file(model: Any, codec: MimiCodec) -> None:
    pcm = random_pcm(2, FRAMES)
    encoded = encode_all(codec, pcm)
    with torch.no_grad():
        expected = model.encode(pcm[:, None], num_quantizers=4).audio_codes  # [B, K, frames]
        latents = model.encoder(pcm[:, None]).latents  # [B, C, frames]
    assert torch.equal(encoded.codes, expected.transpose(1, 2))
    assert_codes_vary(encoded.codes)
    assert_close(encoded.latent, latents.transpose(1, 2))


def test_decode_equals_whole_file(model: Any, codec: MimiCodec) -> None:
    codes = random_codes(codec, 2, FRAMES)
    audio = decode_all(codec, codes)
    with torch.no_grad():
        expected = model.decode(codes.transpose(1, 2)).audio_values[:, 0]
    assert_close(audio, expected)
    assert audio.std() > 0.1


def test_attention_equals_the_library(model: Any) -> None:
    transformer = model.encoder.encoder_transformer
    layer = transformer.layers[0].self_attn
    x = torch.randn(2, 4, 32)  # within the window: the library needs no mask but causality
    turn = transformer.rotary_emb(x, torch.arange(4)[None])
    causal = torch.ones(4, 4).tril().bool()[None, None]
    with torch.no_grad():
        expected, _ = layer(x, attention_mask=causal, position_embeddings=turn)
        assert_close(attention_of(layer)(x), expected)


def test_rows_are_independent(codec: MimiCodec) -> None:
    check_row_alone(codec)
    check_pause(codec)
    check_reset(codec)


def test_published_sizes(mimi: Any) -> None:
    with torch.device("meta"):  # nothing is computed: 96 M parameters would take seconds to draw
        model = mimi.MimiModel(mimi.MimiConfig())
        codec = MimiCodec(model)
        state = codec.init_state(1)
    assert (codec.num_codebooks, codec.codebook_size, codec.latent_dim) == (8, 2048, 512)
    assert codec.bitrate_bps == 1100
    assert {tensor.shape[0] for tensor in state.tensors()} == {1}


def test_bad_input_is_refused(model: Any, codec: MimiCodec) -> None:
    with pytest.raises(ValueError, match=r"num_codebooks 7: must lie in 1\.\.6"):
        MimiCodec(model, num_codebooks=7)
    with pytest.raises(ValueError, match="NaN or infinity in rows"):
        codec.encode(torch.full((1, FRAME_SIZE), torch.nan), codec.init_state(1))
    with pytest.raises(ValueError, match=r"must be \[batch, 4\]"):
        codec.decode(torch.zeros(1, 8, dtype=torch.int64), codec.init_state(1))


def test_model_that_looks_ahead_is_refused(mimi: Any) -> None:
    small: dict[str, Any] = dict(num_hidden_layers=1, num_filters=2, hidden_size=32)
    config = mimi.MimiConfig(**small, upsample_groups=32, use_causal_conv=False)
    with torch.device("meta"), pytest.raises(ValueError, match="not causal"):
        MimiCodec(mimi.MimiModel(config))


def test_pretrained_loads_what_transformers_saves(
    model: Any, codec: MimiCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("model.mimi_codec.WEIGHTS", str(tmp_path))
    loaded, pcm = MimiCodec.pretrained(num_codebooks=4), random_pcm(1, 1)
    assert torch.equal(encode_all(loaded, pcm).codes, encode_all(codec, pcm).codes)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install 'transformers"):
        load_mimi()


def test_missing_weights_say_where_they_come_from(
    mimi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(_: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(mimi.MimiModel, "from_pretrained", no_network)
    with pytest.raises(RuntimeError, match=r"no network.*huggingface\.co/kyutai/mimi"):
        MimiCodec.pretrained()
