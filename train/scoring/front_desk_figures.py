"""Figures of suite=front_desk: judged conversations as metrics and tables."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from train import intervals
from train.intervals import Metric
from train.report import Table
from train.scoring.front_desk_tally import Judged

_YIELD_S = 1.0  # within which an interruption silences the agent
Heard = Sequence[Judged]


class Share(NamedTuple):
    """Of one conversation: how much is right, and of how much."""

    suites: tuple[str, ...]
    count: Callable[[Judged], tuple[int, int]]


class Ratio(NamedTuple):
    """Of one conversation: what is added up, and what it is divided by."""

    suites: tuple[str, ...]
    count: Callable[[Judged], tuple[float, float]]
    unit: str = "share"


class Times(NamedTuple):
    """Of one conversation: times in seconds."""

    suites: tuple[str, ...]
    values_s: Callable[[Judged], Sequence[float]]


def _one(is_right: bool | None) -> tuple[int, int]:
    """One conversation that is right or not; None: without an occasion."""
    return int(bool(is_right)), int(is_right is not None)


def _stops(one: Judged) -> tuple[int, int]:
    stops_s = one.tally.stops_s
    return sum(stop_s <= _YIELD_S for stop_s in stops_s), len(stops_s)


def _kept(one: Judged) -> tuple[int, int]:
    return sum(one.kept), len(one.kept)


def _reply_slots(one: Judged) -> tuple[int, int]:
    slots = [reply.slots for reply in one.tally.replies]
    return sum(found.right for found in slots), sum(found.words for found in slots)


_CALLS = ("single", "chained", "correction", "disfluent")
SHARES: Mapping[str, Share] = {
    "call_args_exact": Share(("single",), lambda j: (j.tally.calls.exact, j.tally.calls.wanted)),
    "correction_pass": Share(
        ("correction", "disfluent"),
        lambda j: _one(not (j.tally.score.missing or j.tally.score.extra)),
    ),
    "false_call_rate": Share(("no_call",), lambda j: _one(j.acted > 0)),
    "early_call_share": Share(_CALLS, lambda j: j.early),
    "turn_answered": Share(
        ("turn_end",), lambda j: (sum(j.tally.score.answered), len(j.tally.score.answered))
    ),
    "pause_takeover": Share(("pause",), lambda j: _one(j.tally.score.take_overs > 0)),
    "pause_begun": Share(("pause",), lambda j: _one(j.begun > 0)),
    "listening_takeover": Share(("listening",), lambda j: _one(j.tally.score.take_overs > 0)),
    "own_backchannel_share": Share(
        ("listening",), lambda j: _one(j.begun > 0 and not j.tally.score.take_overs)
    ),
    "bargein_yield": Share(("barge_in",), _stops),
    "backchannel_selectivity": Share(("backchannel",), _kept),
    "tic_selectivity": Share(("tic",), _kept),
    "side_talk_selectivity": Share(("side_talk",), _kept),
    "noise_selectivity": Share(("noise",), _kept),
    "urgency_accuracy": Share(("urgency",), lambda j: _one(j.priority)),
    "urgency_sent": Share(("urgency",), lambda j: _one(j.priority is not None)),
    "role_names_right": Share((), lambda j: j.names),
    "passed": Share((), lambda j: _one(j.tally.score.passed)),
}
RATIOS: Mapping[str, Ratio] = {
    "call_f1": Ratio(
        ("single",), lambda j: (2 * j.tally.calls.named, j.tally.calls.wanted + j.tally.calls.made)
    ),
    "own_backchannels_per_minute": Ratio(
        ("listening",),
        lambda j: (j.begun - j.tally.score.take_overs, j.held_s / 60),
        "backchannels/minute",
    ),
    "reply_slots_right": Ratio((), _reply_slots),
}
TIMES: Mapping[str, Times] = {
    "need_to_call_ms": Times(_CALLS, lambda j: j.tally.score.need_s),
    "turn_gap_ms": Times(("turn_end",), lambda j: j.gaps_s),
    "answer_gap_ms": Times(("turn_end",), lambda j: j.tally.score.gaps_s),
    "bargein_stop_ms": Times(("barge_in",), lambda j: j.tally.stops_s),
}
_RANKS = (50, 95)


def of_suites(judged: Heard, suites: tuple[str, ...]) -> list[Judged]:
    """Those of some suites; of all where none is named."""
    return [one for one in judged if not suites or one.suite in suites]


def figures(judged: Heard) -> dict[str, Metric]:
    """All that these conversations tell; what had no occasion is left out."""
    metrics = {}
    for name, share in SHARES.items():
        if found := _by_item(of_suites(judged, share.suites), share.count):
            metrics[name] = intervals.clustered_share(*found)
    for name, times in TIMES.items():
        found = [
            (1000 * value_s, one.cluster)
            for one in of_suites(judged, times.suites)
            for value_s in times.values_s(one)
        ]
        if found:
            values, clusters = zip(*found, strict=True)
            for rank in _RANKS:
                metrics[f"{name}_p{rank}"] = intervals.percentile(values, clusters, rank, "ms")
    for name, pooled in RATIOS.items():
        if found := _by_item(of_suites(judged, pooled.suites), pooled.count):
            metrics[name] = intervals.ratio(*found, pooled.unit)
    return metrics | _undeclared(judged)


def _by_item(
    judged: Heard, count: Callable[[Judged], tuple[float, float]]
) -> tuple[list[float], list[float]] | None:
    """Counts of conversations (of what, out of how much), added up by item: what seeds make of one
    has its script and voice in common. None where there is nothing to count."""
    sums: dict[tuple[str, str], tuple[float, float]] = {}
    for one in judged:
        before, counted = sums.get(one.item, (0, 0)), count(one)
        sums[one.item] = before[0] + counted[0], before[1] + counted[1]
    found = [pair for pair in sums.values() if pair[1]]
    return ([top for top, _ in found], [of for _, of in found]) if found else None


def _undeclared(judged: Heard) -> dict[str, Metric]:
    if not judged:
        return {}
    count = sum(one.undeclared for one in judged)
    return {"undeclared_calls": intervals.exact(count, len(judged), "calls")}


def argument_lead(agent: Heard, other: Heard) -> dict[str, Metric]:
    """By how much more of the arguments of single requests an agent has right than another one in
    the same conversations."""
    theirs = {one.tally.name: one.tally.calls.exact for one in other}

    def more(one: Judged) -> tuple[int, int]:
        return one.tally.calls.exact - theirs[one.tally.name], one.tally.calls.wanted

    both = [one for one in of_suites(agent, ("single",)) if one.tally.name in theirs]
    found = _by_item(both, more)
    return {"call_args_exact_lead": intervals.ratio(*found, "share")} if found else {}


def tables(agents: Sequence[str], rows: Sequence[str]) -> tuple[Table, ...]:
    """A figure a line; agents (prefixes of names) and rows of conversations are columns."""
    times = [f"{name}_p{rank}" for name, rank in itertools.product(TIMES, _RANKS)]
    names = [*RATIOS, *SHARES, *times, "undeclared_calls"]
    voice = ["agent_wer", "dnsmos_agent", "silence_said_per_minute", "silence_calls"]
    titles = {agent: agent.rstrip("_").replace("_", " ") or "checkpoint" for agent in agents}
    by_row = Table(
        "Who calls over which line",
        tuple(f"{titles[agent]}, {row}" for row in rows for agent in agents),
        tuple(
            (name, tuple(f"{agent}{name}_{row}" for row in rows for agent in agents))
            for name in names
        ),
    )
    whole = Table(
        "Over a clean line",
        tuple(titles.values()),
        tuple((name, tuple(f"{agent}{name}" for agent in agents)) for name in (*names, *voice)),
    )
    return whole, by_row
