"""Slots: what may be named in a domain, and how it is spoken."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.scripts import spoken


@dataclass(frozen=True)
class Slot:
    """What may be named: listed `values` (each with its spoken forms), `digits` (that many), or
    `times` (from the first to the last half hour, `HH:MM`)."""

    name: str
    values: Mapping[str, Sequence[str]] | None = None
    digits: int = 0
    times: Sequence[str] | None = None

    def __post_init__(self) -> None:
        given = [kind for kind in ("values", "digits", "times") if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError(f"slot {self.name}: has {given}, must have values, digits or times")

    def draw(self, rng: random.Random) -> str:
        """Any value."""
        if self.values:
            return rng.choice(list(self.values))
        if self.times:
            first, last = (2 * int(time[:2]) + (time[3:] == "30") for time in self.times)
            half_hours = rng.randint(first, last)
            return f"{half_hours // 2:02}:{'30' if half_hours % 2 else '00'}"
        return "".join(rng.choice("0123456789") for _ in range(self.digits))

    def say(self, value: str, rng: random.Random) -> str:
        """The value in words; raises ValueError on one that the slot cannot have."""
        if self.values:
            if value not in self.values:
                raise ValueError(f"slot {self.name}: {value!r} must be one of {list(self.values)}")
            return rng.choice(list(self.values[value]))
        return spoken.clock(value, rng) if self.times else spoken.digits(value, rng)


def read_slot(name: str, given: Mapping[str, Any]) -> Slot:
    """A slot as a domain's YAML has it: a value without spoken forms is said as itself."""
    values = given.get("values")
    if values is None:
        return Slot(name, **given)
    if isinstance(values, list):
        values = dict.fromkeys(values)
    return Slot(name, {value: forms or [value] for value, forms in values.items()})
