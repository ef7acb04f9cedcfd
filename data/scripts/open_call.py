"""A call that has been made in a scene: what comes of it, and how the agent speaks of it."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from data.scripts.domain import Domain
from data.scripts.turn import Asked, Call, Turn, turn_of


@dataclass
class OpenCall:
    """A call and how far it has come; `superseded` are those that it took the place of in the same
    breath."""

    asked: Asked
    call: Call
    result: Mapping[str, str] | None = None
    is_told: bool = False
    is_confirmed: bool = False
    superseded: list[Call] = field(default_factory=list)

    def confirmation(self, domain: Domain, rng: random.Random) -> Turn:
        """The agent reads the call back, to have it confirmed."""
        phrasing = rng.choice(list(domain.replies[self.call.tool].confirm))
        return turn_of(domain, phrasing, self._spoken(domain, rng).__getitem__)

    def reply(self, domain: Domain, rng: random.Random) -> Turn:
        """The agent says what came back."""
        assert self.result is not None
        reply = domain.replies[self.call.tool]
        spoken = self._spoken(domain, rng)
        for name, slot in reply.results.items():
            said = domain.slots[slot.format(**self.call.arguments)]
            spoken[name] = said.say(self.result[name], rng)
        return turn_of(domain, rng.choice(list(reply.say)), spoken.__getitem__)

    def _spoken(self, domain: Domain, rng: random.Random) -> dict[str, str]:
        """How the agent says each argument."""
        slots = self.asked.tool.slots
        return {
            a: domain.slots[slots[a]].say(value, rng) for a, value in self.call.arguments.items()
        }


def result_of(domain: Domain, call: Call, outcome: str, rng: random.Random) -> dict[str, str]:
    """What a tool gives back: the arguments that it answers, and its fields or its error."""
    fields = {
        name: domain.slots[slot.format(**call.arguments)].draw(rng)
        for name, slot in domain.replies[call.tool].results.items()
    }
    return {**call.arguments, **(fields if outcome == "ok" else {"error": outcome})}
