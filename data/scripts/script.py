"""A whole conversation, before anybody speaks it: who says what in answer to what."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.scripts.domain import Domain, Tool
from data.scripts.grammar import Phrasing
from data.scripts.turn import Turn, pieces_of, request, with_correction, with_filler, with_restart
from data.sentences import Split

_CORRECTED, _FILLED, _RESTARTED = 0.2, 0.25, 0.15  # shares of the requests
_LATENCY_S = (0.2, 3.0)


@dataclass(frozen=True)
class Exchange:
    """A request and all that follows from it.

    `confirm` is asked and `confirmed` answered before the call may run; they are None where it may
    run at once. `wait` is said only if the result takes its time.
    """

    request: Turn
    confirm: Turn | None
    confirmed: Turn | None
    wait: Turn
    latency_s: float
    result: Mapping[str, str]
    reply: Turn


@dataclass(frozen=True)
class Script:
    """Greeting by the agent, exchanges, thanks by the user, goodbye by the agent."""

    domain: str
    greeting: Turn
    exchanges: tuple[Exchange, ...]
    thanks: Turn
    goodbye: Turn


def compose(domain: Domain, split: Split, exchanges: int, rng: random.Random) -> Script:
    """A conversation with that many requests, of any of the domain's tools."""
    return Script(
        domain.name,
        _talk(domain, "greeting", rng),
        tuple(_exchange(domain, split, rng) for _ in range(exchanges)),
        _talk(domain, "thanks", rng),
        _talk(domain, "goodbye", rng),
    )


def _talk(domain: Domain, occasion: str, rng: random.Random) -> Turn:
    return _turn(domain, domain.talk[occasion], {}, rng)


def _exchange(domain: Domain, split: Split, rng: random.Random) -> Exchange:
    tool = domain.tools[rng.choice(list(domain.tools))]
    asked = request(domain, tool.name, split, rng)
    arguments = asked.calls[0].arguments
    if rng.random() < _CORRECTED:
        asked = with_correction(domain, asked, split, rng)
    if rng.random() < _FILLED:
        asked = with_filler(asked, rng)
    if rng.random() < _RESTARTED:
        asked = with_restart(asked, rng)
    reply = domain.replies[tool.name]
    fields = {field: rng.choice(list(values)) for field, values in reply.results.items()}
    spoken = _spoken(domain, tool, arguments, rng) | fields
    return Exchange(
        asked,
        _turn(domain, reply.confirm, spoken, rng) if reply.confirm else None,
        _talk(domain, "confirmed", rng) if reply.confirm else None,
        _talk(domain, "wait", rng),
        rng.uniform(*_LATENCY_S),
        {**arguments, **fields},
        _turn(domain, reply.say, spoken, rng),
    )


def _spoken(
    domain: Domain, tool: Tool, arguments: Mapping[str, str], rng: random.Random
) -> dict[str, str]:
    """How the agent says each argument."""
    return {a: domain.slots[tool.slots[a]].say(value, rng) for a, value in arguments.items()}


def _turn(
    domain: Domain, choices: Sequence[Phrasing], spoken: Mapping[str, str], rng: random.Random
) -> Turn:
    return Turn(pieces_of(domain, rng.choice(list(choices)), spoken.__getitem__))
