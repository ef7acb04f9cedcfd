"""Continuous speech as islands and turns."""

import random
from collections.abc import Iterable
from typing import Any

import pytest

from serve.dialects.islands import (
    Happening,
    IslandAudio,
    IslandClosed,
    IslandOpened,
    Islands,
    IslandText,
    TurnClosed,
    TurnOpened,
    TurnText,
    TurnTranscribed,
)
from serve.gateway.events import Heard


def frame(floor: Any, voiced: bool = False, agent: str = "", user: str = "") -> tuple[Any, ...]:
    return floor, voiced, agent, user


def play(frames: Iterable[tuple[Any, ...]], islands: Islands | None = None) -> list[Any]:
    """What happens in each frame: (its number, what happened)."""
    islands = islands or Islands()
    found: list[Any] = []
    for number, (floor, voiced, agent, user) in enumerate(frames):
        heard = Heard(number, f"{number}".encode(), voiced, agent, user, floor)
        found += [(number, happening) for happening in islands.heard(heard)]
    return found


def without_audio(found: list[Any]) -> list[Any]:
    return [(number, what) for number, what in found if not isinstance(what, IslandAudio)]


def audio_of(found: list[Any]) -> list[int]:
    return [int(what.audio) for _, what in found if isinstance(what, IslandAudio)]


SPEECH = frame("agent", voiced=True)
PAUSE = frame("agent")
NOBODY = frame("nobody")
CALLER = frame("user")


def test_an_island_opens_with_the_first_word_and_closes_after_480_ms_of_silence():
    found = play(
        [NOBODY, frame("agent", agent="Hello"), *[PAUSE] * 5, *[SPEECH] * 10, *[NOBODY] * 9]
    )
    assert without_audio(found) == [
        (1, IslandOpened(80)),
        (1, IslandText("Hello")),
        (22, IslandClosed(False)),
    ]
    assert audio_of(found) == list(range(7, 23))  # no silence before, the end of it behind


def test_pauses_belong_to_an_island():
    found = play([*[SPEECH] * 3, *[PAUSE] * 5, *[SPEECH] * 8, *[NOBODY] * 9])
    assert [what for _, what in without_audio(found)] == [IslandOpened(0), IslandClosed(False)]
    assert audio_of(found)[:16] == list(range(16))


def test_a_word_whose_sound_comes_late_keeps_its_island_open():
    found = play([frame("agent", agent="Yes"), *[PAUSE] * 8, *[SPEECH] * 4, *[NOBODY] * 9])
    assert [what for _, what in without_audio(found)] == [
        IslandOpened(0),
        IslandText("Yes"),
        IslandClosed(False),
    ]


def test_a_turn_is_backdated_and_its_transcript_comes_after_it():
    found = play(
        [NOBODY] * 2 + [CALLER, frame("user", user="where "), CALLER] + [NOBODY] * 3
        + [frame("nobody", user="is it")] + [NOBODY] * 9
    )  # fmt: skip
    assert found == [
        (3, TurnOpened(160)),
        (3, TurnText("where ")),
        (7, TurnClosed(400)),
        (8, TurnText("is it")),
        (14, TurnTranscribed("where is it")),
    ]


def test_a_single_frame_is_no_turn():
    assert play([NOBODY, CALLER, *[NOBODY] * 9]) == []


def test_a_barge_in_takes_three_frames_and_cuts_the_island():
    talking = frame("user", voiced=True, user="no ")
    frames = [*[SPEECH] * 8, *[talking] * 5, *[CALLER] * 6, *[NOBODY] * 9]
    found = play(frames)
    assert without_audio(found)[:6] == [
        (0, IslandOpened(0)),
        (10, TurnOpened(640)),
        (10, IslandClosed(True)),
        *[(10, TurnText("no "))] * 3,
    ]
    assert audio_of(found) == list(range(10))  # what was still voiced is left out
    assert found[-1] == (24, TurnTranscribed("no no no no no "))


def test_two_frames_of_the_callers_do_not_interrupt():
    cough = [CALLER, CALLER]
    found = play([*[SPEECH] * 5, *cough, *[SPEECH] * 5, *cough, *[SPEECH] * 5])
    assert without_audio(found) == [(0, IslandOpened(0))]


