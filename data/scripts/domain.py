"""A domain: its tools, the values that people name, and how they ask. One YAML file each."""

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from data.scripts import spoken
from data.scripts.grammar import Phrasing, phrasings, skeleton
from data.sentences import Split, split_of

_FOLDER = Path(__file__).parents[1] / "domains"
_TEST_PHRASINGS = 0.2  # share of them
OCCASIONS = ("greeting", "wait", "thanks", "goodbye", "confirmed")
Effect = Literal["read", "write", "irreversible"]


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


@dataclass(frozen=True)
class Tool:
    """A tool as it is declared, and the slot that each of its arguments is drawn from."""

    name: str
    description: str
    effect: Effect
    parameters: Mapping[str, Any]  # JSON Schema
    slots: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """What a tool's results may hold (field -> values) and how the agent says them.

    `confirm` is what the agent asks before the call may run; empty where it may run at once.
    Phrasings name arguments and result fields.
    """

    results: Mapping[str, Sequence[str]]
    say: tuple[Phrasing, ...]
    confirm: tuple[Phrasing, ...] = ()


@dataclass(frozen=True)
class Domain:
    """Everything that scripts of one domain are made of."""

    name: str
    slots: Mapping[str, Slot]
    tools: Mapping[str, Tool]
    requests: Mapping[str, tuple[Phrasing, ...]]  # by tool
    talk: Mapping[str, tuple[Phrasing, ...]]  # what belongs to no tool, by occasion
    replies: Mapping[str, Reply]  # by tool
    unsaid: frozenset[str] = frozenset()  # pairs of words of which only the second is said

    def __post_init__(self) -> None:
        for tool in self.tools.values():
            if unknown := {*tool.slots.values()} - {*self.slots}:
                raise ValueError(f"{self.name}: tool {tool.name} has unknown slots {unknown}")
        if unknown := {*self.requests} ^ {*self.tools}:
            raise ValueError(f"{self.name}: tools and requests differ in {sorted(unknown)}")
        if unknown := {*self.replies} ^ {*self.tools}:
            raise ValueError(f"{self.name}: tools and replies differ in {sorted(unknown)}")
        if missing := {*OCCASIONS} - {*self.talk}:
            raise ValueError(f"{self.name}: talk lacks {sorted(missing)}")
        if any(
            part.slot for found in self.talk.values() for phrasing in found for part in phrasing
        ):
            raise ValueError(f"{self.name}: talk must name no slots")
        for name, found in self.requests.items():
            self._check_phrasings(self.tools[name], found)
            self._check_reply(self.tools[name], self.replies[name])

    def _check_phrasings(self, tool: Tool, found: tuple[Phrasing, ...]) -> None:
        if {phrasing_split(phrasing) for phrasing in found} != {"train", "test"}:
            raise ValueError(f"{self.name}: {tool.name} has too few phrasings to split them")
        for phrasing in found:
            named = {part.slot: part.value for part in phrasing if part.slot}
            for slot, value in named.items():
                if slot not in tool.slots.values():
                    raise ValueError(f"{self.name}: {tool.name} has no slot {slot!r}: {phrasing}")
                if value and value not in (self.slots[slot].values or ()):
                    raise ValueError(f"{self.name}: slot {slot} has no value {value!r}: {phrasing}")
            missing = [
                argument
                for argument in tool.parameters["required"]
                if tool.slots[argument] not in named
            ]
            if missing:
                raise ValueError(f"{self.name}: {tool.name} lacks {missing} in {phrasing}")

    def _check_reply(self, tool: Tool, reply: Reply) -> None:
        known = {*tool.parameters["required"], *reply.results}
        for phrasing in (*reply.say, *reply.confirm):
            if unknown := {part.slot for part in phrasing if part.slot} - known:
                raise ValueError(
                    f"{self.name}: a reply of {tool.name} names {sorted(unknown)}, must be of "
                    f"{sorted(known)}"
                )


def phrasing_split(phrasing: Phrasing) -> Split:
    """The split that may use a phrasing, whatever the values in it."""
    return split_of(skeleton(phrasing), _TEST_PHRASINGS)


@functools.cache
def load_domain(name: str) -> Domain:
    """Reads `data/domains/NAME.yaml`; raises ValueError naming what is wrong in it."""
    known = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"domain {name!r}: must be one of {known}")
    read = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text())
    if missing := {"name", "slots", "tools", "requests", "talk", "replies"} - {*read}:
        raise ValueError(f"data/domains/{name}.yaml lacks {sorted(missing)}")
    slots = {slot: Slot(slot, **given) for slot, given in read["slots"].items()}
    tools = {tool.name: tool for tool in map(_tool, read["tools"])}
    requests = {tool: _phrasings(templates) for tool, templates in read["requests"].items()}
    talk = {occasion: _phrasings(templates) for occasion, templates in read["talk"].items()}
    replies = {
        tool: Reply(
            given["results"], _phrasings(given["say"]), _phrasings(given.get("confirm", ()))
        )
        for tool, given in read["replies"].items()
    }
    unsaid = frozenset(read.get("unsaid", ()))
    return Domain(read["name"], slots, tools, requests, talk, replies, unsaid)


def _phrasings(templates: Sequence[str]) -> tuple[Phrasing, ...]:
    return tuple(phrasing for template in templates for phrasing in phrasings(template))


def _tool(given: Mapping[str, Any]) -> Tool:
    """Each property's `slot` is ours; what is left is its JSON Schema."""
    schema = dict(given["parameters"])
    slots = {name: field["slot"] for name, field in schema["properties"].items()}
    schema["properties"] = {
        name: {key: value for key, value in field.items() if key != "slot"}
        for name, field in schema["properties"].items()
    }
    return Tool(given["name"], given["description"], given["effect"], schema, slots)
