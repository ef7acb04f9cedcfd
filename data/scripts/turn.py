"""What somebody says in one breath, word by word, and which call is right after which word."""

import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from data.scripts.domain import Domain, Phrasings, Tool, of_split, phrasing_split
from data.scripts.grammar import Phrasing, skeleton
from data.sentences import Split, split_of

CallKind = Literal["call", "revise", "cancel", "confirm", "handoff"]


class Piece(NamedTuple):
    """A written word, and the slot whose value it says (or "").

    `is_drawn` tells that another value would have been said with another word; after it comes a
    silence of `pause_s` seconds.
    """

    text: str
    slot: str = ""
    is_drawn: bool = False
    pause_s: float = 0.0


@dataclass(frozen=True)
class Call:
    """What is right for the agent to do once word `after` of the turn has been said.

    `needs` says which word of the turn tells each argument (those that were known before are not in
    it). A call and a revision have numbers of their own, from 1 within the script, and a revision
    `revises` an earlier one; `cancel` and `confirm` carry the number of the call they mean, a
    hand-off 0.
    """

    kind: CallKind
    number: int
    tool: str
    arguments: Mapping[str, str]
    needs: Mapping[str, int]
    after: int
    revises: int = 0


@dataclass(frozen=True)
class Turn:
    """One speaker's words, what becomes right within them, and the templates they were made from
    (each without its values: what makes two phrasings the same)."""

    pieces: tuple[Piece, ...]
    calls: tuple[Call, ...] = ()
    templates: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What is said."""
        return " ".join(piece.text for piece in self.pieces)


class Asked(NamedTuple):
    """A request: its turn, the tool's arguments, and those of them that the turn does not name."""

    turn: Turn
    tool: Tool
    arguments: Mapping[str, str]
    missing: tuple[str, ...]


def request(
    domain: Domain,
    tool: Tool,
    found: Phrasings,
    split: Split,
    rng: random.Random,
    arguments: Mapping[str, str] | None = None,
) -> Asked:
    """A clean request (or partial or mention) of a tool, without a call yet.

    Its phrasing and its arguments both belong to the split by their hashes, so what a test asks is
    asked in no training script. `arguments` are those to ask for; left out, they are drawn.
    """
    fitting = [p for p in found if phrasing_split(p) == split]
    if arguments is not None:
        fitting = [p for p in fitting if _may_say(tool, p, arguments)]
    phrasing = rng.choice(fitting)
    if arguments is None:
        arguments = _arguments(domain, tool, phrasing, split, rng)
    turn = _said(domain, tool, phrasing, arguments, rng)
    named = {piece.slot for piece in turn.pieces}
    missing = tuple(a for a in tool.required if tool.slots[a] not in named)
    return Asked(turn, tool, arguments, missing)


def _may_say(tool: Tool, phrasing: Phrasing, arguments: Mapping[str, str]) -> bool:
    """Whether the phrasing names exactly these arguments, and no other values."""
    by_slot = {tool.slots[argument]: value for argument, value in arguments.items()}
    named = {part.slot: part.value for part in phrasing if part.slot}
    return named.keys() == by_slot.keys() and all(
        value in ("", by_slot[slot]) for slot, value in named.items()
    )


def _arguments(
    domain: Domain, tool: Tool, phrasing: Phrasing, split: Split, rng: random.Random
) -> dict[str, str]:
    """A value for each argument that is required or that the phrasing names."""
    fixed = {part.slot: part.value for part in phrasing if part.slot}
    wanted = {a: s for a, s in tool.slots.items() if s in fixed or a in tool.required}
    while True:
        values = {a: fixed.get(s) or domain.slots[s].draw(rng) for a, s in wanted.items()}
        if may_be_named(domain, tool, values, split):
            return values


def may_be_named(domain: Domain, tool: Tool, arguments: Mapping[str, str], split: Split) -> bool:
    """Whether these arguments belong to the split.

    One argument out of a list (a topic, a department) belongs to both: there are too few of them.
    """
    is_listed = all(domain.slots[tool.slots[argument]].values for argument in arguments)
    if is_listed and len(arguments) <= 1:
        return True
    return split_of(json.dumps([tool.name, arguments], sort_keys=True)) == split


