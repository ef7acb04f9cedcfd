"""Hugging Face datasets: folders of Parquet files, as the hub has them."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from spoken_call import Call, make_call, start_errors_s

from data.dialogue import AGENT, USER, Dialogue
from data.ingest import Dropped
from data.ingest.huggingface import Columns, read_huggingface
from data.voices import SAMPLE_RATE_HZ


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Call:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_call()


def flac(audio: np.ndarray) -> bytes:
    """A FLAC file of float32 [channels, T] at 24 kHz."""
    file = io.BytesIO()
    soundfile.write(file, audio.T, SAMPLE_RATE_HZ, format="FLAC")
    return file.getvalue()


def row(call: Call, name: str, **changes: Any) -> dict:
    words = [
        {"text": word.text, "start": word.start_s, "end": word.end_s, "speaker": speaker}
        for side, speaker in ((AGENT, "agent"), (USER, "user"))
        for word in call.words(side)
    ]
    made = {
        "audio": {"bytes": flac(call.audio), "path": f"{name}.flac"},
        "words": words,
        "agent_text": call.text(AGENT),
        "user_text": call.text(USER),
    }
    return made | changes


def put(folder: Path, *shards: list[dict]) -> str:
    """Writes a dataset, one file a shard."""
    for number, rows in enumerate(shards):
        path = folder / f"train-{number:05}-of-{len(shards):05}.parquet"
        Dataset.from_list(rows).to_parquet(path)
    return str(folder)


def assert_is_call(found: Dialogue | Dropped, call: Call, limit_s: float) -> None:
    assert isinstance(found, Dialogue), found.reason
    assert np.abs(found.audio - call.audio).max() < 1e-3
    for side in (AGENT, USER):
        assert np.median(start_errors_s(found.words[side], call.words(side))) <= limit_s


def test_words_with_times_are_used_as_they_are(tmp_path: Path, call: Call) -> None:
    name = put(tmp_path, [row(call, "one"), row(call, "two")], [row(call, "three")])
    found = list(read_huggingface(name, "CC0"))
    assert [one.name for one in found] == ["one.flac", "two.flac", "three.flac"]
    for one in found:
        assert_is_call(one, call, 1e-6)
        assert isinstance(one, Dialogue)
        assert (one.source, one.licence) == (f"huggingface:{name}", "CC0")


def test_rows_without_words_are_aligned(tmp_path: Path, call: Call) -> None:
    name = put(tmp_path, [row(call, "one"), row(call, "two", words=None)])
    one, two = read_huggingface(name, "CC0")
    assert_is_call(one, call, 1e-6)
    assert_is_call(two, call, 0.04)
    assert isinstance(one, Dialogue)
    assert isinstance(two, Dialogue)
    assert one.words != two.words


def test_columns_may_have_other_names(tmp_path: Path, call: Call) -> None:
    made = row(call, "one")
    renamed = {"sound": made["audio"], "reply": made["agent_text"], "said": made["user_text"]}
    renamed["sound"] = {"bytes": made["audio"]["bytes"], "path": None}
    columns = Columns(audio="sound", agent_text="reply", user_text="said")
    (found,) = read_huggingface(put(tmp_path, [renamed]), "CC0", columns=columns)
    assert_is_call(found, call, 0.04)
    assert found.name == "row 1"


def test_sounds_may_lie_beside_the_table(tmp_path: Path, call: Call) -> None:
    sound = tmp_path / "one.flac"
    sound.write_bytes(flac(call.audio))
    made = row(call, "one")
    made["audio"] = {"bytes": None, "path": str(sound)}
    lost = row(call, "lost")
    lost["audio"] = {"bytes": None, "path": str(tmp_path / "lost.flac")}
    (tmp_path / "tables").mkdir()
    one, two = read_huggingface(put(tmp_path / "tables", [made, lost]), "CC0")
    assert_is_call(one, call, 1e-6)
    assert isinstance(two, Dropped)
    assert two.reason.startswith("cannot be read: ")


def test_each_fault_is_named_and_nothing_else_is_lost(tmp_path: Path, call: Call) -> None:
    far = [{"text": "far", "start": 99.0, "end": 99.5, "speaker": "agent"}]
    faults: dict[str, tuple[dict, str]] = {
        "noise": ({"bytes": b"no sound"}, "cannot be read: Error opening"),
        "torn": ({"bytes": flac(call.audio)[:5000]}, "cannot be read: "),
        "mono": ({"bytes": flac(call.audio[:1])}, "it has 1 channels, must have 2"),
        "late": ({"words": far}, "agent word 0 ('far') is at 99.0 to 99.5 s"),
        "bob": ({"words": [far[0] | {"speaker": "Bob"}]}, "words[0] is {'text': 'far'"),
        "never": ({"words": [far[0] | {"start": None}]}, "must have text, start and end"),
        "empty": ({"words": []}, "its transcript is empty"),
        "mute": ({"words": None, "user_text": None}, "the transcript is ''"),
        "wrong": ({"words": None, "user_text": "rainy weather"}, "cannot be aligned: 'rainy"),
    }
    rows = [row(call, "first")]
    for name, (changes, _) in faults.items():
        made = row(call, name)
        if "bytes" in changes:
            made["audio"] = {"bytes": changes["bytes"], "path": f"{name}.flac"}
        rows.append(made | {key: value for key, value in changes.items() if key != "bytes"})
    rows += [row(call, "null", audio=None), row(call, "last")]
    first, *dropped, last = read_huggingface(put(tmp_path, rows), "CC0")
    assert_is_call(first, call, 1e-6)
    assert_is_call(last, call, 1e-6)
    assert [one.name for one in dropped] == [*(f"{name}.flac" for name in faults), "row 11"]
    for one, (_, reason) in zip(dropped, faults.values(), strict=False):
        assert isinstance(one, Dropped)
        assert reason in one.reason
    assert isinstance(dropped[-1], Dropped)
    assert dropped[-1].reason == "does not fit: audio is null: must be a sound"


@pytest.mark.parametrize("damaged", [0, 1])
def test_a_damaged_shard_costs_itself_only(tmp_path: Path, call: Call, damaged: int) -> None:
    name = put(tmp_path, *([row(call, str(number))] for number in range(3)))
    path = tmp_path / f"train-{damaged:05}-of-00003.parquet"
    os.truncate(path, path.stat().st_size // 2)
    found = list(read_huggingface(name, "CC0"))
    expected = ["0.flac", "1.flac", "2.flac"]
    expected[damaged] = f"train: shard {damaged + 1} of 3"
    assert [one.name for one in found] == expected
    lost = found[damaged]
    assert isinstance(lost, Dropped)
    assert lost.reason.startswith("cannot be read: ")


def test_what_is_not_there_is_an_error(tmp_path: Path, call: Call) -> None:
    name = put(tmp_path, [row(call, "one")])
    with pytest.raises(ValueError, match=r"columns are .*'words'.*: must hold 'sound'"):
        list(read_huggingface(name, "CC0", columns=Columns(audio="sound")))
    with pytest.raises(ValueError, match="both 'agent_text' and 'reply'"):
        list(read_huggingface(name, "CC0", columns=Columns(words="times", user_text="reply")))
    with pytest.raises(ValueError, match="validation"):
        list(read_huggingface(name, "CC0", split="validation"))
    with pytest.raises(FileNotFoundError):
        list(read_huggingface(str(tmp_path / "nothing"), "CC0"))
