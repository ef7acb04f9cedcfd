"""Spoken turns on two channels: words and calls at their times, cut-offs, and what a line adds."""

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from data.dialogue import AGENT, USER, Dialogue, Spell
from data.line import Line, LineShares, over_line
from data.render import Background, Placed, render
from data.scripts.spoken_turn import SpokenTurn
from data.scripts.turn import Call, Piece, Turn
from data.voices import SAMPLE_RATE_HZ, Utterance, Word
from model.frame import AGENTS, AGENTS_BACKCHANNEL, NOBODY, USERS, USERS_BACKCHANNEL


def spoken(text: str, calls: tuple[Call, ...] = (), hz: float = 200.0) -> SpokenTurn:
    """A word every half second, each 0.4 s of a tone."""
    pieces = tuple(Piece(word) for word in text.split())
    samples = len(pieces) * SAMPLE_RATE_HZ // 2
    times = np.arange(samples) / SAMPLE_RATE_HZ
    audio = (0.3 * np.sin(2 * np.pi * hz * times) * (times % 0.5 < 0.4)).astype(np.float32)
    words = tuple(Word(piece.text, i / 2, i / 2 + 0.4) for i, piece in enumerate(pieces))
    utterance = Utterance(text, "tone", audio, (), words)
    return SpokenTurn(Turn(pieces, calls), utterance, tuple(range(len(pieces))))


ORDER = Call("call", 1, "order_status", {"order_id": "12"}, {"order_id": 2}, after=2)
OTHER = Call("revise", 2, "order_status", {"order_id": "13"}, {"order_id": 4}, after=4, revises=1)
ASKED = spoken("order one two, no three", (ORDER, OTHER))
REPLY = spoken("it has shipped", hz=1000)


def power(audio: NDArray[np.float32], side: int, start_s: float, end_s: float) -> float:
    part = audio[side, int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]
    return float(np.mean(part**2))


def test_turns_lie_at_their_times_on_their_channels() -> None:
    turns = [Placed(AGENT, REPLY, 4.0), Placed(USER, ASKED, 1.0)]
    audio = render(turns, [Background(6.0, np.full(2400, 0.1, np.float32))], 8.0)
    assert audio.shape == (2, 8 * SAMPLE_RATE_HZ)
    assert power(audio, USER, 1.0, 1.4) == pytest.approx(0.045, rel=0.02)
    assert power(audio, USER, 6.0, 6.1) == pytest.approx(0.01, rel=0.02)
    quiet = ((USER, 0, 1), (USER, 3.5, 6), (USER, 6.1, 8), (AGENT, 0, 4), (AGENT, 5.5, 8))
    for side, start_s, end_s in quiet:
        assert power(audio, side, start_s, end_s) == 0
    assert render(turns, [], 1.0).shape[1] == 5.5 * SAMPLE_RATE_HZ, "nothing is cut off"


def test_words_and_calls_move_with_their_turn() -> None:
    placed = Placed(USER, ASKED, 1.0, style="calm")
    assert placed.words()[0] == Word("order", 1.0, 1.4)
    assert [word.text for word in placed.words()] == ["order", "one", "two,", "no", "three"]
    assert placed.spell == Spell(USER, 1.0, 3.4, "calm", "turn")
    first, revision = placed.actions()
    assert (first.time_s, first.kind, first.number) == (pytest.approx(2.4), "call", 1)
    assert (revision.time_s, revision.kind, revision.revises) == (pytest.approx(3.4), "revise", 1)
    assert first.known_s == {"order_id": pytest.approx(2.4)}
    assert (first.arguments, revision.arguments) == (ORDER.arguments, OTHER.arguments)


