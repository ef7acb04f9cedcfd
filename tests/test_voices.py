"""Voices: words at their times, styles, and the phrase cache, with the real synthesisers."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from pocketsphinx import Decoder

from data.voices import SAMPLE_RATE_HZ, Phone, Utterance, Word, engines, say
from data.voices.say import ENGINES
from data.voices.style import STYLES, Style, with_fillers
from data.voices.words import pronunciation, without_silence, words_by_comparison, words_of
from train.pitch import PitchTracker

TEXT = "I would like to book a demo of the phone system on Tuesday, at half past two."
SENTENCES = (
    TEXT,
    "Could you tell me the status of my order, please?",
    "No, not Monday, I meant Wednesday at nine thirty.",
    "Send an urgent message to the people in marketing.",
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A phrase cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(folder))
        yield folder


def aligned_starts(utterance: Utterance, decoder: Decoder) -> list[float]:
    """Where pocketsphinx hears each word begin, in seconds."""
    words = [re.sub(r"[^a-z']", "", word.text.lower()) for word in utterance.words]
    pcm = soxr.resample(utterance.audio, SAMPLE_RATE_HZ, 16_000).clip(-1, 1) * 32767
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    decoder.process_raw(pcm.astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    found = [(s.word, s.start_frame / 100) for s in decoder.seg() if s.word[0] not in "<(["]
    assert [re.sub(r"\(\d\)", "", word) for word, _ in found] == words
    return [start_s for _, start_s in found]


# Words


@pytest.mark.parametrize("voice", ["festival:slt_hts", "flite:rms"])
@pytest.mark.parametrize("style", ["neutral", "urgent", "hesitant"])
def test_words_begin_where_an_independent_aligner_hears_them(voice: str, style: str) -> None:
    decoder = Decoder(samprate=16_000, lm=None, loglevel="FATAL")
    errors_s: list[float] = []
    for text in SENTENCES:
        utterance = say(text, voice, style)
        heard = aligned_starts(utterance, decoder)
        errors_s += [abs(w.start_s - s) for w, s in zip(utterance.words, heard, strict=True)]
    assert np.median(errors_s) <= 0.04
    assert np.percentile(errors_s, 95) <= 0.12


@pytest.mark.parametrize("voice", ["festival:kal", "flite:kal16", "espeak:en-us"])
def test_words_are_the_texts_in_order_and_inside_the_audio(voice: str) -> None:
    utterance = say(TEXT, voice)
    assert " ".join(word.text for word in utterance.words) == TEXT
    times = [time for word in utterance.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= len(utterance.audio) / SAMPLE_RATE_HZ
    assert all(word.end_s - word.start_s > 0.02 for word in utterance.words)


def test_words_of_an_engine_without_times_are_found_by_comparison() -> None:
    known = say(TEXT, "festival:slt_hts")
    found = words_by_comparison(known.audio, say(TEXT, "flite:slt"))
    assert [word.text for word in found] == [word.text for word in known.words]
    errors_s = [abs(a.start_s - b.start_s) for a, b in zip(found, known.words, strict=True)]
    assert np.median(errors_s) <= 0.03
    assert sorted(errors_s)[-2] <= 0.1  # one word may hang over the comma's pause


def test_a_word_without_a_phone_of_its_own_takes_no_time() -> None:
    symbols = ["SIL", "M", "AY", "D", "AO", "G", "SIL"]  # "to" went missing
    phones = [Phone(symbol, i / 10, (i + 1) / 10) for i, symbol in enumerate(symbols)]
    words = words_of("my to dog", phones)
    assert words == (Word("my", 0.1, 0.3), Word("to", 0.3, 0.3), Word("dog", 0.3, 0.6))
    assert words_of("my dog", phones[:1]) == ()


def test_a_word_ends_where_its_sound_ends() -> None:
    audio = np.zeros(2 * SAMPLE_RATE_HZ, np.float32)
    audio[12_000:24_000] = np.sin(np.arange(12_000) / 10)  # from 0.5 to 1 s
    late, closure, silent = Word("late", 0.2, 1.8), Word("stop", 0.6, 1.1), Word("hm", 1.5, 1.8)
    found = without_silence((late, closure, silent), audio)
    assert found[0].start_s == pytest.approx(0.5, abs=0.011)
    assert found[0].end_s == pytest.approx(1.0, abs=0.011)
    assert found[1:] == (closure, silent)


@pytest.mark.parametrize(
    ("word", "phones"),
    [("thirty,", "TH ER D IY"), ("30", "TH ER D IY"), ("(two)", "T UW"), ("-", ""), ("!", "")],
)
def test_a_written_word_has_the_phones_that_are_spoken(word: str, phones: str) -> None:
    assert pronunciation(word) == tuple(phones.split())


# Styles


def pitch_hz(audio: np.ndarray) -> float:
    tracked = PitchTracker()(torch.from_numpy(audio)[None])[0]
    return float(tracked[tracked > 0].median())


def loudness_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(audio**2)))


def test_urgent_is_faster_higher_and_louder_and_keeps_the_words() -> None:
    neutral, urgent = (say(TEXT, "festival:slt_hts", style) for style in ("neutral", "urgent"))
    assert len(neutral.audio) / len(urgent.audio) == pytest.approx(1.25, rel=0.01)
    assert pitch_hz(urgent.audio) / pitch_hz(neutral.audio) == pytest.approx(1.155, rel=0.04)
    assert loudness_db(urgent.audio) > loudness_db(neutral.audio) + 2
    assert np.abs(urgent.audio).max() <= 1
    assert [word.text for word in urgent.words] == TEXT.split()


def test_hesitant_has_fillers_and_pauses_that_are_silent() -> None:
    found = [say(text, "flite:rms", "hesitant") for text in SENTENCES]
    fillers = [word for one in found for word in one.words if word.text in ("um,", "uh,", "er,")]
    assert fillers
    for one in found:
        assert one.text.split() == [word.text for word in one.words]
        bare = [word.text for word in one.words if word not in fillers]
        assert bare in [text.split() for text in SENTENCES]
    pauses = [
        (one, before.end_s, after.start_s)
        for one in found
        for before, after in zip(one.words, one.words[1:], strict=False)
        if after.start_s - before.end_s >= 0.25
    ]
    assert len(pauses) >= 2
    for one, start_s, end_s in pauses:
        gap = one.audio[
            int((start_s + 0.01) * SAMPLE_RATE_HZ) : int((end_s - 0.01) * SAMPLE_RATE_HZ)
        ]
        assert np.abs(gap[-int(0.2 * SAMPLE_RATE_HZ) :]).max() < 1e-3


def test_fillers_come_as_often_as_the_style_says() -> None:
    words = "word " * 1000
    style = Style(filler_chance=0.1)
    longer = with_fillers(words, style, "seed").split()
    assert 60 < len(longer) - 1000 < 140
    assert with_fillers(words, style, "seed").split() == longer
    assert with_fillers(words, style, "other").split() != longer


@pytest.mark.parametrize(
    ("field", "value"), [("tempo", 3.0), ("pause_chance", 1.5), ("filler_chance", -0.1)]
)
def test_a_style_out_of_bounds_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Style(**{field: value})


# The cache


@pytest.mark.parametrize("style", sorted(STYLES))
def test_nothing_is_spoken_twice(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = say("We are open on Sunday.", "flite:slt", style)
    monkeypatch.setitem(ENGINES, "flite", None)
    again = say("We are open on Sunday.", "flite:slt", style)
    assert np.array_equal(first.audio, again.audio)
    assert (again.text, again.voice) == (first.text, first.voice)
    assert (again.phones, again.words) == (first.phones, first.words)


def test_an_empty_cache_gives_the_same_again(cache: Path) -> None:
    first = say(TEXT, "flite:slt", "hesitant")
    shutil.rmtree(cache / "phrases")
    again = say(TEXT, "flite:slt", "hesitant")
    assert np.array_equal(first.audio, again.audio)
    assert first.words == again.words


@pytest.mark.parametrize(
    ("text", "voice", "style", "says"),
    [
        ("Hello", "nobody:rms", "neutral", "must be ENGINE:NAME"),
        ("Hello", "flite", "neutral", "must be ENGINE:NAME"),
        ("Hello", "flite:rms", "angry", "style 'angry': must be one of"),
        (" ", "flite:rms", "neutral", "must hold a word"),
    ],
)
def test_what_cannot_be_said_is_refused(text: str, voice: str, style: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        say(text, voice, style)


@pytest.mark.parametrize("voice", ["kokoro:af_heart", "piper:en_US-joe-medium"])
def test_a_voice_without_weights_says_where_they_go(voice: str, cache: Path) -> None:
    engine, name = voice.split(":")
    with pytest.raises(FileNotFoundError, match=str(cache / engine)) as caught:
        say("Hello there", voice)
    assert name in str(caught.value) or "make voices" in str(caught.value)


def test_a_festival_that_ended_is_begun_anew(cache: Path) -> None:
    first = engines.festival("Good morning.", "kal")
    running = engines._festival_of(os.getpid())
    assert running is engines._festival_of(os.getpid())
    running.kill()
    running.wait()
    assert np.array_equal(engines.festival("Good morning.", "kal").audio, first.audio)
    with pytest.raises(RuntimeError, match="festival ended"):
        engines._run_festival("(exit)")
    assert np.array_equal(engines.festival("Good morning.", "kal").audio, first.audio)
