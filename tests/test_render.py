"""Spoken turns on two channels: words and calls at their times, cut-offs, and what a line adds."""

import dataclasses
import math

import numpy as np
import pytest

from data.dialogue import AGENT, USER, Dialogue
from data.line import Line, over_line
from data.render import Placed, render
from data.scripts.spoken_turn import SpokenTurn
from data.scripts.turn import Call, Piece, Turn
from data.voices import SAMPLE_RATE_HZ, Utterance, Word


def spoken(text: str, calls: tuple[Call, ...] = (), hz: float = 200.0) -> SpokenTurn:
    """A word every half second, each 0.4 s of a tone."""
    pieces = tuple(Piece(word) for word in text.split())
    samples = len(pieces) * SAMPLE_RATE_HZ // 2
    times = np.arange(samples) / SAMPLE_RATE_HZ
    audio = (0.3 * np.sin(2 * np.pi * hz * times) * (times % 0.5 < 0.4)).astype(np.float32)
    words = tuple(Word(piece.text, i / 2, i / 2 + 0.4) for i, piece in enumerate(pieces))
    utterance = Utterance(text, "tone", audio, (), words)
    return SpokenTurn(Turn(pieces, calls), utterance, tuple(range(len(pieces))))


ORDER = Call("order_status", {"order_id": "12"}, after=2)
OTHER = Call("order_status", {"order_id": "13"}, after=4, revises=0)
FAQ = Call("faq", {"topic": "hours"}, after=0)
ASKED = spoken("order one two, no three", (ORDER, OTHER))


def power(dialogue: Dialogue, side: int, start_s: float, end_s: float) -> float:
    part = dialogue.audio[side, int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]
    return float(np.mean(part**2))


def test_turns_words_and_calls_lie_at_their_times() -> None:
    reply = spoken("it has shipped")
    turns = [
        Placed(AGENT, reply, 4.0),
        Placed(USER, ASKED, 1.0),
        Placed(USER, spoken("open", (FAQ,)), 6),
    ]
    found = render("call", turns, 8.0, "test", "CC0")
    assert (found.seconds, found.frames) == (8.0, 100)
    assert [word.text for word in found.words[AGENT]] == ["it", "has", "shipped"]
    assert found.words[USER][0] == Word("order", 1.0, 1.4)
    assert found.words[USER][-1] == Word("open", 6.0, 6.4)
    assert [(a.time_s, a.kind, a.number, a.revises) for a in found.actions] == [
        (pytest.approx(2.4), "call", 1, None),
        (pytest.approx(3.4), "revise", 2, 1),
        (pytest.approx(6.4), "call", 3, None),
    ]
    assert [a.arguments for a in found.actions] == [ORDER.arguments, OTHER.arguments, FAQ.arguments]
    assert power(found, USER, 1.0, 1.4) == pytest.approx(0.045, rel=0.02)
    for side, start_s, end_s in ((USER, 0, 1), (USER, 3.5, 6), (AGENT, 0, 4), (AGENT, 5.5, 8)):
        assert power(found, side, start_s, end_s) == 0


def test_a_turn_that_is_cut_off_loses_its_later_words_and_calls() -> None:
    cut = Placed(USER, ASKED, 1.0, stop_s=2.7)
    found = render("call", [cut], 1.0, "test", "CC0")
    assert found.seconds == pytest.approx(2.7)
    assert [word.text for word in found.words[USER]] == ["order", "one", "two,", "no"]
    assert found.words[USER][-1].end_s == pytest.approx(2.7)
    assert [action.number for action in found.actions] == [1]
    assert np.abs(found.audio[USER, -1]) < 1e-3, "it fades out"
    assert power(found, USER, 2.5, 2.68) > 0.01
    assert Placed(USER, ASKED, 1.0).end_s == pytest.approx(3.5)


def test_what_the_agent_says_asks_for_nothing() -> None:
    assert render("call", [Placed(AGENT, ASKED, 0.0)], 1.0, "test", "CC0").actions == ()


