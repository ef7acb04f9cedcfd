"""Callers who read: nothing but their words, in no order that a call has."""

from pathlib import Path

import numpy as np
import pytest

import data.dictation
from data.dialogue import AGENT, USER
from data.dictation import ROLE, DictationCorpus
from data.line import LineShares
from data.voices.silent import SILENT
from model.frame import USERS


def corpus(**changes) -> DictationCorpus:
    given = {
        "domain": "front_desk", "split": "train", "user_voices": {SILENT: 1.0},
        "heldout_voices": ("flite:awb",), "styles": {"neutral": 1.0, "hesitant": 1.0},
        "lines": LineShares(noise_db={20.0: 1.0}), "turns": 6, "hours": 0.5,
    }  # fmt: skip
    return DictationCorpus(**{**given, **changes})


def test_only_the_caller_speaks_and_nothing_is_done() -> None:
    read = corpus().dialogue(0, 3)
    assert not read.words[AGENT]
    assert not read.audio[AGENT].any()
    assert not read.actions
    assert (read.system, read.tools) == (ROLE, "[]")
    assert len(read.words[USER]) > 20
    assert USERS in read.floor()


def test_a_dictation_is_the_same_whenever_it_is_made() -> None:
    first, again, other = (corpus().dialogue(1, number) for number in (0, 0, 1))
    assert first.words == again.words
    assert np.array_equal(first.audio, again.audio)
    assert first.words != other.words


def test_held_out_voices_do_not_read() -> None:
    with pytest.raises(ValueError, match="flite:awb"):
        corpus(user_voices={"flite:awb": 1.0})


def test_a_third_of_the_lines_are_common_words() -> None:
    common = {*(Path(data.dictation.__file__).parent / "common_words.txt").read_text().split()}
    read = corpus(turns=30).dialogue(0, 1)
    words = [word.text.strip(",.") for word in read.words[USER]]
    assert len([word for word in words if word in common]) > len(words) / 3
    unusual = {"guarantee", "umbrella", "wireless", "sixteen"}
    assert unusual <= common