def test_a_backchannel_of_either_opens_nothing():
    callers = frame("user_backchannel", voiced=True, user="mm-hm")
    found = play([*[SPEECH] * 5, *[callers] * 6, *[SPEECH] * 3, *[NOBODY] * 9])
    assert [what for _, what in without_audio(found)] == [IslandOpened(0), IslandClosed(False)]
    agents = frame("agent_backchannel", voiced=True)
    early = frame("user", agent="mm-hm")
    found = play([*[CALLER] * 5, early, CALLER, *[agents] * 4, *[CALLER] * 5, *[NOBODY] * 20])
    assert without_audio(found) == [
        (1, TurnOpened(0)),
        (18, TurnClosed(1280)),
        (21, TurnTranscribed("")),
    ]


def test_an_island_waits_for_320_ms_after_a_turn_and_loses_nothing():
    answer = [frame("agent", True, "So"), frame("agent", True, " soon"), *[SPEECH] * 10]
    found = play([CALLER, CALLER, *answer, *[NOBODY] * 9])
    assert without_audio(found)[:5] == [
        (1, TurnOpened(0)),
        (2, TurnClosed(160)),
        (5, IslandOpened(160)),
        (5, IslandText("So")),
        (5, IslandText(" soon")),
    ]
    assert audio_of(found)[:12] == list(range(2, 14))


def test_an_island_waits_until_the_caller_leaves_the_floor_but_not_for_ever():
    early = frame("user", agent="Well")
    found = play([*[CALLER] * 8, early, *[CALLER] * 3, *[PAUSE] * 3])
    assert found[1:] == [(12, TurnClosed(960)), (12, IslandOpened(640)), (12, IslandText("Well"))]
    stubborn = play([*[CALLER] * 8, early, *[CALLER] * 20])
    assert (15, IslandOpened(640)) in stubborn


def test_the_rest_of_a_cancelled_island_is_left_out():
    islands = Islands()
    for number in range(4):
        list(islands.heard(Heard(number, b"", True, "", "", "agent")))
    islands.cancel()
    assert islands.is_dropping
    rest = [*[SPEECH] * 4, *[PAUSE] * 5, *[SPEECH] * 4, *[NOBODY] * 6, *[SPEECH] * 2]
    heard = [Heard(4 + n, b"", v, a, u, f) for n, (f, v, a, u) in enumerate(rest)]
    found = [(each.number, what) for each in heard for what in islands.heard(each)]
    assert without_audio(found) == [(23, IslandOpened(23 * 80))]


def check_order(happenings: list[Happening]) -> None:
    """An island and a turn are never open together, and nothing comes of what is not open."""
    island, turn, untranscribed = False, False, False
    for index, what in enumerate(happenings):
        match what:
            case IslandOpened():
                assert not island
                assert not turn
                island = True
            case IslandText() | IslandAudio():
                assert island
            case IslandClosed(was_interrupted):
                assert island
                assert not was_interrupted or turn
                island = False
            case TurnOpened():
                assert not turn
                assert not untranscribed
                assert not island or happenings[index + 1] == IslandClosed(True)
                turn = untranscribed = True
            case TurnText():
                assert untranscribed
            case TurnClosed():
                assert turn
                turn = False
            case TurnTranscribed():
                assert untranscribed
                assert not turn
                untranscribed = False


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_model_does_the_order_holds(seed: int):
    random_ = random.Random(seed)
    floors = ["nobody", "agent", "user", "user_backchannel", "agent_backchannel"]
    frames: list[tuple[Any, ...]] = []
    for _ in range(150):
        floor, voiced = random_.choice(floors), random_.random() < 0.5
        for _ in range(random_.randint(1, 9)):
            is_said, is_heard = random_.random() < 0.3, random_.random() < 0.3
            frames.append(frame(floor, voiced, "a" * is_said, "u" * is_heard))
    found = play(frames)
    check_order([what for _, what in found])
    assert {type(what) for _, what in found} == {
        IslandOpened, IslandText, IslandAudio, IslandClosed,
        TurnOpened, TurnText, TurnClosed, TurnTranscribed,
    }  # fmt: skip
