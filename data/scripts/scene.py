"""Scenes: what may happen in a call. `scenes.yaml` has them and says how they are written."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.scripts.domain import HANDOFF, Domain, Tool, of_split
from data.scripts.grammar import Phrasing

_SCENES = Path(__file__).with_name("scenes.yaml")
_ACTS = ("user", "agent", "complete", "run", "handoff", "silence", "hear")
_CHANGES = ("filler", "restart", "pause", "correction")
_OVER = (None, True, "soft")
_USERS_OWN = {"request", "again", "partial", "mention", "correction"}
_AGENTS_OWN = {"reply", "confirm", "error"}
# Occasions that a scene needs without naming them.
_ALWAYS = {"user": ("thanks", "yes", "overheard"), "agent": ("greeting", "goodbye", "wait")}

SELECTORS: Mapping[str, Callable[[Domain, Tool], bool]] = {
    "any": lambda domain, tool: tool.name != HANDOFF,
    "undeclared": lambda domain, tool: tool.name != HANDOFF,
    "read": lambda domain, tool: tool.effect == "read",
    "write": lambda domain, tool: tool.effect != "read" and tool.name != HANDOFF,
    "irreversible": lambda domain, tool: tool.effect == "irreversible",
    "confirmed": lambda domain, tool: tool.name != HANDOFF and bool(_confirm(domain, tool)),
    "unconfirmed": lambda domain, tool: tool.name != HANDOFF and not _confirm(domain, tool),
    "partial": lambda domain, tool: tool.name in domain.partials,
    "drawn": lambda domain, tool: any(map(names_value, domain.requests[tool.name])),
    "number": lambda domain, tool: (
        len(tool.required) == 1 and domain.slots[tool.slots[tool.required[0]]].digits > 0
    ),
    "voiced": lambda domain, tool: any(tool.name in given for given in domain.voiced.values()),
    "handoff": lambda domain, tool: tool.name == HANDOFF,
}


def _confirm(domain: Domain, tool: Tool) -> Sequence[Any]:
    return domain.replies[tool.name].confirm


def names_value(phrasing: Phrasing) -> bool:
    """Whether a value is put into it that could be another one."""
    return any(part.slot and not part.text for part in phrasing)


@dataclass(frozen=True)
class Step:
    """One step of a scene: `act` is its kind, `parts` what is said, or what the act is about."""

    act: str
    parts: tuple[str, ...]
    change: str = ""
    over: bool | str | None = None

    def __post_init__(self) -> None:
        if self.act not in _ACTS:
            raise ValueError(f"step {self.act!r}: must be one of {_ACTS}")
        if self.change and self.change not in _CHANGES:
            raise ValueError(f"with {self.change!r}: must be one of {_CHANGES}")
        if self.over not in _OVER:
            raise ValueError(f"over {self.over!r}: must be true or soft")


@dataclass(frozen=True)
class Scene:
    """A scene as `scenes.yaml` has it."""

    name: str
    share: float
    steps: tuple[Step, ...]
    tools: str = "any"
    style: str = ""
    ends: bool = False

    def __post_init__(self) -> None:
        if unknown := {*self.tools.split()} - {*SELECTORS}:
            raise ValueError(f"scene {self.name}: tools {unknown}: must be of {[*SELECTORS]}")

    @functools.cache  # noqa: B019 (there are few of both, and every script asks)
    def fitting(self, domain: Domain) -> list[str]:
        """The tools of a domain that it can be about; none where the domain knows no hand-off."""
        if HANDOFF not in domain.tools and any(step.act == HANDOFF for step in self.steps):
            return []
        wanted = [SELECTORS[name] for name in self.tools.split()]
        tools = domain.tools.values()
        return [tool.name for tool in tools if all(fits(domain, tool) for fits in wanted)]


@functools.cache
def load_scenes() -> Mapping[str, Scene]:
    """Every scene, by name; raises ValueError naming what is wrong in `scenes.yaml`."""
    return {
        name: Scene(name, **given | {"steps": tuple(_step(name, step) for step in given["steps"])})
        for name, given in yaml.safe_load(_SCENES.read_text()).items()
    }


def _step(scene: str, given: Mapping[str, Any]) -> Step:
    rest = {key: value for key, value in given.items() if key not in ("with", "over")}
    if len(rest) != 1:
        raise ValueError(f"scene {scene}: step {given} must do one thing")
    ((act, parts),) = rest.items()
    listed = parts if isinstance(parts, list) else [str(parts)]
    return Step(act, tuple(listed), given.get("with", ""), given.get("over"))


@functools.cache  # asked for every script
def check_talk(domain: Domain) -> None:
    """Raises ValueError where a domain has nothing to say on an occasion of a scene that it can
    play, or where its caller has nothing of training's or of the tests'."""
    for side, own in (("user", _USERS_OWN), ("agent", _AGENTS_OWN)):
        occasions = {*_ALWAYS[side]}
        for scene in load_scenes().values():
            if scene.fitting(domain):
                occasions |= {p for s in scene.steps if s.act == side for p in s.parts} - own
        for occasion in sorted(occasions):
            found = domain.talk.get(occasion, ())
            lacks = [split for split in ("train", "test") if not of_split(found, split)]
            if not found or (side == "user" and lacks):
                raise ValueError(f"{domain.name}: talk lacks {occasion} {lacks if found else ''}")
