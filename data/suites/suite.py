"""Items of the frozen test suites: scripts by number, and dialogues once somebody speaks them."""

import functools
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from data.dialogue import Dialogue
from data.line import Line, over_line
from data.perform import perform
from data.scripts.compose import compose
from data.scripts.domain import load_domain
from data.scripts.script import Said, Script
from data.timeline import Cast
from data.voices.spliced import is_recorded

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Suite:
    """One suite: `items` scripts, of the `scenes` in turn; `sha256` is what they hash to."""

    name: str
    domain: str
    items: int
    scenes: tuple[str, ...]
    sha256: str

    def script(self, number: int) -> Script:
        """Item `number`, of the phrasings and values that belong to tests."""
        if not 0 <= number < self.items:
            raise ValueError(f"item {number} of {self.name}: must be in 0..{self.items - 1}")
        scene = self.scenes[number % len(self.scenes)]
        rng = random.Random(f"{self.name} {number}")
        return compose(load_domain(self.domain), "test", [scene], rng)

    def items_for(self, voices: Sequence[str]) -> Sequence[int]:
        """The items that these voices may say: all, but those with recordings spliced in only what
        they make a test of: numbers (digits, times of day) are named, and each is recorded."""
        return _numbers_recorded(self) if has_recordings(voices) else range(self.items)

    def hash(self) -> str:
        """SHA-256 of the items' own, in their order."""
        whole = hashlib.sha256()
        for number in range(self.items):
            whole.update(self.script(number).sha256().encode())
        return whole.hexdigest()

    def check(self) -> None:
        """Raises ValueError unless the items are those that were frozen."""
        if (found := self.hash()) != self.sha256:
            raise ValueError(
                f"suite {self.name}: its scripts hash to {found}, frozen was {self.sha256!r}"
            )

    def dialogue(self, number: int, voices: Sequence[str], agent: str, line: Line) -> Dialogue:
        """Item `number` as the voice whose turn it is says it over a line.

        Raises ValueError and FileNotFoundError as `data.voices.say` does.
        """
        name = f"{self.name}-{number:03}"
        user, other = (voices[(number + offset) % len(voices)] for offset in (0, 1))
        rng = random.Random(f"{name} in time")
        spoken = perform(self.script(number), Cast(agent, user, other), name, rng)
        return over_line(spoken, line, np.random.default_rng(rng.getrandbits(64)))


@dataclass(frozen=True)
class Suites:
    """A domain's suites, the voices that may speak their items and the lines between, by name."""

    suites: Mapping[str, Suite]
    voices: Mapping[str, tuple[str, ...]]
    lines: Mapping[str, Line]


def has_recordings(voices: Sequence[str]) -> bool:
    """Whether a person says numbers and days in one of these voices."""
    return any(voice.startswith("spliced:") for voice in voices)


@functools.cache
def _numbers_recorded(suite: Suite) -> Sequence[int]:
    """The items in which the caller names numbers, all in words that are recorded."""
    slots = load_domain(suite.domain).slots
    numbers = {name for name, slot in slots.items() if slot.digits or slot.times}

    def said(number: int) -> list[str]:
        return [
            piece.text
            for step in suite.script(number).steps
            if isinstance(step, Said) and step.side == "user"
            for piece in step.turn.pieces
            if piece.slot in numbers
        ]

    words = {number: said(number) for number in range(suite.items)}
    return [number for number, found in words.items() if found and all(map(is_recorded, found))]


@functools.cache
def load_suites(domain: str) -> Suites:
    """Reads `data/suites/DOMAIN.yaml`; raises ValueError where there is none."""
    known = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    if domain not in known:
        raise ValueError(f"suites of {domain!r}: must be one of {known}")
    read = yaml.safe_load((_FOLDER / f"{domain}.yaml").read_text())
    suites = {
        name: Suite(
            name, read["domain"], given["items"], tuple(given["scenes"]), given.get("sha256", "")
        )
        for name, given in read["suites"].items()
    }
    voices = {name: tuple(listed) for name, listed in read["voices"].items()}
    lines = {name: Line(**given) for name, given in read["lines"].items()}
    return Suites(suites, voices, lines)
