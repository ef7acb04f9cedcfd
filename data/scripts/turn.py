"""What a caller says in one breath, word by word, and which call is right after which word."""

import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from data.scripts.domain import Domain, Tool, phrasing_split
from data.scripts.grammar import Phrasing
from data.sentences import Split, split_of

_RESTARTS_AT = 2  # words in, at least
_SORRY = ("no, sorry,", "sorry, I mean", "no wait,", "I mean", "no, make that", "actually no,")
_DRAWS = 50
_FILLERS = ("um,", "uh,", "er,", "well,", "let me see,", "you know,")


class Piece(NamedTuple):
    """A written word, and the slot whose value it says (or "").

    `is_drawn` tells that another value would have been said with another word.
    """

    text: str
    slot: str = ""
    is_drawn: bool = False


@dataclass(frozen=True)
class Call:
    """The right call once word `after` of the turn has been said: the last one that it needs.

    `revises` is the number of the call, in the turn, that it takes the place of.
    """

    tool: str
    arguments: Mapping[str, str]
    after: int
    revises: int | None = None


@dataclass(frozen=True)
class Turn:
    """One speaker's words and the calls that become right within them."""

    pieces: tuple[Piece, ...]
    calls: tuple[Call, ...] = ()

    @property
    def text(self) -> str:
        """What is said."""
        return " ".join(piece.text for piece in self.pieces)


def request(domain: Domain, tool_name: str, split: Split, rng: random.Random) -> Turn:
    """A clean request of a tool.

    Its phrasing and its arguments both belong to the split by their hashes, so what a test asks is
    asked in no training script.
    """
    tool = domain.tools[tool_name]
    fitting = [p for p in domain.requests[tool_name] if phrasing_split(p) == split]
    phrasing = rng.choice(fitting)
    arguments = _arguments(domain, tool, phrasing, split, rng)
    values = {tool.slots[argument]: value for argument, value in arguments.items()}
    pieces = pieces_of(domain, phrasing, lambda slot: domain.slots[slot].say(values[slot], rng))
    return Turn(pieces, (Call(tool.name, arguments, _last_needed(pieces)),))


def _arguments(
    domain: Domain, tool: Tool, phrasing: Phrasing, split: Split, rng: random.Random
) -> dict[str, str]:
    """A value for each argument that the phrasing names."""
    fixed = {part.slot: part.value for part in phrasing if part.slot}
    named = {argument: slot for argument, slot in tool.slots.items() if slot in fixed}
    while True:
        values = {a: fixed[slot] or domain.slots[slot].draw(rng) for a, slot in named.items()}
        if _may_be_named(domain, tool, values, split):
            return values


def _may_be_named(domain: Domain, tool: Tool, arguments: Mapping[str, str], split: Split) -> bool:
    """Whether these arguments belong to the split.

    One argument out of a list (a topic, a department) belongs to both: there are too few of them.
    """
    is_listed = all(domain.slots[tool.slots[argument]].values for argument in arguments)
    if is_listed and len(arguments) == 1:
        return True
    return split_of(json.dumps([tool.name, arguments], sort_keys=True)) == split


def pieces_of(domain: Domain, phrasing: Phrasing, say: Callable[[str], str]) -> tuple[Piece, ...]:
    """The words of a phrasing; `say` puts a slot's value, which is yet to be spoken, into words."""
    pieces: list[Piece] = []
    for part in phrasing:
        said = part.text or say(part.slot)
        if said in (".", ",", "?", "!") and pieces:
            pieces[-1] = pieces[-1]._replace(text=pieces[-1].text + said)
        else:
            is_drawn = bool(part.slot) and not part.text
            pieces += [Piece(word, part.slot, is_drawn) for word in said.split()]
    pairs = itertools.pairwise([*pieces, Piece("")])
    pieces = [one for one, other in pairs if f"{one.text} {_bare(other)}" not in domain.unsaid]
    first = pieces[0]
    return (first._replace(text=first.text[0].upper() + first.text[1:]), *pieces[1:])


def _bare(piece: Piece) -> str:
    return piece.text.rstrip(".,?!")


def _last_needed(pieces: tuple[Piece, ...]) -> int:
    """The last word that says a value; the last of all where none does."""
    needed = [index for index, piece in enumerate(pieces) if piece.slot]
    return needed[-1] if needed else len(pieces) - 1


def _inserted(turn: Turn, at: int, pieces: tuple[Piece, ...]) -> Turn:
    """The turn with words put in before word `at`; calls after it move along."""
    calls = tuple(
        dataclasses.replace(call, after=call.after + len(pieces) * (call.after >= at))
        for call in turn.calls
    )
    return Turn((*turn.pieces[:at], *pieces, *turn.pieces[at:]), calls)


def with_filler(turn: Turn, rng: random.Random) -> Turn:
    """A filler before some word but the first; a turn of one word comes back as it is."""
    if len(turn.pieces) == 1:
        return turn
    filler = tuple(Piece(word) for word in rng.choice(_FILLERS).split())
    return _inserted(turn, rng.randrange(1, len(turn.pieces)), filler)


def with_restart(turn: Turn, rng: random.Random) -> Turn:
    """Some words said, and said again: "could you, could you tell me"."""
    plain = next((i for i, piece in enumerate(turn.pieces) if piece.slot), len(turn.pieces))
    if plain < _RESTARTS_AT:
        return turn
    again = turn.pieces[: rng.randint(1, min(3, plain))]
    broken = again[-1]._replace(text=_bare(again[-1]) + ",")
    first = turn.pieces[0]
    small = first.text if first.text.split("'")[0] == "I" else first.text.lower()
    whole = dataclasses.replace(turn, pieces=(first._replace(text=small), *turn.pieces[1:]))
    return _inserted(whole, 0, (*again[:-1], broken))


def with_correction(domain: Domain, turn: Turn, split: Split, rng: random.Random) -> Turn:
    """Another value first, and the right one after "no, sorry": a call, then its revision.

    The turn must hold one call; one without another value to say comes back as it is.
    """
    (call,) = turn.calls
    tool = domain.tools[call.tool]
    drawn = {piece.slot for piece in turn.pieces if piece.is_drawn}
    if not drawn:
        return turn
    argument = rng.choice([a for a in call.arguments if tool.slots[a] in drawn])
    slot = domain.slots[tool.slots[argument]]
    others = ({**call.arguments, argument: slot.draw(rng)} for _ in range(_DRAWS))
    fitting = (w for w in others if w != call.arguments and _may_be_named(domain, tool, w, split))
    wrong = next(fitting, None)
    if wrong is None:  # of few values the others may all belong to the other split
        return turn
    places = [index for index, piece in enumerate(turn.pieces) if piece.slot == slot.name]
    start = places[0]
    mistake = [Piece(word, slot.name, True) for word in slot.say(wrong[argument], rng).split()]
    mistake[-1] = mistake[-1]._replace(text=mistake[-1].text + ",")
    sorry = [Piece(word) for word in rng.choice(_SORRY).split()]
    corrected = _inserted(turn, start, (*mistake, *sorry))
    if call.after > places[-1]:  # nothing was to be called before the correction came
        return corrected
    (right,) = corrected.calls
    first = Call(call.tool, wrong, start + len(mistake) - 1)
    return dataclasses.replace(corrected, calls=(first, dataclasses.replace(right, revises=0)))
