"""A person's recordings spliced into a synthesiser's phrases, and the items that are said so."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from data import recordings
from data.dialogue import USER
from data.ingest.align import align
from data.line import Line
from data.scripts.script import Said
from data.scripts.spoken import number
from data.suites.suite import load_suites
from data.voices import SAMPLE_RATE_HZ, Utterance, Word, say
from data.voices.spliced import is_recorded, with_recordings

pytestmark = pytest.mark.skipif(
    not recordings._SOUNDS.exists() or not recordings._TEXTS.exists(),
    reason="needs asterisk's English prompts and their texts",
)
TEXT = "Could you check order three oh five eight, nine two for me on Saturday, please?"
HERS = ("three", "oh", "five", "eight,", "nine", "two", "Saturday,")
SUITES = load_suites("front_desk")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A phrase cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def samples(word: Word) -> slice:
    return slice(round(word.start_s * SAMPLE_RATE_HZ), round(word.end_s * SAMPLE_RATE_HZ))


def rms(parts: list[np.ndarray]) -> float:
    return float(np.sqrt(np.square(np.concatenate(parts)).mean()))


# Words


def test_only_what_is_for_tests_is_heard() -> None:
    files = [*recordings._PROMPTS.values(), *(name for name, _, _ in recordings._CUTS.values())]
    assert {recordings.half_of(f"{Path(name).name}.g722") for name in files} == {"test"}
    digits = "oh zero one two three four five six seven eight nine".split()
    assert {*digits} <= recordings.RECORDED_WORDS == {*recordings.recorded_words()}
    assert "sunday" in recordings.RECORDED_WORDS
    assert "monday" not in recordings.RECORDED_WORDS, "the training half's"


def test_a_cut_is_where_the_aligner_hears_its_word() -> None:
    with gzip.open(recordings._TEXTS, "rt", errors="replace") as lines:
        texts = dict(line.strip().split(": ", 1) for line in lines if ": " in line[:60])
    for word, (name, from_s, to_s) in recordings._CUTS.items():
        heard = align(texts[name], recordings._prompt(name))
        figure = next(str(n) for n in range(10) if number(n) == word)
        assert any(
            found.text.strip(",.") == figure
            and found.start_s == pytest.approx(from_s, abs=0.011)
            and found.end_s == pytest.approx(to_s, abs=0.011)
            for found in heard
        ), word


def test_recordings_stand_where_their_words_are_and_all_else_is_the_voices() -> None:
    plain, spliced = say(TEXT, "flite:awb"), say(TEXT, "spliced:awb")
    assert [word.text for word in spliced.words] == TEXT.split()
    replaced, said = [], []
    for before, after in zip(plain.words, spliced.words, strict=True):
        was, now = plain.audio[samples(before)], spliced.audio[samples(after)]
        if after.text in HERS:
            own = recordings.recorded_words()[after.text.strip(",").lower()]
            assert len(now) == pytest.approx(len(own), abs=2)
            length = min(len(now), len(own))
            assert np.corrcoef(now[:length], own[:length])[0, 1] > 0.98, after
            replaced.append(was)
            said.append(now)
        else:
            inside = slice(200, min(len(was), len(now)) - 200)
            assert np.abs(was[inside] - now[inside]).max() < 1e-3, after
    assert len(said) == len(HERS)
    assert rms(said) == pytest.approx(rms(replaced), rel=0.1)
    assert np.abs(spliced.audio).max() <= 0.99


def test_the_aligner_hears_the_words_where_they_are_said_to_be() -> None:
    spliced = say(TEXT, "spliced:awb")
    heard = align(TEXT, spliced.audio)
    hers = [n for n, word in enumerate(spliced.words) if word.text in HERS]
    for edge in ("start_s", "end_s"):
        errors = [abs(getattr(heard[n], edge) - getattr(spliced.words[n], edge)) for n in hers]
        assert np.median(errors) < 0.05


def test_what_has_no_recording_stays_as_it_is_and_levels_are_bounded() -> None:
    plain = say("Good morning.", "flite:awb")
    assert with_recordings(plain) is plain
    loud = Utterance("one", "x", np.ones(4800, np.float32), (), (Word("one", 0.05, 0.15),))
    assert np.abs(with_recordings(loud).audio[1200:-1200]).max() <= 0.981


def test_a_voice_whose_recordings_are_not_installed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings.recorded_words.cache_clear()
    monkeypatch.setattr(recordings, "_SOUNDS", tmp_path)
    with pytest.raises(FileNotFoundError, match="digits"):
        say("Nobody has said this one.", "spliced:awb")


# Items


def test_a_persons_items_are_those_whose_numbers_are_all_recorded() -> None:
    suite, voices = SUITES.suites["single"], SUITES.voices["human"]
    items = suite.items_for(voices)
    assert 90 <= len(items) < suite.items
    assert [*suite.items_for(["flite:awb"])] == [*range(suite.items)]
    numbers = {"order_id", "account_id", "phone", "time"}
    for item in items:
        steps = [s for s in suite.script(item).steps if isinstance(s, Said) and s.side == "user"]
        said = [p.text for step in steps for p in step.turn.pieces if p.slot in numbers]
        assert said
        assert all(map(is_recorded, said))


def test_a_call_is_right_once_the_last_recorded_digit_is_said() -> None:
    suite, (voice,) = SUITES.suites["single"], SUITES.voices["human"]
    item = next(n for n in suite.items_for([voice]) if "order_status" in suite.script(n).tools)
    dialogue = suite.dialogue(item, [voice], "silent", Line())
    assert "Asterisk" in dialogue.licence
    known_s = {t for a in dialogue.actions for name, t in a.known_s.items() if name != "topic"}
    assert known_s
    assert known_s <= {word.end_s for word in dialogue.words[USER]}
    assert any(is_recorded(w.text) and w.end_s in known_s for w in dialogue.words[USER])