def test_a_turn_that_is_cut_off_loses_its_later_words_and_calls() -> None:
    cut = Placed(USER, ASKED, 1.0, stop_s=2.7)
    audio = render([cut], [], 1.0)
    assert audio.shape[1] / SAMPLE_RATE_HZ == pytest.approx(2.7)
    assert [word.text for word in cut.words()] == ["order", "one", "two,", "no"]
    assert cut.words()[-1].end_s == pytest.approx(2.7)
    assert cut.spell.end_s == pytest.approx(2.7)
    assert [action.number for action in cut.actions()] == [1]
    assert np.abs(audio[USER, -1]) < 1e-3, "it fades out"
    assert power(audio, USER, 2.5, 2.68) > 0.01


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
    asked, reply = Placed(USER, ASKED, 0.5), Placed(AGENT, REPLY, 4.0)
    words = (tuple(reply.words()), tuple(asked.words()))
    audio = render([asked, reply], [], 6.0)
    return Dialogue("call", audio, words, "test", "CC0", tuple(asked.actions()))


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
    assert power(ringing.audio, USER, 3.0, 3.2) > 1e-6
    whistle = np.sin(np.arange(call.audio.shape[1]) * 2 * np.pi * 6000 / SAMPLE_RATE_HZ)
    audio = np.stack([call.audio[AGENT], 0.3 * whistle.astype(np.float32)])
    narrow = over_line(
        dataclasses.replace(call, audio=audio), Line(is_telephone=True), np.random.default_rng(0)
    )
    assert power(narrow.audio, USER, 1, 5) < 1e-4 * power(audio, USER, 1, 5)


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


def test_lines_are_as_frequent_as_they_should_be() -> None:
    shares = LineShares(0.3, 0.2, 0.5, {20: 0.3, 0: 0.1})
    rng = np.random.default_rng(0)
    lines = [shares.draw(rng) for _ in range(3000)]
    for found, share in (
        ([line.is_telephone for line in lines], 0.3),
        ([line.reverberation_s > 0 for line in lines], 0.2),
        ([line.echo_db is not None for line in lines], 0.5),
        ([line.noise_db == 20 for line in lines], 0.3),
        ([line.noise_db == 0 for line in lines], 0.1),
        ([line.noise_db is None for line in lines], 0.6),
    ):
        assert np.mean(found) == pytest.approx(share, abs=0.03)
    with pytest.raises(ValueError, match=r"telephone 1\.5: must be a share"):
        LineShares(telephone=1.5)
    with pytest.raises(ValueError, match=r"noise_db .*: shares must add up to 1"):
        LineShares(noise_db={20: 0.8, 10: 0.4})


# The floor


def floor_of(*spells: Spell) -> list[int]:
    audio = np.zeros((2, 24_000), np.float32)
    dialogue = Dialogue("floor", audio, ((), ()), "test", "CC0", spells=spells)
    return [int(holder) for holder in dialogue.floor()]


def test_the_floor_goes_to_who_begins_later_and_stays_through_asides() -> None:
    turns = (Spell(AGENT, 0.08, 0.40), Spell(USER, 0.32, 0.64))
    assert floor_of(*turns) == [NOBODY] + [AGENTS] * 3 + [USERS] * 4 + [NOBODY] * 5
    whole = Spell(AGENT, 0.0, 1.0)
    aside = Spell(USER, 0.32, 0.48, manner="backchannel")
    assert floor_of(whole, aside) == [AGENTS] * 4 + [USERS_BACKCHANNEL] * 2 + [AGENTS] * 7
    for manner in ("side_talk", "background"):
        assert floor_of(whole, aside._replace(manner=manner)) == [AGENTS] * 13
    listening = Spell(AGENT, 0.32, 0.40, manner="backchannel")
    assert floor_of(Spell(USER, 0.0, 1.0), listening)[4] == AGENTS_BACKCHANNEL


def test_turns_of_recordings_are_found_in_their_words() -> None:
    agent = (Word("hello", 0.0, 0.3), Word("there", 0.4, 0.8), Word("so", 1.7, 2.9))
    user = (Word("hi", 0.9, 1.2), Word("yes", 2.0, 2.2))
    audio = np.zeros((2, 3 * SAMPLE_RATE_HZ), np.float32)
    dialogue = Dialogue("recorded", audio, (agent, user), "test", "CC0")
    assert dialogue.spells == (
        Spell(AGENT, 0.0, 0.8),
        Spell(AGENT, 1.7, 2.9),
        Spell(USER, 0.9, 1.2),
        Spell(USER, 2.0, 2.2, manner="backchannel"),
    )
