"""A domain: its tools, the values that people name, and how they ask. One YAML file each."""

import functools
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from data.scripts.grammar import Phrasing, phrasings, skeleton
from data.scripts.slots import Slot, read_slot
from data.sentences import Split, split_of

_FOLDER = Path(__file__).parents[1] / "domains"
_TALK = Path(__file__).with_name("talk.yaml")
_TEST_PHRASINGS = 0.2  # share of them
_USUAL_PHRASINGS = 12  # of a template
_CONVENTIONAL_WORDS = 4  # of fewer words ("yes", "thank you") nobody has a phrasing of his own
HANDOFF = "handoff"  # the tool that gives the call to a human: an action of its own kind
_KEYS = (
    "name", "slots", "role", "tools", "requests", "partials", "mentions", "ask", "answer", "talk",
    "replies",
)  # fmt: skip
Effect = Literal["read", "write", "irreversible"]
Phrasings = tuple[Phrasing, ...]


@dataclass(frozen=True)
class Tool:
    """A tool as it is declared, and the slot that each of its arguments is drawn from."""

    name: str
    description: str
    effect: Effect
    parameters: Mapping[str, Any]  # JSON Schema
    slots: Mapping[str, str]

    @property
    def required(self) -> list[str]:
        """The arguments without which it cannot be called."""
        return self.parameters["required"]


@dataclass(frozen=True)
class Reply:
    """What a tool's results hold (field -> slot) and how the agent says them.

    A field's slot may depend on an argument (`answer_{topic}`). `confirm` is what the agent asks
    before the call may run; empty where it may run at once. Phrasings name arguments and fields.
    """

    results: Mapping[str, str]
    say: Phrasings
    confirm: Phrasings = ()


@dataclass(frozen=True, eq=False)  # each is itself alone, so that it can be a key
class Domain:
    """Everything that scripts of one domain are made of.

    `requests`, `partials` (which leave a required argument out), `mentions` (which ask for nothing)
    and `replies` are by tool, `ask` and `answer` by argument, `talk` by occasion. `voiced` says
    which arguments a style of voice alone gives: style -> tool -> argument -> value. Of the pairs
    of words in `unsaid` only the second is said.
    """

    name: str
    slots: Mapping[str, Slot]
    role: Phrasings
    tools: Mapping[str, Tool]
    requests: Mapping[str, Phrasings]
    partials: Mapping[str, Phrasings]
    mentions: Mapping[str, Phrasings]
    ask: Mapping[str, Phrasings]
    answer: Mapping[str, Phrasings]
    talk: Mapping[str, Phrasings]
    replies: Mapping[str, Reply]
    voiced: Mapping[str, Mapping[str, Mapping[str, str]]]
    unsaid: frozenset[str]

    def __post_init__(self) -> None:
        for tool in self.tools.values():
            if unknown := {*tool.slots.values()} - {*self.slots}:
                raise ValueError(f"{self.name}: tool {tool.name} has unknown slots {unknown}")
        if unknown := {*self.requests} ^ {*self.tools}:
            raise ValueError(f"{self.name}: tools and requests differ in {sorted(unknown)}")
        if unknown := {*self.replies} ^ ({*self.tools} - {HANDOFF}):
            raise ValueError(f"{self.name}: tools and replies differ in {sorted(unknown)}")
        for kind in ("requests", "partials", "mentions"):
            for name, found in getattr(self, kind).items():
                self._check_asking(kind, name, found)
        for name, reply in self.replies.items():
            self._check_reply(self.tools[name], reply)
        self._check_asked()
        self._check_talk()

    def _check_asking(self, kind: str, name: str, found: Phrasings) -> None:
        """Phrasings that name a tool's slots; `kind` is the field that they stand in."""
        if name not in self.tools:
            raise ValueError(f"{self.name}: {kind} of {name}, which is no tool")
        tool = self.tools[name]
        if {phrasing_split(phrasing) for phrasing in found} != {"train", "test"}:
            raise ValueError(f"{self.name}: {kind} of {name} are too few phrasings to split them")
        for phrasing in found:
            named = {part.slot: part.value for part in phrasing if part.slot}
            for slot, value in named.items():
                if slot not in tool.slots.values():
                    raise ValueError(f"{self.name}: {name} has no slot {slot!r}: {phrasing}")
                if value and value not in (self.slots[slot].values or ()):
                    raise ValueError(f"{self.name}: slot {slot} has no value {value!r}: {phrasing}")
            missing = [argument for argument in tool.required if tool.slots[argument] not in named]
            if kind == "requests" and missing:
                raise ValueError(f"{self.name}: {name} lacks {missing} in {phrasing}")
            if kind == "partials" and not missing:
                raise ValueError(f"{self.name}: a partial of {name} lacks nothing: {phrasing}")

    def _check_reply(self, tool: Tool, reply: Reply) -> None:
        known = {*tool.required, *reply.results}
        for phrasing in (*reply.say, *reply.confirm):
            if unknown := {part.slot for part in phrasing if part.slot} - known:
                raise ValueError(
                    f"{self.name}: a reply of {tool.name} names {sorted(unknown)}, must be of "
                    f"{sorted(known)}"
                )
        for field, slot in reply.results.items():
            for name in self._slots_named(tool, slot):
                if name not in self.slots:
                    raise ValueError(
                        f"{self.name}: result {field} of {tool.name} has no slot {name!r}"
                    )

    def _slots_named(self, tool: Tool, slot: str) -> list[str]:
        """The slots that a result's field may be drawn from, whatever the argument in its name."""
        names = [name for _, name, _, _ in string.Formatter().parse(slot) if name]
        if not names:
            return [slot]
        values = self.slots[tool.slots[names[0]]].values or {}
        return [slot.format(**{names[0]: value}) for value in values]

    def _check_asked(self) -> None:
        """Whatever a partial request leaves out can be asked for."""
        needed = {argument for name in self.partials for argument in self.tools[name].required}
        for field in ("ask", "answer"):
            if missing := needed - {*getattr(self, field)}:
                raise ValueError(f"{self.name}: {field} lacks {sorted(missing)}")

    def _check_talk(self) -> None:
        role = self.role_slots
        for occasion, found in self.talk.items():
            named = {part.slot for phrasing in found for part in phrasing if part.slot}
            if unknown := named - role:
                raise ValueError(
                    f"{self.name}: talk {occasion} names {sorted(unknown)}: must be of the role's "
                    f"{sorted(role)}"
                )

    @property
    def role_slots(self) -> set[str]:
        """What the role prompts name."""
        return {part.slot for phrasing in self.role for part in phrasing if part.slot}


