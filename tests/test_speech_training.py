import dataclasses
import random
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from datasets import Dataset

from data.monologues import MonologueCorpus, scripted_turns
from data.sentences import split_of
from model.depth import DepthConfig
from model.reading import ReaderConfig
from model.speech import SpeechConfig
from model.spelling import Spelling, SpellingConfig
from model.tokens import train_tokenizer
from model.transformer import TransformerConfig
from train.optimization import OptimizationConfig
from train.speech import SpeechTraining, SpeechTrainingConfig
from train.speech_data import SpeechData, SpeechDataConfig, SpeechSequences, SpokenFrames, joined
from train.spelling import common_words, dictionary

SPELLING = SpellingConfig(dim=8, layers=1)
SPEECH = SpeechConfig(
    ReaderConfig(400, spelling=SPELLING),
    TransformerConfig(dim=16, layers=1, heads=2, kv_heads=1, hidden=24, window=6),
    DepthConfig(input_dim=16, dim=16, layers=1, heads=2, hidden=24, steps=8, codebook=1024),
)
DATA = SpeechDataConfig(
    folders=(), sequence_frames=16, batch_size=4, steps_per_epoch=3, heldout_share=0.3
)


def shard(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        starts_s = np.arange(1.0, 4.0, 0.4) + rng.uniform(0, 0.2)
        words = [{"text": "hello", "start_s": s, "end_s": s + 0.3} for s in starts_s.tolist()]
        turn = {"start_s": words[0]["start_s"], "end_s": words[-1]["end_s"], "style": "brisk"}
        codes = rng.integers(1024, size=(70, 8)).tolist()
        rows.append(
            {
                "name": f"row {number}", "frames": 70, "agent_words": words,
                "agent_unsaid_words": [{"text": "you", "start_s": 90.0, "end_s": 90.1}],
                "agent_turns": [turn], "agent_codes": codes,
            }
        )  # fmt: skip
    path.parent.mkdir(parents=True)
    Dataset.from_list(rows).to_parquet(path)


@pytest.fixture
def module(tmp_path: Path) -> SpeechTraining:
    torch.manual_seed(0)
    train_tokenizer([" hello you"], 400).save(tmp_path / "tokenizer.json")
    weights = {f"spelling.{k}": v for k, v in Spelling(SPELLING).state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "spelling.ckpt")
    config = SpeechTrainingConfig(
        str(tmp_path / "tokenizer.json"), str(tmp_path / "spelling.ckpt"), depth_frames=20
    )
    return SpeechTraining(SPEECH, config, OptimizationConfig(4, 1e-2, warmup_steps=1))


def test_training_changes_all_but_the_spelling(module: SpeechTraining, tmp_path: Path) -> None:
    shard(tmp_path / "shards" / "shard-00000.parquet", 9)
    data = SpeechData(dataclasses.replace(DATA, folders=(str(tmp_path / "shards"),)))
    before = {name: value.clone() for name, value in module.speech.state_dict().items()}
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=4, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        reload_dataloaders_every_n_epochs=1,
    )  # fmt: skip
    trainer.fit(module, data)
    for name, parameter in module.speech.named_parameters():
        is_spelling = name.startswith("reader.spelling.")
        assert torch.equal(before[name], parameter) == is_spelling, name
    assert not torch.equal(before["reader.phone_s"], module.speech.reader.phone_s)
    assert {"train/loss", "val/codebook_8"} <= {*trainer.callback_metrics}
    assert data.training is not None
    assert data.heldout is not None
    names = [f"row {number}" for number in range(9)]
    held_out = sum(split_of(name, 0.3) == "test" for name in names)
    assert 0 < held_out == data.heldout.row.max()
    assert data.training.row.max() == 9 - held_out


def test_codes_are_hidden_and_wrong_as_often_as_asked(module: SpeechTraining) -> None:
    codes = torch.randint(1024, (40, 50, 8))
    damaged = module._damaged(codes)
    hidden = (damaged == 1024).all(-1)
    assert (damaged == 1024).any(-1).equal(hidden)
    assert hidden.float().mean() == pytest.approx(0.12, abs=0.03)
    wrong = (damaged != codes)[~hidden]
    assert wrong.float().mean() == pytest.approx(0.06, abs=0.01)


def test_silence_is_the_codecs(module: SpeechTraining) -> None:
    assert module.speech.silence.unique().numel() > 1
    assert module.speech.silence.max() < 1024


def test_missing_spelling_says_what_to_run(module: SpeechTraining) -> None:
    config = dataclasses.replace(module.config, spelling="nowhere.ckpt")
    with pytest.raises(FileNotFoundError, match="experiment=spelling"):
        SpeechTraining(SPEECH, config, module.optimization)


def test_sequences_are_the_same_for_an_epoch_and_differ_between_them() -> None:
    parts = [np.full((30, 2), number, np.int16) for number in range(5)]
    rows = [SpokenFrames(part, part, part, np.zeros(30, np.int32)) for part in parts]
    frames = joined(rows)

    def drawn(epoch: int) -> list[list[int]]:
        sequences = SpeechSequences(frames, DATA, epoch)
        return [sequences[index].row.tolist() for index in range(len(sequences))]

    assert len(drawn(0)) == 12
    assert drawn(0) == drawn(0) != drawn(1)
    held_out = SpeechSequences(frames, DATA, None)
    whole = torch.cat([held_out[index].row for index in range(len(held_out))])
    assert torch.equal(whole, torch.from_numpy(frames.row)[: len(whole)].long())
    assert len(frames.row) - len(whole) < 16


def test_no_shards_is_said(module: SpeechTraining) -> None:
    data = SpeechData(dataclasses.replace(DATA, folders=("nowhere",)))
    with pytest.raises(FileNotFoundError, match=r"nowhere holds no \*\.parquet"):
        list(data._rows())


def test_dictionary_spells_our_own_words() -> None:
    common = common_words(dictionary())
    assert common["hello"] == ("HH", "AH", "L", "OW")
    assert common["4"] == common["four"] == ("F", "AO", "R")
    assert all(common.values())


# Monologues


def corpus(**changes: Any) -> MonologueCorpus:
    values: dict[str, Any] = {
        "domain": "front_desk", "split": "train", "agent_voices": ("flite:slt",),
        "heldout_voices": (), "styles": {"neutral": 1.0}, "turns": 2,
    }  # fmt: skip
    return MonologueCorpus(**values | changes)


def test_a_monologue_is_the_agents_alone() -> None:
    dialogue = corpus().dialogue(0, 0)
    agent, user = dialogue.words
    assert agent
    assert not user
    assert not dialogue.audio[1].any()
    assert [spell.side for spell in dialogue.spells] == [0, 0]
    assert dialogue.spells[0].end_s < dialogue.spells[1].start_s
    again, other = corpus().dialogue(0, 0), corpus().dialogue(0, 1)
    assert again.words == dialogue.words
    assert other.words != dialogue.words


def test_hours_are_whole_shards() -> None:
    assert corpus(hours=0.6, shard_minutes=15).shards == 3
    with pytest.raises(ValueError, match="turns 0: must be more than 0"):
        corpus(turns=0)


def test_scripted_turns_go_on_after_a_script() -> None:
    turns = scripted_turns("front_desk", "test", random.Random(0))
    texts = [next(turns).text for _ in range(20)]
    assert len({*texts}) > 10
