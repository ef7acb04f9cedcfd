"""Who takes turns when, told from the words of a dialogue alone.

A *stretch* is words of one side with pauses below 180 ms between them, as Heldner and Edlund (2010)
and Levinson and Torreira (2015) join them. What the frames' floor says makes it a backchannel,
something said aside (a caller to others in his room: he speaks and never has the floor) or a part
of a turn. A *turn* is all the parts of one side until the other side's next one, however long it
pauses in between; what begins and ends while the other one is speaking takes no floor. The *gap*
of a transfer runs from the end of one turn to the beginning of the next, and is negative where they
overlap.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.dialogue import AGENT, USER
from model.frame import AGENTS, AGENTS_BACKCHANNEL, FRAME_S, USERS, USERS_BACKCHANNEL

_PAUSE_S = 0.18  # a plosive's closure is shorter
_SLACK_S = 1e-6
_OWN_TURN = {AGENT: AGENTS, USER: USERS}
_OWN_BACKCHANNEL = {AGENT: AGENTS_BACKCHANNEL, USER: USERS_BACKCHANNEL}

Kind = Literal["turn", "backchannel", "aside"]


class Stretch(NamedTuple):
    """One side speaking without a pause, or a whole turn."""

    side: int
    start_s: float
    end_s: float
    kind: Kind = "turn"


def stretches(
    words: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], floor: Sequence[int]
) -> list[Stretch]:
    """The stretches of both sides, by their beginnings.

    `words` are the agent's and the user's, as a shard has them (`start_s`, `end_s`); `floor` has a
    number of `data.dialogue.FLOORS` a frame.
    """
    holders = np.asarray(floor)  # [frames]
    found = [stretch for side in (AGENT, USER) for stretch in _of_side(side, words[side], holders)]
    return sorted(found, key=lambda stretch: stretch.start_s)


def _of_side(
    side: int, words: Sequence[Mapping[str, Any]], holders: NDArray[np.integer]
) -> Iterator[Stretch]:
    joined: list[Stretch] = []
    for word in words:
        middle = int((word["start_s"] + word["end_s"]) / 2 / FRAME_S)
        is_backchannel = holders[min(middle, len(holders) - 1)] == _OWN_BACKCHANNEL[side]
        kind: Kind = "backchannel" if is_backchannel else "turn"
        last = joined[-1] if joined else None
        if last and last.kind == kind and word["start_s"] - last.end_s < _PAUSE_S:
            joined[-1] = last._replace(end_s=max(last.end_s, word["end_s"]))
        else:
            joined.append(Stretch(side, word["start_s"], word["end_s"], kind))
    for stretch in joined:
        frames = slice(int(stretch.start_s / FRAME_S), int(stretch.end_s / FRAME_S) + 1)
        has_floor = (holders[frames] == _OWN_TURN[side]).any()
        # An agent speaks to nobody else: its last word may merely lie under the caller's next turn.
        is_aside = side == USER and stretch.kind == "turn" and not has_floor
        yield stretch._replace(kind="aside") if is_aside else stretch


def turns_of(found: Sequence[Stretch]) -> list[Stretch]:
    """The turns that stretches make; the sides alternate."""
    turns: list[Stretch] = []
    for stretch in found:
        if stretch.kind != "turn":
            continue
        last = turns[-1] if turns else None
        if last and last.side == stretch.side:
            turns[-1] = last._replace(end_s=max(last.end_s, stretch.end_s))
        elif last is None or stretch.end_s > last.end_s:
            turns.append(stretch)
    return turns


def gaps_s(turns: Sequence[Stretch], side: int) -> list[float]:
    """The gaps before the turns of `side`, in seconds, negative where it overlaps the other one."""
    pairs = itertools.pairwise(turns)
    return [after.start_s - before.end_s for before, after in pairs if after.side == side]


def left_s(turns: Sequence[Stretch], time_s: float) -> float:
    """How long the caller goes on in the turn in which a time lies; 0 where he has none then."""
    going_on = [
        turn.end_s - time_s
        for turn in turns
        if turn.side == USER and turn.start_s <= time_s <= turn.end_s + _SLACK_S
    ]
    return max([0.0, *going_on])


def speech_s(found: Sequence[Stretch]) -> tuple[float, float]:
    """Seconds in which somebody speaks, and in which both do, whatever they say."""
    agent, user = (
        np.array([s[1:3] for s in found if s.side == side]).reshape(-1, 2) for side in (AGENT, USER)
    )
    starts = np.maximum(agent[:, None, 0], user[None, :, 0])  # [agent's, user's]
    ends = np.minimum(agent[:, None, 1], user[None, :, 1])
    both_s = float((ends - starts).clip(min=0).sum())
    total_s = float(np.diff(agent).sum() + np.diff(user).sum())
    return total_s - both_s, both_s