@functools.cache  # asked of every phrasing, for every script
def phrasing_split(phrasing: Phrasing) -> Split:
    """The split that may use a phrasing, whatever the values in it."""
    return split_of(skeleton(phrasing), _TEST_PHRASINGS)


def of_split(found: Phrasings, split: Split) -> list[Phrasing]:
    """What a caller of a split may say: its phrasings and the conventional ones."""
    return [
        phrasing
        for phrasing in found
        if len(phrasing) < _CONVENTIONAL_WORDS or phrasing_split(phrasing) == split
    ]


@functools.cache
def load_domain(name: str) -> Domain:
    """Reads `data/domains/NAME.yaml`, and the files of the folder `added/NAME` where there is one;
    raises ValueError naming what is wrong in them."""
    known = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"domain {name!r}: must be one of {known}")
    read = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text())
    if missing := {*_KEYS} - {*read}:
        raise ValueError(f"data/domains/{name}.yaml lacks {sorted(missing)}")
    added = _added(_FOLDER / "added" / name)
    read["talk"] = yaml.safe_load(_TALK.read_text()) | read["talk"]
    said = {
        kind: with_added(_by_key(read[kind]), added.get(kind, {}))
        for kind in ("requests", "partials", "mentions", "talk")
    }
    return Domain(
        name=read["name"],
        slots={slot: read_slot(slot, given) for slot, given in read["slots"].items()},
        role=_phrasings(read["role"]),
        tools={tool.name: tool for tool in map(_tool, read["tools"])},
        **said,
        ask=_by_key(read["ask"]),
        answer=_by_key(read["answer"]),
        replies={
            tool: Reply(
                given["results"], _phrasings(given["say"]), _phrasings(given.get("confirm", ()))
            )
            for tool, given in read["replies"].items()
        },
        voiced=read.get("voiced", {}),
        unsaid=frozenset(read.get("unsaid", ())),
    )


def _added(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Kind -> tool or occasion -> templates, of all files of a folder."""
    added: dict[str, dict[str, list[str]]] = {}
    for path in sorted(folder.glob("*.yaml")):
        for kind, found in yaml.safe_load(path.read_text()).items():
            for key, templates in found.items():
                added.setdefault(kind, {}).setdefault(key, []).extend(templates)
    return added


def with_added(
    found: Mapping[str, Phrasings], added: Mapping[str, Sequence[str]]
) -> dict[str, Phrasings]:
    """With more templates, as far as no test may use them: what tests are made of stays.

    Each is drawn as often as if it had `_USUAL_PHRASINGS`: one that allows no other words would
    else hardly be heard among those that allow many.
    """
    if unknown := {*added} - {*found}:
        raise ValueError(f"added phrasings of {sorted(unknown)}: must be of {sorted(found)}")
    more = dict(found)
    for name, templates in added.items():
        tests = {_spoken(phrasing) for phrasing in of_split(found[name], "test")}
        for template in templates:
            given = tuple(phrasings(template))
            tested = {*of_split(given, "test")}
            new = tuple(p for p in given if p not in tested and _spoken(p) not in tests)
            more[name] += new * (_USUAL_PHRASINGS // max(1, len(new)) or 1)
    return more


def _spoken(phrasing: Phrasing) -> str:
    """What is heard of it, whatever its punctuation."""
    return " ".join(re.findall(r"[\w'{}]+", skeleton(phrasing)))


def _by_key(given: Mapping[str, Sequence[str]]) -> dict[str, Phrasings]:
    return {key: _phrasings(templates) for key, templates in given.items()}


def _phrasings(templates: Sequence[str]) -> Phrasings:
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
