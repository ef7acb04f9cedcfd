"""Values that are named in what was said: digits, times, days, names, whatever a domain lists."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data.scripts.domain import HANDOFF, Domain
from data.scripts.slots import Slot
from train.scoring.text_normalizer import normalize

_OFFICE_FROM = 8  # of the clock: what is said of an earlier hour is of the afternoon
_LONG_DIGITS = 5  # of fewer it may be a time
_TIME_BEFORE = {"at", "past", "around", "say"}
_IN_THE: dict[tuple[str, ...], int] = {
    ("in", "the", "morning"): 0,
    ("in", "the", "afternoon"): 12,
    ("in", "the", "evening"): 12,
}
DIGITS, TIME = "digits", "time"

Words = Sequence[str]


def words_of(text: str) -> list[str]:
    """What a recogniser wrote, as `normalize` spells it. Groups of digits are taken apart first: of
    "0172" it would leave out the zero."""
    return normalize(re.sub(r"(?<=\d)[\s,.:-]*(?=\d)", " ", text)).split()


class Named(NamedTuple):
    """Words `start` to `end` name a value: `kind` says of what (`digits`, `time`, or the slots
    that list it), `by_slot` which value it is."""

    kind: str
    by_slot: Mapping[str, str]
    start: int
    end: int


class Values:
    """A domain's values and the words for them."""

    def __init__(self, domain: Domain) -> None:
        tools = [tool for tool in domain.tools.values() if tool.name != HANDOFF]
        slots = {slot: domain.slots[slot] for tool in tools for slot in tool.slots.values()}
        self.digits = {name: slot.digits for name, slot in slots.items() if slot.digits}
        self.times = [name for name, slot in slots.items() if slot.times]
        self.forms: dict[tuple[str, ...], dict[str, str]] = {}
        for name, slot in slots.items():
            for form, value in _forms(slot):
                self.forms.setdefault(form, {})[name] = value
        self.longest = max(map(len, self.forms))

    def find(self, words: Words) -> list[Named]:
        """What is named in words as `words_of` gives them, in order."""
        words, found = list(words), list[Named]()
        place = 0
        while place < len(words):
            named = self._listed(words, place) or self._number(words, place, found)
            if named:
                found.append(named)
            place = named.end if named else place + 1
        return found

    def _listed(self, words: Words, place: int) -> Named | None:
        for length in range(self.longest, 0, -1):
            form = tuple(words[place : place + length])
            if by_slot := self.forms.get(form):
                return Named("+".join(sorted(by_slot)), by_slot, place, place + len(form))
        return None

    def _number(self, words: Words, place: int, found: Sequence[Named]) -> Named | None:
        """Digits as they stand together, or a time of day."""
        if words[place] == "noon":
            return self._time("12:00", place, place + 1)
        if words[place : place + 2] == ["half", "past"]:
            end = _digits_end(words, place + 2)
            hour = "".join(words[place + 2 : end])
            return self._clock(words, place, end, f"{hour}30") if hour else None
        end = _digits_end(words, place)
        if end == place:
            return None
        digits = "".join(words[place:end])
        before = words[place - 1] if place else ""
        after_day = bool(found) and found[-1].end == place and found[-1].kind == "day"
        is_spoken_time = after_day or before in _TIME_BEFORE or words[end : end + 1] == ["oclock"]
        if digits == "1" and not is_spoken_time and words[end : end + 1] != ["in"]:
            return None  # "one message", "the other one"
        if len(digits) < _LONG_DIGITS:
            return self._clock(words, place, end, digits) or self._run(digits, place, end)
        return self._run(digits, place, end)

    def _run(self, digits: str, start: int, end: int) -> Named:
        return Named(DIGITS, dict.fromkeys(self.digits, digits), start, end)

    def _clock(self, words: Words, start: int, end: int, digits: str) -> Named | None:
        """A time out of its digits: 2, 10, 230, 1030, 1400."""
        match = re.fullmatch(r"(\d{1,2})(00|30)|(\d{1,2})", digits)
        if not match:
            return None
        hour, minutes = int(match[1] or match[3]), match[2] or "00"
        if words[end : end + 1] == ["oclock"]:
            end += 1
        more = _IN_THE.get(tuple(words[end : end + 3]))
        if more is not None:
            end += 3
        elif words[end : end + 1] and words[end] in ("am", "pm"):
            more = 12 * (words[end] == "pm")
            end += 1
        elif hour < _OFFICE_FROM:
            more = 12
        if hour > 23 or (hour > 12 and more):
            return None
        hour = 12 if hour == 12 else hour + (more or 0)
        return self._time(f"{hour:02}:{minutes}", start, end)

    def _time(self, value: str, start: int, end: int) -> Named:
        return Named(TIME, dict.fromkeys(self.times, value), start, end)


def _forms(slot: Slot) -> list[tuple[tuple[str, ...], str]]:
    """Each way to say each listed value, as words."""
    listed = slot.values or {}
    forms = [(form, value) for value, said in listed.items() for form in {*said, value}]
    return [(tuple(words_of(form)), value) for form, value in forms]


def _digits_end(words: Words, place: int) -> int:
    while place < len(words) and words[place].isdigit() and len(words[place]) == 1:
        place += 1
    return place
