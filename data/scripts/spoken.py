"""How people say digits and times of day."""

import random
import re
from collections.abc import Sequence

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_REPEATED = {2: "double", 3: "triple"}


def number(value: int) -> str:
    """0..99 in words; raises ValueError on others."""
    if not 0 <= value <= 99:
        raise ValueError(f"number {value}: must be in 0..99")
    if value < 20:
        return _ONES[value]
    return " ".join([_TENS[value // 10 - 2], *([_ONES[value % 10]] if value % 10 else [])])


def digits(value: str, rng: random.Random, ways: Sequence[float] = (3, 1, 1)) -> str:
    """A string of digits singly, in pairs, or some repeated ones as "double" (`ways` are these
    three's weights), zeros also as "oh", maybe in two groups (a comma between them)."""
    if not value.isdecimal():
        raise ValueError(f"digits {value!r}: must be digits only")
    zero = rng.choice(("zero", "oh"))
    way = rng.choices(("singly", "pairs", "repeats"), ways)[0]
    if way == "pairs":
        groups = _pairs(value, zero)
    elif way == "repeats":
        groups = [_repeat(run[0], zero) for run in re.finditer(r"(\d)\1{0,2}", value)]
    else:
        groups = [_digit(digit, zero) for digit in value]
    if len(groups) > 3 and rng.random() < 0.3:
        cut = rng.randrange(2, len(groups) - 1)
        groups[cut - 1] += ","
    return " ".join(groups)


def _digit(digit: str, zero: str) -> str:
    return zero if digit == "0" else _ONES[int(digit)]


def _repeat(run: str, zero: str) -> str:
    name = _digit(run[0], zero)
    return name if len(run) == 1 else f"{_REPEATED[len(run)]} {name}"


def _pairs(value: str, zero: str) -> list[str]:
    """Two by two, an odd one out first ("one sixty four ninety two"); 0x is said digit by digit."""
    first = len(value) % 2
    groups = [_digit(value[0], zero)] if first else []
    for start in range(first, len(value), 2):
        pair = value[start : start + 2]
        if pair[0] == "0":
            groups += [_digit(digit, zero) for digit in pair]
        else:
            groups.append(number(int(pair)))
    return groups


def clock(value: str, rng: random.Random) -> str:
    """`HH:MM` on the hour or half hour, as somebody at an office says it."""
    match = re.fullmatch(r"([01]\d|2[0-3]):(00|30)", value)
    if match is None:
        raise ValueError(f"time {value!r}: must be HH:00 or HH:30")
    hour, half = int(match[1]), match[2] == "30"
    name = number(hour % 12 or 12)
    if hour == 12 and not half:
        return rng.choice(("noon", "twelve", "twelve o'clock"))
    forms = [f"half past {name}", f"{name} thirty"] if half else [name, f"{name} o'clock"]
    spoken = rng.choice(forms)
    if spoken.endswith("o'clock") or rng.random() < 0.7:
        return spoken
    if hour < 12:
        return f"{spoken} in the morning"
    return f"{spoken} in the afternoon"
