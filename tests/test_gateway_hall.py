"""Who waits for a session, and who need not ask for one: with connections that only note what is
done with them."""

from typing import Any

import pytest

from serve.gateway.hall import Door, Hall
from serve.gateway.metrics import Metrics
from serve.gateway.refusal import Refusal

FULL = Refusal(503, "at_capacity", "all slots are taken", retry_after_s=5.0)


class Somebody(Door):
    """`answer` is what was written, `went_on` the scope with which he did, if he has."""

    def __init__(self, is_told_inside: bool) -> None:
        self.is_told_inside, self.answer = is_told_inside, b""
        self.went_on: dict[str, Any] | None = None
        self.app_state: dict[str, Any] = {}
        self.transport: Any = self

    def enter(self) -> None:
        self.went_on = {"state": self.app_state}

    def write(self, data: bytes) -> None:
        self.answer += data

    def pause_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def come(hall: Hall, count: int, is_told_inside: bool = False) -> list[Somebody]:
    crowd = [Somebody(is_told_inside) for _ in range(count)]
    for one in crowd:
        hall.come(one)
    return crowd


def asks(hall: Hall, one: Somebody) -> bool:
    """Whether he asks the engine."""
    assert one.went_on
    try:
        with hall.asking(one.went_on):
            hall.check(one.went_on)
    except Refusal:
        return False
    return True


def test_of_a_crowd_a_few_ask_and_the_others_are_told_what_they_were() -> None:
    hall = Hall(Metrics())
    crowd = come(hall, 40)
    asking = [one for one in crowd if one.went_on]
    assert asking == crowd[:8]
    assert not any(one.answer for one in crowd)
    hall.fill(FULL)
    assert all(
        b"503" in one.answer and b"Retry-After: 5" in one.answer.title() for one in crowd[8:]
    )
    assert not any(one.answer for one in asking)


def test_who_comes_to_a_full_server_is_refused_and_one_asks_now_and_then() -> None:
    clock = Clock()
    hall = Hall(Metrics(), clock)
    hall.fill(FULL)
    for turn in (0.1, 60.0, 60.2, 61.0):
        clock.now_s = turn
        crowd = come(hall, 20)
        asking = [one for one in crowd if one.went_on]
        assert asking == (crowd[:1] if turn in (60.0, 61.0) else [])
        assert all(one.answer for one in crowd if not one.went_on)
        assert all(asks(hall, one) for one in asking)


@pytest.mark.parametrize("is_told_inside", [False, True])
def test_once_there_is_room_everybody_may_ask(is_told_inside: bool) -> None:
    hall = Hall(Metrics())
    hall.fill(FULL)
    told = come(hall, 3, is_told_inside)
    if is_told_inside:
        assert not any(asks(hall, one) for one in told)
    else:
        assert all(one.answer for one in told)
    hall.room()
    crowd = come(hall, 20, is_told_inside)
    assert sum(one.went_on is not None for one in crowd) == 8
    assert all(asks(hall, one) for one in crowd if one.went_on)
    assert all(one.went_on for one in crowd[:16])
    assert not any(one.answer for one in crowd)
