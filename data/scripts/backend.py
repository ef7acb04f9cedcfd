"""A domain's tools as if they were there: what comes of a call, formed as in training's scripts."""

import dataclasses
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from data.perform import perform
from data.scripts.compose import compose
from data.scripts.composer import LATENCY_S
from data.scripts.domain import Domain, Tool, load_domain
from data.scripts.open_call import result_of
from data.scripts.scene import SELECTORS
from data.scripts.turn import Call
from data.timeline import Cast
from data.voices.silent import SILENT

_UNKNOWN_NUMBERS = 0.1  # share of the order and account numbers that nobody has heard of


class Answer(NamedTuple):
    """What a tool gives back, and how long after it began to run."""

    result: Mapping[str, Any]
    latency_s: float


@dataclass(frozen=True)
class Backend:
    """The same call gets the same answer, for one seed."""

    domain: Domain
    seed: int = 0

    def needs_confirmation(self, tool: str) -> bool:
        """Whether a call waits for the caller's yes before it runs."""
        return tool in self.domain.replies and bool(self.domain.replies[tool].confirm)

    def answer(self, tool: str, arguments: Mapping[str, Any]) -> Answer:
        """The arguments and what was found, or `error`: `not_found` for what the domain does not
        know and for some numbers."""
        rng = random.Random(f"{self.seed} {tool} {json.dumps(dict(arguments), sort_keys=True)}")
        latency_s = round(rng.uniform(*LATENCY_S["ok"]), 3)
        known = self.domain.tools.get(tool)
        if known is None or tool not in self.domain.replies or not self._knows(known, arguments):
            return Answer({**arguments, "error": "not_found"}, latency_s)
        is_unknown = SELECTORS["number"](self.domain, known) and rng.random() < _UNKNOWN_NUMBERS
        call = Call("call", 1, tool, arguments, {}, 0)
        outcome = "not_found" if is_unknown else "ok"
        return Answer(result_of(self.domain, call, outcome, rng), latency_s)

    def _knows(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        """Whether each argument is there and could have been named in a script."""
        if {*arguments} - {*tool.slots} or {*tool.required} - {*arguments}:
            return False
        try:
            for argument, value in arguments.items():
                self.domain.slots[tool.slots[argument]].say(str(value), random.Random(0))
        except ValueError:
            return False
        return True


def prompts(domain: str, seed: int) -> tuple[str, list[dict[str, Any]]]:
    """One of a domain's role prompts, and all of its tools as they are declared.

    Raises ValueError where there is no such domain.
    """
    rng = random.Random(seed)
    known = load_domain(domain)
    script = compose(known, "test", ["nobody"], rng)
    script = dataclasses.replace(script, tools=tuple(known.tools))
    call = perform(script, Cast(SILENT, SILENT, SILENT), domain, rng)
    return call.system, json.loads(call.tools)
