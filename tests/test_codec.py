"""The native codec behind the codec interface: streaming law, bad input, saving and loading."""

import pytest
import torch
from torch import Tensor

from model.checkpoint import load_codec, save_codec
from model.codec import check_rate, decode_file, encode_file, frames_of, reconstruct
from model.frame import FRAME_SIZE
from model.native_codec import NativeCodec, NativeCodecConfig

SMALL = NativeCodecConfig(
    codebook_size=64, semantic_dim=8, acoustic_dim=8, width=32, hidden=48, slow_width=40,
    slow_hidden=48, encoder_blocks=2, encoder_slow_blocks=1, decoder_slow_blocks=1,
    decoder_blocks=1, vocoder_blocks=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def codec() -> NativeCodec:
    torch.manual_seed(0)
    return NativeCodec(SMALL).eval().requires_grad_(False)


def noise(batch: int, frames: int) -> Tensor:
    return torch.randn(batch, frames * FRAME_SIZE, generator=torch.Generator().manual_seed(1)) * 0.1


def test_streaming_equals_the_whole_sequence_at_once(codec: NativeCodec) -> None:
    pcm = noise(2, 9)
    streamed = encode_file(codec, pcm)
    latent = codec.encoder(pcm)
    whole = codec.quantizer(latent)
    assert torch.equal(streamed.codes, whole.codes)
    assert len(streamed.codes.unique()) > 8
    torch.testing.assert_close(streamed.latent, latent, atol=1e-5, rtol=0)
    audio = codec.decoder(*codec.quantizer.lookup(whole.codes))
    torch.testing.assert_close(decode_file(codec, streamed.codes), audio, atol=1e-5, rtol=0)


def test_a_row_in_a_batch_equals_the_row_alone(codec: NativeCodec) -> None:
    pcm = noise(3, 5)
    together = encode_file(codec, pcm)
    audio = decode_file(codec, together.codes)
    for row in range(3):
        alone = encode_file(codec, pcm[row : row + 1])
        assert torch.equal(alone.codes[0], together.codes[row])
        spoken = decode_file(codec, alone.codes)[0]
        torch.testing.assert_close(spoken, audio[row], atol=1e-5, rtol=0)


def test_a_paused_row_goes_on_where_it_was(codec: NativeCodec) -> None:
    pcm = noise(2, 4)
    state = codec.init_state(2)
    both, only_first = torch.tensor([True, True]), torch.tensor([True, False])
    codec.encode(pcm[:, :FRAME_SIZE], state, both)
    codec.encode(noise(2, 1), state, only_first)  # row 1 has no frame in this tick
    frame = codec.encode(pcm[:, FRAME_SIZE : 2 * FRAME_SIZE], state, both)
    expected = encode_file(codec, pcm[1:, : 2 * FRAME_SIZE])
    torch.testing.assert_close(frame.latent[1:], expected.latent[:, 1], atol=1e-5, rtol=0)


def test_reset_makes_a_row_fresh_and_leaves_the_others(codec: NativeCodec) -> None:
    pcm = noise(2, 2)
    state = codec.init_state(2)
    first = codec.encode(pcm[:, :FRAME_SIZE], state)
    codec.decode(first.codes, state)
    state.reset(torch.tensor([True, False]))
    again = codec.encode(pcm[:, :FRAME_SIZE], state)
    torch.testing.assert_close(again.latent[0], first.latent[0], atol=1e-5, rtol=0)
    assert (again.latent[1] - first.latent[1]).abs().max() > 1e-4


def test_the_state_does_not_grow(codec: NativeCodec) -> None:
    state = codec.init_state(1)
    sizes = [tensor.shape for tensor in state.tensors()]
    addresses = [tensor.data_ptr() for tensor in state.tensors()]
    for frame in frames_of(noise(1, 50)):
        codec.decode(codec.encode(frame, state).codes, state)
    assert [tensor.shape for tensor in state.tensors()] == sizes
    assert [tensor.data_ptr() for tensor in state.tensors()] == addresses


def test_the_decoded_audio_is_late_by_no_more_than_it_says(codec: NativeCodec) -> None:
    """A change in the last frame's codes changes nothing before it."""
    codes = encode_file(codec, noise(1, 6)).codes
    other = codes.clone()
    other[:, -1] = (other[:, -1] + 1) % codec.codebook_size
    difference = (decode_file(codec, codes) - decode_file(codec, other)).abs()[0]
    assert difference[: 5 * FRAME_SIZE].max() == 0
    assert difference[5 * FRAME_SIZE :].max() > 0
    assert codec.delay_samples <= 480


@pytest.mark.parametrize("samples", [1, FRAME_SIZE - 1, FRAME_SIZE, FRAME_SIZE + 1])
def test_any_length_comes_back_as_long(codec: NativeCodec, samples: int) -> None:
    rebuilt = reconstruct(codec, noise(1, 2)[:, :samples])
    assert rebuilt.shape == (1, samples)
    assert rebuilt.isfinite().all()


@pytest.mark.parametrize(
    ("pcm", "says"),
    [
        (torch.zeros(1, FRAME_SIZE - 1), "must be \\[batch, 1920\\]"),
        (torch.zeros(FRAME_SIZE), "must be \\[batch, 1920\\]"),
        (torch.zeros(0, FRAME_SIZE), "must be \\[batch, 1920\\]"),
        (torch.zeros(1, FRAME_SIZE, dtype=torch.float64), "must be torch.float32"),
        (torch.full((2, FRAME_SIZE), float("nan")), "NaN or infinity in rows \\[0, 1\\]"),
        (torch.full((1, FRAME_SIZE), float("inf")), "NaN or infinity"),
    ],
)
def test_bad_audio_is_refused_and_the_state_is_left_alone(
    codec: NativeCodec, pcm: Tensor, says: str
) -> None:
    state = codec.init_state(1)
    with pytest.raises(ValueError, match=says):
        codec.encode(pcm, state)
    assert all((tensor == 0).all() for tensor in state.tensors())


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        (torch.zeros(1, 7, dtype=torch.int64), "must be \\[batch, 8\\]"),
        (torch.zeros(1, 8), "must be torch.int64"),
        (torch.full((1, 8), 64), "must lie in 0..63"),
        (torch.full((1, 8), -1), "must lie in 0..63"),
    ],
)
def test_bad_codes_are_refused(codec: NativeCodec, codes: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        codec.decode(codes, codec.init_state(1))


def test_an_empty_file_and_a_wrong_rate_are_refused(codec: NativeCodec) -> None:
    with pytest.raises(ValueError, match="not empty"):
        encode_file(codec, torch.zeros(1, 0))
    with pytest.raises(ValueError, match="16000 Hz: must be 24000 Hz"):
        check_rate(16_000)


def test_a_saved_codec_says_the_same(codec: NativeCodec, tmp_path) -> None:
    save_codec(codec, tmp_path)
    once = load_codec(tmp_path)
    save_codec(once, tmp_path / "again")
    twice = load_codec(tmp_path / "again")
    pcm = noise(1, 3)
    assert torch.equal(reconstruct(once, pcm), reconstruct(twice, pcm))
    with pytest.raises(FileNotFoundError, match=r"no config\.json: not a codec checkpoint"):
        load_codec(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("field", "value"), [("hop", 200), ("delay_samples", 960), ("num_codebooks", 1)]
)
def test_a_wrong_configuration_names_its_field(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        NativeCodecConfig(**{field: value})