@pytest.mark.parametrize(
    ("side", "start_s", "stop_s", "says"),
    [(2, 0.0, 1.0, "side 2"), (USER, -1.0, 1.0, "from -1.0"), (USER, 1.0, 1.0, "to 1.0 s")],
)
def test_a_turn_out_of_place_is_refused(
    side: int, start_s: float, stop_s: float, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Placed(side, ASKED, start_s, stop_s)


# The line


@pytest.fixture
def call() -> Dialogue:
    turns = [Placed(USER, ASKED, 0.5), Placed(AGENT, spoken("it has shipped", hz=1000), 4.0)]
    return render("call", turns, 6.0, "test", "CC0")


def test_the_agents_echo_comes_back_later_and_quieter(call: Dialogue) -> None:
    heard = over_line(call, Line(echo_db=-20), np.random.default_rng(0))
    echo = heard.audio[USER, 4 * SAMPLE_RATE_HZ :]
    ratio = 10 * math.log10(
        np.mean(echo**2) / np.mean(call.audio[AGENT, 4 * SAMPLE_RATE_HZ :] ** 2)
    )
    assert ratio == pytest.approx(-20, abs=0.7)
    first = np.flatnonzero(np.abs(echo) > 1e-3)[0] / SAMPLE_RATE_HZ
    assert 0.05 <= first <= 0.31
    assert np.array_equal(heard.audio[AGENT], call.audio[AGENT])
    assert (heard.words, heard.actions) == (call.words, call.actions)


@pytest.mark.parametrize("noise_db", [0, 10, 20])
def test_noise_is_as_loud_as_it_says(call: Dialogue, noise_db: float) -> None:
    heard = over_line(call, Line(noise_db=noise_db), np.random.default_rng(0))
    noise = heard.audio[USER] - call.audio[USER]
    speech = call.audio[USER][int(0.5 * SAMPLE_RATE_HZ) : int(3.0 * SAMPLE_RATE_HZ)]
    ratio = 10 * math.log10(np.mean(speech**2) / np.mean(noise**2))
    assert ratio == pytest.approx(noise_db, abs=0.5)
    silent = dataclasses.replace(call, words=((), ()), audio=np.zeros_like(call.audio))
    alone = over_line(silent, Line(noise_db=noise_db), np.random.default_rng(0))
    loudness_db = 10 * math.log10(np.mean(alone.audio[USER] ** 2))
    assert loudness_db == pytest.approx(-26 - noise_db, abs=0.3), "noise without speech"


def test_a_room_rings_and_a_telephone_is_narrow(call: Dialogue) -> None:
    ringing = over_line(call, Line(reverberation_s=0.4), np.random.default_rng(0))
    assert power(ringing, USER, 3.0, 3.2) > 1e-6
    whistle = np.sin(np.arange(call.audio.shape[1]) * 2 * np.pi * 6000 / SAMPLE_RATE_HZ)
    audio = np.stack([call.audio[AGENT], 0.3 * whistle.astype(np.float32)])
    narrow = over_line(
        dataclasses.replace(call, audio=audio), Line(is_telephone=True), np.random.default_rng(0)
    )
    assert power(narrow, USER, 1, 5) < 1e-4 * power(
        dataclasses.replace(call, audio=audio), USER, 1, 5
    )


def test_the_same_seed_gives_the_same_line(call: Dialogue) -> None:
    line = Line(reverberation_s=0.3, echo_db=-15, noise_db=10, is_telephone=True)
    one, two = (over_line(call, line, np.random.default_rng(7)).audio for _ in range(2))
    assert np.array_equal(one, two)
    assert np.array_equal(over_line(call, Line(), np.random.default_rng(7)).audio, call.audio)


def test_a_line_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reverberation_s -1\.0"):
        Line(reverberation_s=-1.0)
    with pytest.raises(ValueError, match=r"echo_db 3\.0"):
        Line(echo_db=3.0)
