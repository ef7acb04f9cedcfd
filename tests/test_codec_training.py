"""Training of the codec: data, codebooks, losses, and whole small runs of both stages."""

import dataclasses
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from data.augment import add_noise, coloured_noise, reverberate, speed, telephone
from data.corpus import CorpusConfig, plan
from data.synthesize import synthesize
from data.voices.phones import PHONES, from_ipa
from model.checkpoint import load_codec, save_codec
from model.native_codec import NativeCodecConfig
from train.codebooks import CodebookTracker
from train.codec import CodecTraining, CodecTrainingConfig
from train.codec_data import CodecData, CodecDataConfig, CropDataset, phone_labels
from train.codec_losses import SpectralLoss
from train.codec_samples import CodecSamples

CORPUS = CorpusConfig(
    agent_voices=("flite:slt",),
    heldout_voices=("flite:awb",),
    train_sentences={"flite:slt": 3, "flite:rms": 3, "espeak:en-us": 2},
    test_sentences_per_voice=1,
)
DATA = CodecDataConfig(
    crop_frames=10, batch_size=2, steps_per_epoch=3, damaged=("agent", "voices"),
    shares={"agent": 0.5, "voices": 0.5, "human": 0.0, "music": 0.0},
)  # fmt: skip
SMALL = NativeCodecConfig(
    codebook_size=16, semantic_dim=8, acoustic_dim=8, width=16, hidden=24, slow_width=24,
    slow_hidden=24, encoder_blocks=1, encoder_slow_blocks=1, decoder_slow_blocks=1,
    decoder_blocks=1, vocoder_blocks=1,
)  # fmt: skip
TRAINING = CodecTrainingConfig(epochs=2, learning_rate=1e-3, segment_steps=20, warmup_steps=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    """A tiny corpus in a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("data.recordings.training_recordings", list)
        patch.setattr("data.recordings.training_music", list)
        synthesize(CORPUS, processes=1)
        module = CodecData(CORPUS, DATA)
        module.setup("fit")
        yield module


def fit(module: CodecTraining, data: CodecData, folder: Path, epochs: int, resume: bool = False):
    trainer = lightning.Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", devices=1,
        logger=CSVLogger(folder, name="csv"), enable_progress_bar=False, enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(folder / "checkpoints", save_last=True, enable_version_counter=False),
            CodecSamples(CORPUS, str(folder), every_epochs=1),
        ],
        log_every_n_steps=1, reload_dataloaders_every_n_epochs=1,
    )  # fmt: skip
    last = folder / "checkpoints" / "last.ckpt"
    trainer.fit(module, data, ckpt_path=str(last) if resume else None)


def test_the_stages_train_resume_and_leave_something_to_look_at(
    data: CodecData, tmp_path: Path
) -> None:
    lightning.seed_everything(0)
    first = CodecTraining(SMALL, TRAINING)
    start = {name: tensor.clone() for name, tensor in first.codec.state_dict().items()}
    fit(first, data, tmp_path, epochs=1)
    moved = [n for n, t in first.codec.state_dict().items() if not torch.equal(t, start[n])]
    assert set(moved) == set(start), "a part of the codec did not train"
    for name in ("losses.png", "samples/flite-awb.png", "samples/flite-awb-rebuilt.wav"):
        assert (tmp_path / name).stat().st_size > 1000

    resumed = CodecTraining(SMALL, TRAINING)
    fit(resumed, data, tmp_path, epochs=2, resume=True)
    starts = [tmp_path / "csv" / f"version_{start}" / "metrics.csv" for start in (0, 1)]
    epochs = [log.read_text().splitlines()[-1].split(",")[0] for log in starts]
    assert epochs == ["0", "1"], "the resumed run must go on with the second epoch"
    assert resumed.trackers[0].get_buffer("is_started")

    tuning = dataclasses.replace(
        TRAINING, epochs=1, freeze_encoder=True, adversarial_weight=1.0, mel_weight=0.0,
        init_from=str(tmp_path / "checkpoints" / "last.ckpt"),
    )  # fmt: skip
    second = CodecTraining(SMALL, tuning)
    fit(second, data, tmp_path / "second", epochs=1)
    after = second.codec.state_dict()
    for name, tensor in resumed.codec.state_dict().items():
        is_decoder = name.startswith("decoder.")
        assert torch.equal(after[name], tensor) != is_decoder, name


def test_training_goes_on_from_a_codecs_directory(data: CodecData, tmp_path: Path) -> None:
    lightning.seed_everything(0)
    save_codec(CodecTraining(SMALL, TRAINING).codec, tmp_path / "codec")
    tuning = dataclasses.replace(TRAINING, epochs=1, init_from=str(tmp_path / "codec"))
    tuned = CodecTraining(SMALL, tuning)
    start = load_codec(tmp_path / "codec").state_dict()
    assert all(torch.equal(t, start[n]) for n, t in tuned.codec.state_dict().items())
    fit(tuned, data, tmp_path / "run", epochs=1)
    for name in ("quantizer.semantic_codebook", "quantizer.acoustic_codebooks"):
        moved = (tuned.codec.state_dict()[name] - start[name]).norm() / start[name].norm()
        assert 0 < moved < 0.3, "codebooks must go on from where they were"


def test_a_crop_is_the_same_each_time_it_is_drawn(data: CodecData) -> None:
    one, two = (CropDataset(data.groups, DATA, epoch=1) for _ in range(2))
    other = CropDataset(data.groups, DATA, epoch=2)
    assert all(torch.equal(a, b) for a, b in zip(one[3], two[3], strict=True))
    assert not torch.equal(one[3].clean, other[3].clean)
    crop = one[0]
    assert crop.clean.shape == crop.damaged.shape == (19_200,)
    assert crop.labels.shape == (40,)


def test_espeak_has_no_phones_and_flite_has(data: CodecData) -> None:
    voices = data.groups["voices"]
    assert all(clip.labels is None for clip in voices["espeak:en-us"])
    labels = np.concatenate(
        [clip.labels for clip in voices["flite:rms"] if clip.labels is not None]
    )
    assert len(np.unique(labels)) > 10
    assert labels.max() < len(PHONES)


def test_without_a_corpus_the_error_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path))
    monkeypatch.setattr("data.recordings.training_recordings", list)
    monkeypatch.setattr("data.recordings.training_music", list)
    with pytest.raises(FileNotFoundError, match=r"python -m data\.synthesize experiment=codec"):
        CodecData(CORPUS, DATA).setup("fit")


def test_the_test_sentences_of_a_corpus_are_never_trained_on() -> None:
    lines = list(plan(CORPUS))
    train = {line.text for line in lines if line.split == "train"}
    assert train.isdisjoint(line.text for line in lines if line.split == "test")
    assert {line.voice for line in lines if line.split == "test"} == {"flite:slt", "flite:awb"}


def test_phone_labels_name_the_phone_in_the_middle_of_a_step() -> None:
    phones = [("SIL", 0.0, 0.05), ("AH", 0.05, 0.1)]
    labels = phone_labels(phones, samples=int(0.12 * 24_000))
    assert [PHONES[label] for label in labels] == ["SIL", "SIL", "AH", "AH", "AH", "AH"]


def test_ipa_reads_the_longest_symbol_first() -> None:
    assert [phone for phone, _, _ in from_ipa("dʒˈoʊnː")] == ["JH", "SIL", "OW", "N"]
    assert from_ipa("oʊn") == [("OW", 0, 2), ("N", 2, 3)]


def test_codebook_follows_its_inputs_and_revives_dead_codes() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [5.0, 5.0], [0.0, 5.0]])
    codebook = torch.full((3, 2), 100.0)  # nobody is near any of them
    tracker = CodebookTracker(3, 2)
    for _ in range(200):
        inputs = centres[torch.randint(3, (60,))] + 0.1 * torch.randn(60, 2)
        codes = torch.cdist(inputs, codebook).argmin(1)
        tracker.update(codebook, inputs, codes)
    assert torch.cdist(centres, codebook).min(1).values.max() < 0.3


def test_spectral_loss_is_zero_for_the_same_and_grows_with_the_difference() -> None:
    loss = SpectralLoss()
    rng = torch.Generator().manual_seed(0)
    one, two = (torch.randn(2, 4800, generator=rng) * 0.1 for _ in range(2))
    assert loss(one, one) == 0
    assert loss(one, one * 0.5) < loss(one, one * 0.1)
    assert loss(one, two) > 0.1


def test_damage_keeps_length_and_does_what_it_says() -> None:
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 6000 * np.arange(24_000) / 24_000).astype(np.float32) * 0.5
    line = telephone(tone)
    assert line.shape == tone.shape
    assert np.abs(line[2400:-2400]).max() < 0.05, "8 kHz audio holds nothing at 6 kHz"
    noisy = add_noise(tone, coloured_noise(len(tone), rng), ratio_db=10)
    assert np.mean((noisy - tone) ** 2) == pytest.approx(np.mean(tone**2) / 10, rel=0.05)
    echoes = reverberate(np.eye(1, 24_000, dtype=np.float32)[0], 0.3, rng)
    assert echoes[0] == pytest.approx(1.0, abs=1e-3)
    assert np.abs(echoes[1200:7200]).max() > 1e-3
    assert np.abs(echoes[7300:]).max() < 1e-4
    assert len(speed(tone, 1.25)) == 19_200


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shares": {"agent": 1.0}}, "must be agent, voices, human, music"),
        ({"shares": {"agent": 0.5, "voices": 0.1, "human": 0.1, "music": 0.1}}, "add up to 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"damaged": ("everything",)}, "damaged"),
    ],
)
def test_wrong_data_configurations_are_refused(change: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(DATA, **change)


def test_freezing_an_untrained_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="freeze_encoder needs init_from"):
        dataclasses.replace(TRAINING, freeze_encoder=True)
