"""How well an agent did in a dialogue whose caller is given: calls, turns, interruptions, asides.

The caller's channel is known, his waits too (train/scoring/patience.py), so what was right and
when is known to the frame: the dialogue's own labels. Definitions are those of docs/evaluation.md.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data.dialogue import AGENT, USER, Action, Dialogue, Spell

_ANSWER_S = 3.0  # within which a turn is answered, from when that is right
_YIELD_S = 1.0  # within which an interruption silences the agent
_KEPT_S = 1.0  # for which the agent goes on after an aside, if it has that much to say
_ASIDE_S = 1.0  # a shorter word of the agent's in the caller's turn is a backchannel
_TOUCH_S = 0.24  # by which a turn may begin before the caller's end without taking over

Interval = tuple[float, float]


@dataclass(frozen=True)
class Performance:
    """What an agent did, on the audio's clock: its own actions and when it was heard, (from, to) in
    seconds, in order."""

    actions: tuple[Action, ...]
    speech: tuple[Interval, ...]


@dataclass(frozen=True)
class Score:
    """Of one dialogue. Each tuple has an entry for each time that there was something to do.

    `missing` are calls that should stand at the end (after revisions and cancellations), `extra`
    those that should not. `need_s` are times from `t_need` to the call, `gaps_s` from a caller's
    end to the agent's beginning, `stops_s` from an interruption to silence.
    """

    missing: int
    extra: int
    need_s: tuple[float, ...]
    answered: tuple[bool, ...]
    gaps_s: tuple[float, ...]
    yielded: tuple[bool, ...]
    stops_s: tuple[float, ...]
    kept: tuple[bool, ...]
    take_overs: int

    @property
    def passed(self) -> bool:
        """Whether everything was right."""
        return not (self.missing or self.extra or self.take_overs) and all(
            (*self.answered, *self.yielded, *self.kept)
        )


def oracle(dialogue: Dialogue) -> Performance:
    """An agent that does what the labels say when they say it."""
    spells = [spell for spell in dialogue.spells if spell.side == AGENT]
    return Performance(
        tuple(action for action in dialogue.actions if action.kind != "result"),
        tuple((spell.start_s, spell.end_s) for spell in spells),
    )


def score(dialogue: Dialogue, performance: Performance) -> Score:
    """Judges a performance by the dialogue's labels."""
    wanted = standing(dialogue.actions)
    found = standing(performance.actions)
    answered = answers(dialogue, performance.speech)
    yielded, stops_s = _yields(dialogue, performance.speech)
    pairs = matched(wanted, found)
    return Score(
        missing=(Counter(wanted.values()) - Counter(found.values())).total(),
        extra=(Counter(found.values()) - Counter(wanted.values())).total(),
        need_s=tuple(right_s - need_s for need_s, right_s in pairs),
        answered=tuple(begin_s is not None for _, begin_s in answered),
        gaps_s=tuple(begin_s - turn.end_s for turn, begin_s in answered if begin_s is not None),
        yielded=yielded,
        stops_s=stops_s,
        kept=_keeps(dialogue, performance.speech),
        take_overs=_take_overs(dialogue, performance.speech),
    )


def standing(actions: Sequence[Action]) -> dict[float, str]:
    """The calls and hand-offs that stand at the end, by when they were made: tool, arguments and
    whether it was confirmed, as text."""
    calls: dict[int, tuple[float, str, bool]] = {}
    others: dict[float, str] = {}
    for action in actions:
        what = f"{action.tool} {json.dumps(dict(action.arguments), sort_keys=True)}"
        if action.kind == "handoff":
            others[action.time_s] = what
        elif action.kind in ("call", "revise"):
            calls.pop(action.revises, None)
            calls[action.number] = (action.time_s, what, False)
        elif action.kind == "cancel":
            calls.pop(action.number, None)
        elif action.kind == "confirm" and action.number in calls:
            time_s, said, _ = calls[action.number]
            calls[action.number] = (time_s, said, True)
    made = {time_s: f"{what} {confirmed}" for time_s, what, confirmed in calls.values()}
    return made | others


def matched(wanted: dict[float, str], found: dict[float, str]) -> list[tuple[float, float]]:
    """(when it was right, when it was made) of each call that is right, first to first; both are
    what `standing` tells."""
    pairs, left = [], sorted(found)
    for need_s in sorted(wanted):
        same = [time_s for time_s in left if found[time_s] == wanted[need_s]]
        if same:
            left.remove(same[0])
            pairs.append((need_s, same[0]))
    return pairs


def turns_of(dialogue: Dialogue, side: int) -> list[Spell]:
    """One side's turns, without what is said aside."""
    return [s for s in dialogue.spells if s.side == side and s.manner == "turn"]


def answers(dialogue: Dialogue, speech: Sequence[Interval]) -> list[tuple[Spell, float | None]]:
    """Each turn of the caller's after which the agent should speak, and when it begins to, or
    None."""
    agents, users = turns_of(dialogue, AGENT), turns_of(dialogue, USER)
    found: list[tuple[Spell, float | None]] = []
    for number, turn in enumerate(users):
        next_s = users[number + 1].start_s if number + 1 < len(users) else dialogue.seconds
        right_s = [spell.start_s for spell in agents if turn.end_s <= spell.start_s < next_s]
        if right_s:
            until_s = min(next_s, max(turn.end_s, right_s[0]) + _ANSWER_S)
            begins = (
                start_s for start_s, _ in speech if turn.end_s - _TOUCH_S <= start_s < until_s
            )
            found.append((turn, next(begins, None)))
    return found


def _yields(
    dialogue: Dialogue, speech: Sequence[Interval]
) -> tuple[tuple[bool, ...], tuple[float, ...]]:
    """Whether the agent fell silent when the caller took the floor from it, and how soon.

    Where it was silent by then, or had all but ended, there was nothing to yield.
    """
    yielded, stops_s = [], []
    for turn in turns_of(dialogue, USER):
        during = [(a, b) for a, b in speech if a < turn.start_s < b]
        for _, end_s in during:
            yielded.append(end_s - turn.start_s <= _YIELD_S)
            stops_s.append(end_s - turn.start_s)
    return tuple(yielded), tuple(stops_s)


def _keeps(dialogue: Dialogue, speech: Sequence[Interval]) -> tuple[bool, ...]:
    """Whether the agent went on talking through each aside."""
    return tuple(
        any(start_s <= aside_s and end_s >= until_s for start_s, end_s in speech)
        for aside_s, until_s in asides(dialogue)
    )


def asides(dialogue: Dialogue) -> list[Interval]:
    """When each thing that is no turn comes over the words of the labels' agent, and until when an
    agent that goes on is heard: for a second, or until the labels' has said its own."""
    return [
        (aside.start_s, min(aside.start_s + _KEPT_S, spell.end_s))
        for aside in dialogue.spells
        if aside.side == USER and aside.manner != "turn"
        for spell in turns_of(dialogue, AGENT)
        if spell.start_s < aside.start_s < spell.end_s
    ]


def begun_within(dialogue: Dialogue, speech: Sequence[Interval]) -> list[Interval]:
    """What the agent begins to say while the caller is in a turn of his own."""
    return [
        (start_s, end_s)
        for start_s, end_s in speech
        for turn in turns_of(dialogue, USER)
        if turn.start_s + _TOUCH_S < start_s < turn.end_s - _TOUCH_S
    ]


def _take_overs(dialogue: Dialogue, speech: Sequence[Interval]) -> int:
    """How often the agent began a turn while the caller was in his own."""
    found = begun_within(dialogue, speech)
    return sum(end_s - start_s > _ASIDE_S for start_s, end_s in found)
