"""Dialogues, and other people's recordings read as such."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib import pyplot

from data.dialogue import AGENT, USER, Action, Dialogue
from data.ingest import Dropped, read
from data.ingest.dropped import summary
from data.ingest.moshi import read_moshi
from data.inspect import draw, inspect
from data.voices import Word

RATE_HZ = 16_000
ALIGNMENTS = [
    ["Hello,", [0.1, 0.4], "SPEAKER_MAIN"],
    ["yes", [0.3, 0.5], "SPEAKER_00"],
    ["this", [0.5, 0.7], "SPEAKER_MAIN"],
]


def tone(hz: float, seconds: float = 1.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def put(folder: Path, name: str, alignments=ALIGNMENTS, audio=None) -> dict:
    """Writes a recording and its alignments; returns its line of the manifest."""
    if audio is None:
        audio = np.stack([tone(300), tone(700)], axis=1)
    soundfile.write(folder / f"{name}.wav", audio, RATE_HZ, subtype="FLOAT")
    (folder / f"{name}.json").write_text(json.dumps({"alignments": alignments}))
    return {"path": f"{name}.wav", "duration": len(audio) / RATE_HZ}


def manifest(folder: Path, *lines: dict | str) -> Path:
    path = folder / "train.jsonl"
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(written) + "\n")
    return path


def loudest_hz(audio: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(audio)).argmax() * 24_000 / len(audio))


def test_a_recording_is_read_with_both_sides(tmp_path: Path) -> None:
    (found,) = read_moshi(manifest(tmp_path, put(tmp_path, "call")), "CC0")
    assert isinstance(found, Dialogue)
    assert (found.name, found.licence) == ("call.wav", "CC0")
    assert found.audio.dtype == np.float32
    assert found.audio.shape == (2, 24_000)
    assert loudest_hz(found.audio[AGENT]) == pytest.approx(300, abs=1)
    assert loudest_hz(found.audio[USER]) == pytest.approx(700, abs=1)
    assert found.words == (
        (Word("Hello,", 0.1, 0.4), Word("this", 0.5, 0.7)),
        (Word("yes", 0.3, 0.5),),
    )


def test_damaged_recordings_are_dropped_and_named_and_nothing_else_is_lost(tmp_path: Path) -> None:
    good = put(tmp_path, "good")
    damaged: dict[str, tuple[dict | str, str]] = {
        "mono.wav": (put(tmp_path, "mono", audio=tone(300)[:, None]), "1 channels, must have 2"),
        "missing.wav": ({"path": "missing.wav", "duration": 1.0}, "cannot be read"),
        "short.wav": ({**put(tmp_path, "short"), "duration": 9.0}, "given as 9.0 s"),
        "late.wav": (
            put(tmp_path, "late", [["far", [5.0, 5.2], "SPEAKER_MAIN"]]),
            "agent word 0 ('far') is at 5.0 to 5.2 s",
        ),
        "odd.wav": (put(tmp_path, "odd", [["word", 0.1]]), "alignment 0 is ['word', 0.1]"),
        "nan.wav": (
            put(tmp_path, "nan", audio=np.full((RATE_HZ, 2), np.nan, np.float32)),
            "NaN or infinity",
        ),
        "noise.wav": ({"path": "noise.wav", "duration": 1.0}, "cannot be read"),
        "unaligned.wav": (put(tmp_path, "unaligned"), "cannot be read"),
        "other.wav": (put(tmp_path, "other"), "other.json must be an object with a list"),
        "endless.wav": ({**put(tmp_path, "endless"), "duration": "nan"}, "given as nan s"),
        "cut.wav": (put(tmp_path, "cut"), "it is cut short: it holds"),
        "mute.wav": (put(tmp_path, "mute", []), "its transcript is empty"),
        "train.jsonl:14": ("{not json", "does not fit"),
        "train.jsonl:15": ('{"file": "a.wav"}', """is '{"file": "a.wav"}': must be {"path"""),
        "train.jsonl:16": ("[1, 2]", 'must be {"path"'),
    }
    whole = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.wav").write_bytes(b"RIFF\0\0\0\0nothing")
    (tmp_path / "unaligned.json").unlink()
    (tmp_path / "other.json").write_text('{"words": []}')
    lines = [line for line, _ in damaged.values()]
    found = list(read_moshi(manifest(tmp_path, good, *lines, put(tmp_path, "last")), "CC0"))
    kept = [one.name for one in found if isinstance(one, Dialogue)]
    dropped = [one for one in found if isinstance(one, Dropped)]
    assert kept == ["good.wav", "last.wav"]
    assert [one.name for one in dropped] == list(damaged)
    for one, (_, reason) in zip(dropped, damaged.values(), strict=True):
        assert reason in one.reason
    told = summary(dropped).splitlines()
    assert told[:2] == ["15 dropped", "    11 does not fit"]
    assert sum(line.startswith(tuple(damaged)) for line in told) == 15


def test_bytes_that_are_no_text_cost_their_own_line_only(tmp_path: Path) -> None:
    path = manifest(tmp_path, put(tmp_path, "one"), "broken", put(tmp_path, "two"))
    path.write_bytes(path.read_bytes().replace(b"broken", b"\xff\xfe"))
    found = list(read_moshi(path, "CC0"))
    assert [one.name for one in found] == ["one.wav", "train.jsonl:2", "two.wav"]


