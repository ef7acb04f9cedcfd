"""The weights that ship: their size, the streaming law on real speech, and the figures shown."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data import recordings
from model.checkpoint import DEFAULT_CODEC, load_codec
from model.codec import decode_file, encode_file, reconstruct
from model.frame import FRAME_RATE_HZ, FRAME_SIZE
from model.native_codec import NativeCodec
from train.bars import BARS
from train.intervals import Metric
from train.report import bars_table

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def codec() -> NativeCodec:
    return load_codec()


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """The beginnings of two people's recordings, [2, 40 frames]."""
    people = recordings.test_recordings()
    audio = [torch.from_numpy(recordings.read(one.path)) for one in (people[0], people[-1])]
    return torch.stack([one[: 40 * FRAME_SIZE] for one in audio])


def test_size_rate_and_delay_keep_their_limits(codec: NativeCodec) -> None:
    assert sum(tensor.numel() for tensor in codec.state_dict().values()) <= 6e6
    assert (DEFAULT_CODEC / "model.safetensors").stat().st_size <= 12e6
    assert (codec.num_codebooks, FRAME_RATE_HZ) == (8, 12.5)
    assert codec.bitrate_bps <= 1000
    assert codec.delay_samples <= 480  # 20 ms


def test_speech_frame_by_frame_equals_the_whole(codec: NativeCodec, speech: Tensor) -> None:
    streamed = encode_file(codec, speech)
    with torch.inference_mode():
        whole = codec.quantizer(codec.encoder(speech)).codes
        audio = codec.decoder(*codec.quantizer.lookup(whole))
    assert torch.equal(streamed.codes, whole)
    torch.testing.assert_close(decode_file(codec, whole), audio, atol=1e-4, rtol=0)
    assert audio.abs().max() > 0.05


def test_speech_in_a_batch_equals_itself_alone(codec: NativeCodec, speech: Tensor) -> None:
    together = encode_file(codec, speech).codes
    audio = decode_file(codec, together)
    for row in range(2):
        alone = encode_file(codec, speech[row : row + 1]).codes
        assert torch.equal(alone[0], together[row])
        torch.testing.assert_close(decode_file(codec, alone)[0], audio[row], atol=1e-4, rtol=0)


def test_what_is_no_speech_does_not_break_it(codec: NativeCodec) -> None:
    generator = torch.Generator().manual_seed(0)
    loudest = torch.randint(2, (1, 20 * FRAME_SIZE), generator=generator) * 2.0 - 1
    assert reconstruct(codec, loudest).isfinite().all()
    assert reconstruct(codec, torch.zeros(1, 20 * FRAME_SIZE)).abs().max() < 0.01


def test_the_readme_shows_the_figures_of_these_weights() -> None:
    metrics = json.loads((DEFAULT_CODEC / "metrics.json").read_text())["metrics"]
    shown = bars_table(BARS["codec"], {name: Metric(**one) for name, one in metrics.items()})
    assert shown in README.read_text()
