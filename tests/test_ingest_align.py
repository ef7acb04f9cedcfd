"""Transcripts laid on their audio, and folders of sound files with transcripts beside them."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from spoken_call import Call, make_call, start_errors_s

from data import recordings
from data.dialogue import AGENT, USER, Dialogue
from data.ingest import Dropped
from data.ingest.align import align
from data.ingest.directory import read_directory
from data.ingest.dropped import AlignmentError, summary
from data.voices import SAMPLE_RATE_HZ, say

SENTENCES = (
    "I would like to book a demo of the phone system on Tuesday, at half past 2.",
    "Could you tell me the status of my order, please?",
    "No, not Monday - I meant Wednesday, 9:30.",
    "Send an urgent message to Ms. Okonkwo's people in marketing.",
)
WRONG = "the weather in london is awful and rainy today"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A phrase cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def call(cache) -> Call:
    return make_call()


# Alignment


@pytest.mark.parametrize("voice", ["festival:slt_hts", "flite:rms"])
@pytest.mark.parametrize("style", ["neutral", "urgent", "hesitant"])
def test_words_are_where_the_synthesiser_says_them(voice: str, style: str) -> None:
    starts_s, ends_s = [], []
    for sentence in SENTENCES:
        known = say(sentence, voice, style)
        found = align(known.text, known.audio)
        starts_s += list(start_errors_s(found, known.words))
        ends_s += [abs(a.end_s - b.end_s) for a, b in zip(found, known.words, strict=True)]
    assert np.median(starts_s) <= 0.04
    assert np.percentile(starts_s, 95) <= 0.12
    assert np.median(ends_s) <= 0.04


def test_a_turn_is_found_between_its_times(call: Call) -> None:
    for turn in call.turns:
        found = align(turn.text, call.audio[turn.side], turn.start_s, turn.end_s)
        assert np.median(start_errors_s(found, turn.words)) <= 0.04


def test_a_number_may_be_spelled() -> None:
    spoken = say("My order is four oh one nine two.", "flite:rms")
    found = align("My order is 40192.", spoken.audio)
    assert [word.text for word in found] == ["My", "order", "is", "40192."]
    assert found[3].start_s == pytest.approx(spoken.words[3].start_s, abs=0.05)
    assert found[3].end_s == pytest.approx(spoken.words[-1].end_s, abs=0.05)


def test_the_same_words_are_found_whatever_was_heard_before() -> None:
    one, other = say(SENTENCES[1], "flite:rms"), say(SENTENCES[2], "festival:slt_hts")
    first = align(one.text, one.audio)
    assert align(one.text, one.audio) == first
    align(other.text, other.audio)
    assert align(one.text, one.audio) == first
    with pytest.raises(AlignmentError):
        align(WRONG, np.zeros(SAMPLE_RATE_HZ, np.float32))
    assert align(one.text, one.audio) == first


def test_marks_and_accents_are_no_hindrance() -> None:
    spoken = say("Send Rene's message to the people in marketing, please.", "flite:rms")
    text = "“Send René’s message to the people in ‘marketing’, please…”"
    found = align(text, spoken.audio)
    assert [word.text for word in found] == text.split()
    assert all(
        one.start_s == pytest.approx(known.start_s, abs=0.1)
        for one, known in zip(found, spoken.words, strict=True)
    )


def test_notes_are_left_out_and_dashes_take_no_time() -> None:
    spoken = say("Send it to me, please.", "flite:rms")
    found = align("<|3|> Send it [door slams] to me — please", spoken.audio)
    assert [word.text for word in found] == ["Send", "it", "to", "me", "—", "please"]
    assert found[4].start_s == found[4].end_s == found[3].end_s


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (WRONG, AlignmentError, "'the weather .* is not heard between 0.00 and"),
        (f"{SENTENCES[1]} {WRONG}", AlignmentError, "is not heard"),
        ("日本 please", AlignmentError, "no English pronunciation for '日本'"),
        ("", ValueError, "the transcript is '': must hold a word"),
        (" [noise] — ", ValueError, "must hold a word"),
    ],
)
def test_what_is_not_said_is_refused_and_the_next_is_found(
    text: str, error: type[ValueError], says: str
) -> None:
    spoken = say(SENTENCES[1], "flite:rms")
    with pytest.raises(error, match=says):
        align(text, spoken.audio)
    assert np.median(start_errors_s(align(spoken.text, spoken.audio), spoken.words)) <= 0.04


def test_a_wrong_sentence_amid_right_ones_is_refused() -> None:
    pieces = [say(sentence, "flite:rms") for sentence in SENTENCES]
    audio = np.concatenate([piece.audio for piece in pieces])
    text = " ".join([SENTENCES[0], WRONG, *SENTENCES[2:]])
    assert align(" ".join(SENTENCES), audio)
    with pytest.raises(AlignmentError, match="is not heard"):
        align(text, audio)


@pytest.mark.parametrize(
    "audio",
    [np.zeros(0), np.zeros(10), np.zeros(SAMPLE_RATE_HZ), np.full(SAMPLE_RATE_HZ, np.nan)],
    ids=["none", "short", "silent", "nan"],
)
def test_nothing_is_heard_where_nobody_speaks(audio: np.ndarray) -> None:
    with pytest.raises(AlignmentError):
        align("Could you tell me the status of my order?", audio.astype(np.float32))
    spoken = say(SENTENCES[1], "flite:rms")
    assert len(align(spoken.text, spoken.audio)) == 10


def test_people_are_heard_and_wrong_transcripts_are_not() -> None:
    try:
        found = recordings.test_recordings()[::3]
    except FileNotFoundError:
        pytest.skip("needs asterisk's sounds and pocketsphinx-testdata")
    right, wrong = [], []
    for number, one in enumerate(found):
        audio = recordings.read(one.path)
        right.append(is_aligned(one.text, audio))
        wrong.append(is_aligned(found[number - 7].text, audio))
    assert np.mean(right) >= 0.95
    assert np.mean(wrong) <= 0.1


def is_aligned(text: str, audio: np.ndarray) -> bool:
    try:
        return bool(align(text, audio))
    except AlignmentError:
        return False


# Folders


def put(path: Path, call: Call, agent: str | None = None, user: str | None = None) -> None:
    """Writes a call as a stereo file, and what each side says beside it; None is the truth."""
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, call.audio.T, SAMPLE_RATE_HZ)
    texts = (agent, user)
    for side, name in ((AGENT, "agent"), (USER, "user")):
        text = texts[side]
        path.with_suffix(f".{name}.txt").write_text(call.text(side) if text is None else text)


def test_a_folder_is_read_and_its_transcripts_aligned(tmp_path: Path, call: Call) -> None:
    put(tmp_path / "two.FLAC", call)
    put(tmp_path / "day" / "one.wav", call)
    found = list(read_directory(tmp_path, "CC0"))
    assert [one.name for one in found] == ["day/one.wav", "two.FLAC"]
    for one in found:
        assert isinstance(one, Dialogue)
        assert one.source == f"directory:{tmp_path}"
        assert np.abs(one.audio - call.audio).max() < 1e-3
        for side in (AGENT, USER):
            errors_s = start_errors_s(one.words[side], call.words(side))
            assert np.median(errors_s) <= 0.04


def test_words_with_times_are_used_as_they_are(tmp_path: Path, call: Call) -> None:
    put(tmp_path / "call.wav", call, agent=WRONG)
    alignments = [["Hello", [0.3, 0.6], "SPEAKER_MAIN"]]
    (tmp_path / "call.json").write_text(json.dumps({"alignments": alignments}))
    (found,) = read_directory(tmp_path, "CC0")
    assert isinstance(found, Dialogue)
    assert found.words == ((("Hello", 0.3, 0.6),), ())


def test_each_fault_of_a_folder_is_named_and_nothing_else_is_lost(
    tmp_path: Path, call: Call
) -> None:
    faults = {
        "bytes.wav": "does not fit: 'utf-8' codec can't decode",
        "cut.wav": "cannot be read: it is cut short: it holds",
        "empty.wav": "does not fit: the transcript is '': must hold a word",
        "json.wav": "does not fit: Expecting",
        "late.wav": "does not fit: agent word 0 ('far') is at 99.0 to 99.5 s",
        "lone.wav": "cannot be read: lone.user.txt must lie beside it, or lone.json",
        "mono.wav": "does not fit: it has 1 channels, must have 2",
        "noise.wav": "cannot be read: Error opening",
        "torn.flac": "cannot be read:",
        "wrong.wav": "cannot be aligned: 'the weather in london",
    }
    for name in (*faults, "good.wav", "last.wav", "zero.wav"):
        put(tmp_path / name, call, user=WRONG if name == "wrong.wav" else None)
    for name in ("cut.wav", "torn.flac"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bytes.agent.txt").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "empty.user.txt").write_text("")
    (tmp_path / "json.json").write_text('{"alignments": [')
    late = {"alignments": [["far", [99.0, 99.5], "SPEAKER_MAIN"]]}
    (tmp_path / "late.json").write_text(json.dumps(late))
    (tmp_path / "lone.user.txt").unlink()
    soundfile.write(tmp_path / "mono.wav", call.audio[0], SAMPLE_RATE_HZ)
    (tmp_path / "noise.wav").write_bytes(b"no sound at all")

    found = list(read_directory(tmp_path, "CC0"))
    kept = [one.name for one in found if isinstance(one, Dialogue)]
    dropped = [one for one in found if isinstance(one, Dropped)]
    assert kept == ["good.wav", "last.wav", "zero.wav"]
    assert [one.name for one in dropped] == list(faults)
    for one in dropped:
        assert one.reason.startswith(faults[one.name])
    counts = summary(dropped).splitlines()[:4]
    assert counts == [
        "10 dropped",
        "     5 does not fit",
        "     4 cannot be read",
        "     1 cannot be aligned",
    ]
