"""Recordings as tokenised shards: what is in them, what was dropped, how they train."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

from data.ingest import Dropped, read
from data.ingest.__main__ import ingest
from model.tokens import train_tokenizer
from train.dialogue_data import DialogueData, DialogueDataConfig, laid_out


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Three calls and a damaged one, in moshi-finetune's format."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    lines = []
    for number, seconds in enumerate((2.0, 3.5, 2.5)):
        noise = np.random.default_rng(number).normal(0, 0.1, (int(seconds * 24_000), 2))
        soundfile.write(folder / f"{number}.wav", noise, 24_000)
        said = [["hello", [0.2, 0.5], "SPEAKER_MAIN"], ["thanks", [1.2, 1.6], "USER"]]
        (folder / f"{number}.json").write_text(json.dumps({"alignments": said}))
        lines.append(json.dumps({"path": f"{number}.wav", "duration": seconds}))
    (folder / "3.wav").write_bytes(b"no sound")
    lines.insert(1, json.dumps({"path": "3.wav", "duration": 1.0}))
    (folder / "train.jsonl").write_text("\n".join(lines))
    return folder / "train.jsonl"


def test_recordings_become_shards_that_train(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    dropped = ingest(read("moshi", str(recordings), "CC0"), out, 4 / 60, latents=True)
    assert [one.name for one in dropped] == ["3.wav"]
    assert "3.wav: cannot be read" in (out / "dropped.txt").read_text()
    shards: list[Any] = [str(path) for path in sorted(out.glob("*.parquet"))]
    assert [len(datasets.Dataset.from_parquet(shard)) for shard in shards] == [2, 1]
    rows: list[Any] = list(datasets.Dataset.from_parquet(shards))
    assert [row["name"] for row in rows] == ["0.wav", "1.wav", "2.wav"]
    assert [row["frames"] for row in rows] == [25, 44, 32]
    assert rows[0]["agent_words"] == [{"text": "hello", "start_s": 0.2, "end_s": 0.5}]
    assert rows[0]["floor"][3:6] == [1, 1, 1]
    assert rows[0]["floor"][15:19] == [2, 2, 2, 2]
    assert {row["licence"] for row in rows} == {"CC0"}
    train_tokenizer(["hello thanks"], 512).save(tmp_path / "tokenizer.json")
    config = DialogueDataConfig([out], tmp_path / "tokenizer.json", 128, 1, 1)
    data = DialogueData(config)
    data.setup("fit")
    laid = [laid_out(row, data.tokenizer, config) for row in rows]
    frames = sum(int((positions.kind == 1).sum()) for positions in laid)
    assert frames == 25 + 44 + 32


def test_shards_are_not_mixed_with_others(recordings: Path, tmp_path: Path) -> None:
    lost = [Dropped("a.wav", "cannot be read: it is gone")]
    assert ingest(lost, tmp_path / "none", 1, latents=False) == lost
    assert "1 dropped" in (tmp_path / "none" / "dropped.txt").read_text()
    out = tmp_path / "shards"
    ingest(read("moshi", str(recordings), "CC0"), out, 1, latents=False)
    with pytest.raises(ValueError, match="holds shards already: name another folder"):
        ingest([], out, 1, latents=False)


def test_the_command_says_what_it_dropped(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    command = [sys.executable, "-m", "data.ingest", f"manifest={recordings}", f"out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 dropped" in done.stdout
    assert [path.name for path in out.glob("*.parquet")] == ["shard-00000.parquet"]
    wrong = [*command[:3], "manifest=nothing.jsonl", f"out={tmp_path / 'other'}"]
    failed = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "manifest is 'nothing.jsonl': must be a file" in failed.stderr
