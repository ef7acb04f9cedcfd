"""Shards of dialogues: what is in them, the same whoever makes them, and after a crash."""

import dataclasses
import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import torch
from matplotlib import pyplot as plt

from data.corpus import RESERVED_VOICES
from data.dialogue import AGENT, USER
from data.dialogue_corpus import DialogueCorpus
from data.line import LineShares
from data.shards import features, shard_path
from data.synthesize import make_shard, synthesize_dialogues
from data.voices.store import is_made, phrase_path, save
from data.voices.utterance import Utterance, Word
from model.checkpoint import load_codec
from model.codec import encode_file
from model.tokens import IDLE, serialize, train_tokenizer
from train.dialogue_data import DialogueDataConfig, laid_out

CORPUS = DialogueCorpus(
    domain="front_desk",
    split="train",
    agent_voices=("flite:slt",),
    user_voices={"flite:rms": 2, "flite:kal16": 1},
    heldout_voices=("flite:awb",),
    lines=LineShares(0.3, 0.3, 0.3, {20: 0.3, 0: 0.1}),
    most_scenes=2,
    shard_minutes=0.7,
    hours=3 * 0.7 / 60,
)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A phrase cache of its own, cold at first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def made(cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards, made by two workers from a cold cache."""
    folder = tmp_path_factory.mktemp("shards")
    synthesize_dialogues(CORPUS, folder, processes=2)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.parquet"))
    }


def test_one_worker_from_a_warm_cache_makes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    synthesize_dialogues(CORPUS, tmp_path, processes=1)
    assert len(hashes(made)) == 3
    assert hashes(tmp_path) == hashes(made)
    assert len({*hashes(made).values()}) == 3
    other = dataclasses.replace(CORPUS, seed=1, hours=0.01)
    synthesize_dialogues(other, tmp_path / "other", processes=1)
    assert hashes(tmp_path / "other")["shard-00000.parquet"] not in hashes(made).values()


def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(made: Path, tmp_path: Path) -> None:
    config = tmp_path / "corpus.pickle"
    config.write_bytes(pickle.dumps(CORPUS))
    program = (
        "import pickle, sys; from pathlib import Path\n"
        "from data.synthesize import synthesize_dialogues\n"
        "corpus = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "synthesize_dialogues(corpus, Path(sys.argv[2]), 2)\n"
    )
    folder, rng = tmp_path / "killed", random.Random(0)
    for _ in range(3):
        running = subprocess.Popen(
            [sys.executable, "-c", program, str(config), str(folder)],
            cwd=ROOT,
            env={**os.environ, "DUOLOGUE_CACHE": str(tmp_path / "cache")},  # cold, and cut off too
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(4, 9))
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    synthesize_dialogues(CORPUS, folder, processes=2)
    assert hashes(folder) == hashes(made)


def test_a_row_is_what_was_said(made: Path) -> None:
    rows = datasets.Dataset.from_parquet(str(shard_path(made, 1)))
    assert isinstance(rows, datasets.Dataset)
    codec = load_codec()
    assert rows.features == features(codec.num_codebooks, codec.latent_dim)
    assert sum(rows["frames"]) * 0.08 >= 0.7 * 60
    arrays: list[Any] = list(rows.with_format("numpy"))
    for number, row in enumerate(arrays):
        dialogue = CORPUS.dialogue(1, number)
        assert row["name"] == dialogue.name
        assert row["agent_codes"].shape == (dialogue.frames, codec.num_codebooks)
        assert row["floor"].tolist() == dialogue.floor().tolist()
        for side, name in ((AGENT, "agent_words"), (USER, "user_words")):
            said = [Word(w["text"], w["start_s"], w["end_s"]) for w in rows[number][name]]
            assert tuple(said) == dialogue.words[side]
        actions = rows[number]["actions"]
        assert [a["kind"] for a in actions] == [a.kind for a in dialogue.actions]
        assert [json.loads(a["arguments"]) for a in actions] == [
            dict(a.arguments) for a in dialogue.actions
        ]
        whole = encode_file(codec, torch.from_numpy(dialogue.audio))
        for side, name in ((AGENT, "agent_codes"), (USER, "user_codes")):
            same = (whole.codes[side].numpy() == row[name]).mean()
            assert same > 0.995, "alone or with others, but for ties"
        latents = whole.latent[USER].numpy()
        assert np.abs(latents - row["user_latents"]).max() < 0.02
        assert json.loads(row["script"])["split"] == "train"
        assert "flite" in row["licence"]


def test_training_gets_every_call_of_the_shards_to_learn(made: Path, tmp_path: Path) -> None:
    shards: list[Any] = [str(path) for path in sorted(made.glob("*.parquet"))]
    rows: list[Any] = list(datasets.Dataset.from_parquet(shards).select_columns(["actions"]))
    actions = [action for row in rows for action in row["actions"]]
    calls = [
        serialize(a["kind"], a["number"], a["tool"], json.loads(a["arguments"]))
        for a in actions
        if a["kind"] != "result"
    ]
    tokenizer = train_tokenizer(calls, 512)
    tokenizer.save(tmp_path / "tokenizer.json")
    config = DialogueDataConfig([made], tmp_path / "tokenizer.json", 4096, 1, 1)
    learned = ""
    for row in datasets.IterableDataset.from_parquet(shards):
        laid = laid_out(row, tokenizer, config)
        is_action = laid.learn_action & (laid.action != tokenizer.id_of(IDLE))
        learned += tokenizer.decode(laid.action[is_action].tolist())
    assert sorted(f"{call} <end>" for call in learned.split(" <end>")[:-1]) == sorted(calls)
    assert len(calls) > 5


def test_nodes_share_the_shards(made: Path, tmp_path: Path) -> None:
    for node in (1, 0):
        synthesize_dialogues(CORPUS, tmp_path, processes=1, node=node, nodes=2)
        expected = {"shard-00001.parquet"} if node else {*hashes(made)}
        assert {*hashes(tmp_path)} == expected
    assert hashes(tmp_path) == hashes(made)
    with pytest.raises(SystemExit, match=r"node is 2: must be in 0\.\.1"):
        synthesize_dialogues(CORPUS, tmp_path, 1, node=2, nodes=2)


def test_other_ways_to_map_shards_make_the_same(made: Path, tmp_path: Path) -> None:
    numbers = datasets.Dataset.from_dict({"shard": [0, 1, 2]})
    numbers.map(lambda row: make_shard(CORPUS, str(tmp_path), row["shard"]), num_proc=2)
    assert hashes(tmp_path) == hashes(made)


def test_a_folder_takes_no_shards_of_another_corpus(made: Path) -> None:
    before = hashes(made)
    with pytest.raises(SystemExit, match=r"holds another corpus: seed differ"):
        synthesize_dialogues(dataclasses.replace(CORPUS, seed=5), made, 1)
    synthesize_dialogues(dataclasses.replace(CORPUS, hours=0.01), made, 1)
    assert hashes(made) == before, "fewer hours are there already"


def test_a_shard_that_fails_is_named_and_the_others_are_made(tmp_path: Path) -> None:
    broken = tmp_path / shard_path(tmp_path, 1).with_suffix(".partial").name
    broken.mkdir()  # where the shard is to be written
    with pytest.raises(SystemExit, match=r"1 shards failed:\n1: "):
        synthesize_dialogues(CORPUS, tmp_path, 2)
    assert {*hashes(tmp_path)} == {"shard-00000.parquet", "shard-00002.parquet"}


def test_latents_are_left_out_where_nobody_asks_for_them(tmp_path: Path) -> None:
    make_shard(dataclasses.replace(CORPUS, with_latents=False), str(tmp_path), 0)
    rows = datasets.Dataset.from_parquet(str(shard_path(tmp_path, 0)))
    assert isinstance(rows, datasets.Dataset)
    assert "user_latents" not in rows.column_names


def test_what_was_read_once_is_never_written_again() -> None:
    path = phrase_path("hello", "test:race")
    one = Utterance("hello", "test:race", np.full(240, 0.1, np.float32), ())
    save(one, path)
    first = path.read_bytes()
    assert is_made(path)
    save(dataclasses.replace(one, audio=np.full(240, 0.2, np.float32)), path)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"user_voices": {"flite:awb": 1, "flite:rms": 1}}, "heldout_voices .*awb.* also train"),
        ({"agent_voices": (sorted(RESERVED_VOICES)[0],)}, "reserved voices"),
        ({"user_voices": {"flite:rms": 1}}, "must be two at least"),
        ({"hours": 0}, "hours 0: must be more than 0"),
        ({"domain": "bakery"}, "domain 'bakery': must be one of"),
    ],
)
def test_a_corpus_out_of_bounds_is_refused(change: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(CORPUS, **change)


def test_our_own_dialogues_are_drawn_and_heard(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "data.inspect", "experiment=front_desk", "count=1"]
    command += [f"out={tmp_path}", "seed=3", "corpus.domain=library"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    audio, rate_hz = soundfile.read(tmp_path / "001-library-3-00000-000.wav", dtype="float32")
    assert rate_hz == 24_000
    assert audio.shape[1] == 2
    assert np.square(audio).mean(0).min() > 1e-5, "both sides are heard"
    picture = plt.imread(tmp_path / "001-library-3-00000-000.png")
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.05