def test_a_wav_of_unknown_length_is_whole(tmp_path: Path) -> None:
    line = put(tmp_path, "piped")
    path = tmp_path / "piped.wav"
    head, data, sound = path.read_bytes().partition(b"data")
    path.write_bytes(head + data + b"\xff\xff\xff\xff" + sound[4:])
    (found,) = read_moshi(manifest(tmp_path, line), "CC0")
    assert isinstance(found, Dialogue)
    assert found.audio.shape == (2, 24_000)


def test_a_manifest_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.jsonl"):
        list(read_moshi(tmp_path / "nothing.jsonl", "CC0"))


def test_who_speaks_is_told_frame_by_frame() -> None:
    words = ((Word("hello", 0.08, 0.2),), (Word("yes", 0.16, 0.16), Word("no", 0.9, 1.0)))
    dialogue = Dialogue("two", np.zeros((2, 24_000), np.float32), words, "test", "CC0")
    assert dialogue.frames == 13
    agent, user = dialogue.is_speaking()
    assert np.flatnonzero(agent).tolist() == [1, 2]
    assert np.flatnonzero(user).tolist() == [2, 11, 12]


@pytest.mark.parametrize(
    ("audio", "words", "says"),
    [
        (np.zeros((1, 9)), (), r"audio has shape \[1, 9\]: must be \[2, samples\]"),
        (np.zeros((2, 0)), (), r"must be \[2, samples\]"),
        (np.zeros((2, 24_000)), (Word("a", 0.5, 0.4),), r"user word 0 \('a'\) is at 0.5 to 0.4 s"),
        (
            np.zeros((2, 24_000)),
            (Word("a", 0.5, 0.6), Word("b", 0.4, 0.7)),
            r"user word 1 \('b'\) .* must begin at 0.5 s or later",
        ),
    ],
)
def test_a_dialogue_whose_parts_do_not_fit_is_refused(audio, words, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Dialogue("bad", audio.astype(np.float32), ((), words), "test", "CC0")


def test_inspecting_leaves_pictures_sounds_and_what_was_dropped(tmp_path: Path) -> None:
    lines = [put(tmp_path, "one"), "{", put(tmp_path, "two"), put(tmp_path, "three")]
    found = read("moshi", str(manifest(tmp_path, *lines)), "CC0")
    dropped = inspect(found, tmp_path / "out", count=2)
    assert [one.name for one in dropped] == ["train.jsonl:2"]
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["001-one.png", "001-one.wav", "002-two.png", "002-two.wav"]
    audio, rate_hz = soundfile.read(tmp_path / "out" / "002-two.wav")
    assert (audio.shape, rate_hz) == ((24_000, 2), 24_000)
    assert loudest_hz(audio[:, USER]) == pytest.approx(700, abs=1)


def test_a_picture_shows_words_and_calls(tmp_path: Path) -> None:
    plain = Dialogue("call", np.zeros((2, 48_000), np.float32), ((), ()), "test", "CC0")
    action = Action(1.9, "call", 1, "order_status", {"order_id": "48192"})
    words = ((), (Word("order", 0.2, 0.6),))
    pictures = []
    for number, one in enumerate(
        (
            plain,
            dataclasses.replace(plain, words=words),
            dataclasses.replace(plain, actions=(action,)),
        )
    ):
        draw(one, tmp_path / f"{number}.png")
        pictures.append(pyplot.imread(tmp_path / f"{number}.png"))
    red = [int(((p[..., 0] > 0.7) & (p[..., 1] < 0.3)).sum()) for p in pictures]
    orange = [int(((p[..., 0] > 0.9) & (p[..., 2] < 0.2)).sum()) for p in pictures]
    assert red[0] == red[1] < red[2] - 200
    assert orange[1] > orange[0] + 100


def test_inspecting_nothing_says_what_to_give() -> None:
    command = [sys.executable, "-m", "data.inspect", "manifest=nothing.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "manifest is 'nothing.jsonl': must be a file" in done.stderr


@pytest.mark.parametrize(
    ("format", "manifest", "says"),
    [
        ("kaldi", "here", r"format is 'kaldi': must be one of \('moshi', 'directory'"),
        ("lhotse", "nothing.jsonl", "manifest is 'nothing.jsonl': must be a file"),
        ("directory", "nowhere", "manifest is 'nowhere': must be a folder"),
        ("directory", "", "must hold stereo wav or flac files"),
    ],
)
def test_a_reader_says_what_it_wants(
    format: str, manifest: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        list(read(format, manifest, "CC0"))


def test_the_format_chooses_the_reader(tmp_path: Path) -> None:
    put(tmp_path, "one")
    put(tmp_path, "two", audio=tone(300)[:, None])
    out = tmp_path / "out"
    options = ["format=directory", f"manifest={tmp_path}", f"out={out}"]
    command = [sys.executable, "-m", "data.inspect", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "two.wav: does not fit: it has 1 channels, must have 2" in done.stdout
    assert [path.name for path in sorted(out.iterdir())] == ["001-one.png", "001-one.wav"]


def test_a_missing_library_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lhotse", None)
    monkeypatch.delitem(sys.modules, "data.ingest.cuts", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"'lhotse' needs lhotse: pip install .*ingest"):
        read("lhotse", str(manifest(tmp_path)), "CC0")
