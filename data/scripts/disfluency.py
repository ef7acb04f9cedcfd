"""What becomes of a clean turn when people speak: fillers, restarts, pauses and corrections."""

import dataclasses
import random
from collections.abc import Mapping

from data.scripts.domain import Domain, Tool
from data.scripts.turn import Call, Piece, Turn, bare, inserted, may_be_named, small_first
from data.sentences import Split

_RESTARTS_AT = 2  # words in, at least
_PAUSE_S = (0.4, 2.0)
_DRAWS = 300


def with_filler(domain: Domain, turn: Turn, rng: random.Random) -> Turn:
    """A filler before some word but the first; a turn of one word comes back as it is."""
    if len(turn.pieces) == 1:
        return turn
    filler = tuple(Piece(part.text) for part in rng.choice(domain.talk["filler"]))
    return inserted(turn, rng.randrange(1, len(turn.pieces)), filler)


def with_restart(turn: Turn, rng: random.Random) -> Turn:
    """Some words said, and said again: "could you, could you tell me"."""
    plain = next((i for i, piece in enumerate(turn.pieces) if piece.slot), len(turn.pieces))
    if plain < _RESTARTS_AT:
        return turn
    again = turn.pieces[: rng.randint(1, min(3, plain))]
    broken = again[-1]._replace(text=bare(again[-1]) + ",")
    return inserted(small_first(turn), 0, (*again[:-1], broken))


def with_pause(turn: Turn, rng: random.Random) -> Turn:
    """A silence of 0.4 to 2 s between two words, every second time inside a value, if one is long
    enough; a turn of one word comes back as it is."""
    if len(turn.pieces) == 1:
        return turn
    pairs = list(zip(turn.pieces, turn.pieces[1:], strict=False))
    within = [i for i, (one, other) in enumerate(pairs) if one.slot and one.slot == other.slot]
    place = rng.choice(within) if within and rng.random() < 0.5 else rng.randrange(len(pairs))
    piece = turn.pieces[place]
    paused = piece._replace(text=bare(piece) + ",", pause_s=round(rng.uniform(*_PAUSE_S), 3))
    return dataclasses.replace(
        turn, pieces=(*turn.pieces[:place], paused, *turn.pieces[place + 1 :])
    )


def other_value(
    domain: Domain,
    tool: Tool,
    arguments: Mapping[str, str],
    argument: str,
    split: Split,
    rng: random.Random,
) -> dict[str, str] | None:
    """The arguments with another value for one of them, or None where the split has no other."""
    slot = domain.slots[tool.slots[argument]]
    others = ({**arguments, argument: slot.draw(rng)} for _ in range(_DRAWS))
    fitting = (w for w in others if w != arguments and may_be_named(domain, tool, w, split))
    return next(fitting, None)


def with_correction(domain: Domain, turn: Turn, split: Split, rng: random.Random) -> Turn:
    """Another value first, and the right one after "no, sorry": a call, then its revision.

    The turn must hold one call; one without another value to say comes back as it is.
    """
    (call,) = turn.calls
    tool = domain.tools[call.tool]
    drawn = {piece.slot for piece in turn.pieces if piece.is_drawn}
    choices = [argument for argument in call.needs if tool.slots[argument] in drawn]
    if not choices:
        return turn
    argument = rng.choice(choices)
    wrong = other_value(domain, tool, call.arguments, argument, split, rng)
    if wrong is None:  # of few values the others may all belong to the other split
        return turn
    slot = domain.slots[tool.slots[argument]]
    places = [index for index, piece in enumerate(turn.pieces) if piece.slot == slot.name]
    start = places[0]
    mistake = [Piece(word, slot.name, True) for word in slot.say(wrong[argument], rng).split()]
    mistake[-1] = mistake[-1]._replace(text=bare(mistake[-1]) + ",")
    sorry = [Piece(part.text) for part in rng.choice(domain.talk["sorry"])]
    corrected = inserted(turn, start, (*mistake, *sorry))
    if call.after > places[-1]:  # nothing was to be called before the correction came
        return corrected
    (right,) = corrected.calls
    said = start + len(mistake) - 1
    first = Call("call", call.number, call.tool, wrong, {**call.needs, argument: said}, said)
    second = dataclasses.replace(
        right,
        kind="revise",
        number=call.number + 1,
        needs={argument: right.needs[argument]},
        revises=call.number,
    )
    return dataclasses.replace(corrected, calls=(first, second))


def correction(
    domain: Domain,
    call: Call,
    arguments: Mapping[str, str],
    argument: str,
    number: int,
    rng: random.Random,
) -> Turn:
    """A turn of its own that corrects an earlier call to `arguments`: "no, sorry, on Friday"."""
    slot = domain.slots[domain.tools[call.tool].slots[argument]]
    said = [Piece(word, slot.name, True) for word in slot.say(arguments[argument], rng).split()]
    sorry = [Piece(part.text) for part in rng.choice(domain.talk["sorry"])]
    pieces = [*sorry, *said]
    pieces[0] = pieces[0]._replace(text=pieces[0].text[0].upper() + pieces[0].text[1:])
    pieces[-1] = pieces[-1]._replace(text=bare(pieces[-1]) + ".")
    last = len(pieces) - 1
    revision = Call("revise", number, call.tool, arguments, {argument: last}, last, call.number)
    return Turn(tuple(pieces), (revision,))