def _said(
    domain: Domain,
    tool: Tool,
    phrasing: Phrasing,
    arguments: Mapping[str, str],
    rng: random.Random,
) -> Turn:
    by_slot = {tool.slots[argument]: value for argument, value in arguments.items()}
    return turn_of(domain, phrasing, lambda slot: domain.slots[slot].say(by_slot[slot], rng))


def answer(
    domain: Domain, tool: Tool, argument: str, value: str, split: Split, rng: random.Random
) -> Turn:
    """The caller names one argument, since he was asked for it."""
    phrasing = rng.choice(of_split(domain.answer[argument], split))
    return _said(domain, tool, phrasing, {argument: value}, rng)


def last_words(turn: Turn, tool: Tool, arguments: Sequence[str]) -> dict[str, int]:
    """The last word of the turn that says each argument, of those that it says."""
    places = {piece.slot: index for index, piece in enumerate(turn.pieces) if piece.slot}
    return {a: places[tool.slots[a]] for a in arguments if tool.slots[a] in places}


def turn_of(domain: Domain, phrasing: Phrasing, say: Callable[[str], str]) -> Turn:
    """A phrasing as it is said; `say` puts a slot's value, yet to be spoken, into words."""
    pieces: list[Piece] = []
    for part in phrasing:
        said = part.text or say(part.slot)
        if said in (".", ",", "?", "!") and pieces:
            pieces[-1] = pieces[-1]._replace(text=pieces[-1].text + said)
        else:
            is_drawn = bool(part.slot) and not part.text
            pieces += [Piece(word, part.slot, is_drawn) for word in said.split()]
    pairs = itertools.pairwise([*pieces, Piece("")])
    pieces = [one for one, other in pairs if f"{one.text} {bare(other)}" not in domain.unsaid]
    first = pieces[0]
    first = first._replace(text=first.text[0].upper() + first.text[1:])
    return Turn((first, *pieces[1:]), templates=(skeleton(phrasing),))


def bare(piece: Piece) -> str:
    """The word without the punctuation behind it."""
    return piece.text.rstrip(".,?!")


def joined(one: Turn, other: Turn) -> Turn:
    """Both in one breath."""
    if not one.pieces:
        return other
    first, last = other.pieces[0], one.pieces[-1]
    if last.text[-1] in ".?!":
        last = last._replace(text=f"{bare(last)},")
    if first.text == ",":
        return joined(one, dataclasses.replace(other, pieces=other.pieces[1:]))
    pieces = (*one.pieces[:-1], last, first._replace(text=_small(first)), *other.pieces[1:])
    calls = (*one.calls, *(_moved(call, 0, len(one.pieces)) for call in other.calls))
    return Turn(pieces, calls, one.templates + other.templates)


def _small(piece: Piece) -> str:
    """The word as it stands within a sentence."""
    return piece.text if piece.text.split("'")[0] == "I" or piece.slot else piece.text.lower()


def _moved(call: Call, at: int, by: int) -> Call:
    """The call, `by` words later where its words stand at `at` or later."""
    return dataclasses.replace(
        call,
        after=call.after + by * (call.after >= at),
        needs={name: word + by * (word >= at) for name, word in call.needs.items()},
    )


def inserted(turn: Turn, at: int, pieces: tuple[Piece, ...]) -> Turn:
    """The turn with words put in before word `at`; calls after it move along."""
    calls = tuple(_moved(call, at, len(pieces)) for call in turn.calls)
    return dataclasses.replace(
        turn, pieces=(*turn.pieces[:at], *pieces, *turn.pieces[at:]), calls=calls
    )


def small_first(turn: Turn) -> Turn:
    """The turn without its capital, to put something in front of it."""
    first = turn.pieces[0]
    return dataclasses.replace(turn, pieces=(first._replace(text=_small(first)), *turn.pieces[1:]))
