"""Manifests that Lhotse writes, as NeMo's duplex models and Lhotse's own recipes have them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from lhotse import CutSet, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem
from spoken_call import Call, Turn, make_call, start_errors_s

from data.dialogue import AGENT, USER, Dialogue
from data.ingest import Dropped
from data.ingest.cuts import read_lhotse
from data.voices import SAMPLE_RATE_HZ

NAMES = {AGENT: "agent", USER: "user"}


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Call:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_call()


def write(path: Path, audio: np.ndarray, rate_hz: int) -> Recording:
    """Writes float32 [channels, T] at 24 kHz at another rate."""
    channels = [soxr.resample(channel, SAMPLE_RATE_HZ, rate_hz) for channel in audio]
    soundfile.write(path, np.stack(channels, axis=1), rate_hz)
    return Recording.from_file(path)


def supervision(turn: Turn, number: int = 0, aligned: bool = False) -> SupervisionSegment:
    items = [
        AlignmentItem(word.text, word.start_s, word.end_s - word.start_s) for word in turn.words
    ]
    return SupervisionSegment(
        id=f"turn-{number}",
        recording_id="call",
        start=turn.start_s,
        duration=turn.end_s - turn.start_s,
        text=turn.text,
        speaker=NAMES[turn.side],
        alignment={"word": [AlignmentItem("<eps>", 0.0, 0.1), *items]} if aligned else None,
    )


def nemo_cut(folder: Path, call: Call, name: str = "call", aligned: bool = False) -> MonoCut:
    """The user's audio at 16 kHz as the recording, the agent's at 22.05 kHz as target_audio."""
    cut = write(folder / f"{name}.user.wav", call.audio[USER:], 16_000).to_cut()
    assert isinstance(cut, MonoCut)
    cut.id = name
    cut.target_audio = write(folder / f"{name}.agent.wav", call.audio[:USER], 22_050)
    cut.supervisions = [supervision(turn, i, aligned) for i, turn in enumerate(call.turns)]
    return cut


def stereo_cut(folder: Path, call: Call) -> MultiCut:
    cut = write(folder / "stereo.flac", call.audio, SAMPLE_RATE_HZ).to_cut()
    assert isinstance(cut, MultiCut)
    cut.supervisions = [supervision(turn, i) for i, turn in enumerate(call.turns)]
    return cut


def manifest(folder: Path, *cuts: MonoCut | MultiCut, name: str = "cuts.jsonl.gz") -> Path:
    CutSet.from_cuts(cuts).to_file(folder / name)
    return folder / name


def assert_is_call(found: Dialogue | Dropped, call: Call) -> None:
    assert isinstance(found, Dialogue), found.reason
    assert found.audio.shape[1] == pytest.approx(call.audio.shape[1], abs=4)
    for side in (AGENT, USER):
        heard = found.audio[side, : call.audio.shape[1] - 4]
        assert np.corrcoef(heard, call.audio[side, : len(heard)])[0, 1] > 0.98
        errors_s = start_errors_s(found.words[side], call.words(side))
        assert np.median(errors_s) <= 0.04


def test_nemos_cuts_are_read_and_aligned(tmp_path: Path, call: Call) -> None:
    path = manifest(tmp_path, nemo_cut(tmp_path, call))
    (found,) = read_lhotse(path, "CC0")
    assert_is_call(found, call)
    assert isinstance(found, Dialogue)
    assert (found.name, found.source) == ("call", f"lhotse:{path}")


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_word_alignments_are_used_as_they_are(tmp_path: Path, call: Call, name: str) -> None:
    (found,) = read_lhotse(
        manifest(tmp_path, nemo_cut(tmp_path, call, aligned=True), name=name), ""
    )
    assert isinstance(found, Dialogue)
    for side in (AGENT, USER):
        assert start_errors_s(found.words[side], call.words(side)).max() < 1e-6


def test_a_part_of_a_recording_has_its_own_time(tmp_path: Path, call: Call) -> None:
    start_s = call.turns[1].start_s - 0.1
    for aligned in (False, True):
        cut = nemo_cut(tmp_path, call, aligned=aligned).truncate(offset=start_s)
        assert isinstance(cut, MonoCut)
        (found,) = read_lhotse(manifest(tmp_path, cut), "CC0")
        assert isinstance(found, Dialogue)
        assert found.seconds == pytest.approx(call.audio.shape[1] / 24_000 - start_s, abs=0.01)
        known = tuple(word._replace(start_s=word.start_s - start_s) for word in call.turns[2].words)
        assert np.median(start_errors_s(found.words[AGENT], known)) <= 0.04


@pytest.mark.parametrize("by", ["speaker", "channel"])
def test_a_stereo_cut_has_the_agent_first(tmp_path: Path, call: Call, by: str) -> None:
    cut = stereo_cut(tmp_path, call)
    if by == "channel":
        for turn, segment in zip(call.turns, cut.supervisions, strict=True):
            segment.channel, segment.speaker = turn.side, "speaker 7"
    (found,) = read_lhotse(manifest(tmp_path, cut), "CC0")
    assert_is_call(found, call)


def test_a_moved_folder_is_found(tmp_path: Path, call: Call) -> None:
    cut = nemo_cut(tmp_path, call)
    path = manifest(tmp_path, cut, name="cuts.jsonl")
    path.write_text(path.read_text().replace(f"{tmp_path}/", ""))
    (found,) = read_lhotse(path, "CC0")
    assert_is_call(found, call)


Fault = Callable[[dict, Path], object]
FAULTS: dict[str, tuple[Fault, str]] = {
    "missing": (
        lambda cut, folder: (folder / "missing.user.wav").unlink(),
        "cannot be read: Error opening",
    ),
    "torn": (
        lambda cut, folder: (folder / "torn.agent.wav").write_bytes(
            (folder / "torn.agent.wav").read_bytes()[:9000]
        ),
        "cannot be read: it is cut short",
    ),
    "longer": (
        lambda cut, folder: soundfile.write(
            folder / "longer.user.wav", np.zeros(16_000), 16_000, subtype="PCM_16"
        ),
        "cannot be read: ",
    ),
    "alone": (lambda cut, folder: cut.pop("custom"), "it has 1 channels and no target_audio"),
    "unheard": (
        lambda cut, folder: cut["supervisions"][0].update(text="rainy weather in london"),
        "cannot be aligned: 'rainy weather",
    ),
    "silent": (
        lambda cut, folder: cut["supervisions"][1].pop("text"),
        "does not fit: the transcript is ''",
    ),
    "empty": (lambda cut, folder: cut.update(supervisions=[]), "its transcript is empty"),
    "stranger": (
        lambda cut, folder: cut["supervisions"][2].update(speaker="Bob"),
        "supervision turn-2: speaker 'Bob' must be agent, assistant or user",
    ),
    "late": (
        lambda cut, folder: cut["supervisions"][3].update(start=99.0),
        "supervision turn-3 lasts from 99.0 to",
    ),
    "astray": (
        lambda cut, folder: cut["supervisions"][0].update(alignment={"word": [["hi", 50, 0.1]]}),
        "its words from 50 to 50.1 s: must lie within it",
    ),
    "command": (
        lambda cut, folder: cut["recording"]["sources"][0].update(
            type="command", source=f"touch {folder}/ran"
        ),
        "its audio is of type ['command']: must be files",
    ),
    "unrecorded": (lambda cut, folder: cut.pop("recording"), "it has no recording"),
    "cuts.jsonl:13": (lambda cut, folder: cut.pop("start"), "the line is no cut: TypeError"),
    "cuts.jsonl:14": (lambda cut, folder: cut.update(type="Shot"), "the line is no cut: "),
    "cuts.jsonl:15": (
        lambda cut, folder: (cut.clear(), cut.update(id="a", sources=[], sampling_rate=1)),
        "the line is",
    ),
}


def test_each_fault_is_named_and_nothing_else_is_lost(tmp_path: Path, call: Call) -> None:
    lines = []
    for name, (damage, _) in FAULTS.items():
        (entry,) = CutSet.from_cuts([nemo_cut(tmp_path, call, name)]).to_dicts()
        entry = json.loads(json.dumps(entry))
        damage(entry, tmp_path)
        lines.append(json.dumps(entry))
    lines += ["{broken", json.dumps(nemo_cut(tmp_path, call, "good").to_dict())]
    path = tmp_path / "cuts.jsonl"
    path.write_text("\n".join(lines))
    *dropped, last = read_lhotse(path, "CC0")
    assert_is_call(last, call)
    assert [one.name for one in dropped] == [*FAULTS, "cuts.jsonl:16"]
    for one in dropped[:-1]:
        assert isinstance(one, Dropped)
        assert FAULTS[one.name][1] in one.reason
    assert not (tmp_path / "ran").exists()


def test_an_agent_on_the_users_channel_is_not_taken_for_the_user(
    tmp_path: Path, call: Call
) -> None:
    cut = stereo_cut(tmp_path, call)
    cut.supervisions[0].channel = USER
    (found,) = read_lhotse(manifest(tmp_path, cut), "CC0")
    assert isinstance(found, Dropped)
    assert "supervision turn-0: the agent is on channel 1, must be on 0" in found.reason


def test_a_torn_archive_gives_what_it_holds(tmp_path: Path, call: Call) -> None:
    line = json.dumps(nemo_cut(tmp_path, call, aligned=True).to_dict()).encode() + b"\n"
    path = tmp_path / "cuts.jsonl.gz"
    path.write_bytes(gzip.compress(line) + gzip.compress(line)[:-12])
    first, *rest = read_lhotse(path, "CC0")
    assert isinstance(first, Dialogue)
    assert isinstance(rest[-1], Dropped)
    assert "cannot be read" in rest[-1].reason
    assert "so is what follows" in rest[-1].reason
