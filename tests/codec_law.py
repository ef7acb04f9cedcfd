"""What holds for the rows of any codec; the tests of each codec call these."""

from typing import Any

import torch
from torch import Tensor

from model.codec import Codec, CodecFrame
from model.frame import FRAME_SIZE
from model.streaming import State

FRAMES = 4
TOLERANCE = 1e-4


def random_pcm(batch: int, frames: int = FRAMES, seed: int = 0) -> Tensor:
    """Noise that swells and fades, different in every row: [B, frames * 1920]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, frames * FRAME_SIZE, generator=generator)
    swell = torch.linspace(0, 3.0 * frames, frames * FRAME_SIZE).sin()
    return 0.3 * noise * swell


def random_codes(codec: Codec[Any], batch: int, frames: int = FRAMES, seed: int = 0) -> Tensor:
    """[B, frames, K]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, frames, codec.num_codebooks)
    return torch.randint(codec.codebook_size, shape, generator=generator)


def encode_all(codec: Codec[Any], pcm: Tensor, state: State | None = None) -> CodecFrame:
    """[B, T] -> codes [B, frames, K], latent [B, frames, D]."""
    state = codec.init_state(pcm.shape[0]) if state is None else state
    frames = [codec.encode(frame, state) for frame in pcm.split(FRAME_SIZE, dim=1)]
    codes, latents = (torch.stack(parts, dim=1) for parts in zip(*frames, strict=True))
    return CodecFrame(codes, latents)


def decode_all(codec: Codec[Any], codes: Tensor, state: State | None = None) -> Tensor:
    """[B, frames, K] -> [B, frames * 1920]."""
    state = codec.init_state(codes.shape[0]) if state is None else state
    return torch.cat([codec.decode(frame, state) for frame in codes.unbind(1)], dim=1)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Within 1e-4."""
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


def assert_codes_vary(codes: Tensor) -> None:
    """Codes [..., K] that are nearly always the same would prove nothing."""
    for column in codes.flatten(0, -2).T:
        assert column.unique().numel() >= max(2, column.numel() // 4), column


def check_row_alone(codec: Codec[Any]) -> None:
    """A row of a batch gives what it gives alone."""
    pcm, codes = random_pcm(3), random_codes(codec, 3)
    encoded, decoded = encode_all(codec, pcm), decode_all(codec, codes)
    assert_codes_vary(encoded.codes)
    for row in range(3):
        alone = encode_all(codec, pcm[row : row + 1])
        assert torch.equal(alone.codes[0], encoded.codes[row])
        assert_close(alone.latent[0], encoded.latent[row])
        assert_close(decode_all(codec, codes[row : row + 1])[0], decoded[row])


def check_pause(codec: Codec[Any]) -> None:
    """A row that sits out, before its first frame or later, goes on as if it never had."""
    pcm, codes = random_pcm(2), random_codes(codec, 2)
    encoded, decoded = encode_all(codec, pcm), decode_all(codec, codes)
    other_pcm, other_codes = random_pcm(2, seed=1), random_codes(codec, 2, seed=1)
    state, both, first = (
        codec.init_state(2),
        torch.tensor([True, True]),
        torch.tensor([True, False]),
    )
    for t in range(FRAMES):
        samples = slice(t * FRAME_SIZE, (t + 1) * FRAME_SIZE)
        before = [tensor[1].clone() for tensor in state.tensors()]
        codec.encode(other_pcm[:, samples], state, first)
        codec.decode(other_codes[:, t], state, first)
        for old, tensor in zip(before, state.tensors(), strict=True):
            assert torch.equal(old, tensor[1]), "a paused row's state changed"
        assert torch.equal(codec.encode(pcm[:, samples], state, both).codes[1], encoded.codes[1, t])
        assert_close(codec.decode(codes[:, t], state, both)[1], decoded[1, samples])


def check_reset(codec: Codec[Any]) -> None:
    """`reset(mask)` makes a row fresh and leaves the others."""
    pcm, codes = random_pcm(2), random_codes(codec, 2)
    encoded, decoded = encode_all(codec, pcm), decode_all(codec, codes)
    state, half = codec.init_state(2), FRAMES // 2
    encode_all(codec, random_pcm(2, half, seed=1)[[0, 0]], state)  # forgotten by row 1
    decode_all(codec, random_codes(codec, 2, half, seed=1), state)
    state.reset(torch.tensor([True, True]))
    encode_all(codec, pcm[:, : half * FRAME_SIZE], state)
    decode_all(codec, codes[:, :half], state)
    state.reset(torch.tensor([False, True]))
    pcm = torch.stack([pcm[0, half * FRAME_SIZE :], pcm[1, : half * FRAME_SIZE]])
    codes = torch.stack([codes[0, half:], codes[1, :half]])

    again, audio = encode_all(codec, pcm, state), decode_all(codec, codes, state)
    assert torch.equal(again.codes[0], encoded.codes[0, half:])
    assert torch.equal(again.codes[1], encoded.codes[1, :half])
    assert_close(audio[0], decoded[0, half * FRAME_SIZE :])
    assert_close(audio[1], decoded[1, : half * FRAME_SIZE])
