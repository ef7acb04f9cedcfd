"""Figures of suite=dialogue: tallies of conversations as metrics and tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from train import intervals
from train.intervals import Metric
from train.report import Table
from train.scoring.dialogue_tally import Tally
from train.scoring.recognizers import WordErrors

Pairs = Iterable[tuple[float, float]]

# Shares pooled over a row: (of one conversation, out of how many).
_SHARES: Mapping[str, Callable[[Tally], tuple[float, float]]] = {
    "call_name_right": lambda one: (one.calls.named, one.calls.wanted),
    "arguments_exact": lambda one: (one.calls.exact, one.calls.wanted),
    "calls_right": lambda one: (one.calls.wanted - one.score.missing, one.calls.wanted),
    "false_calls": lambda one: (one.calls.false, one.calls.made),
    "reply_slots_right": lambda one: (
        sum(reply.slots.right for reply in one.replies),
        sum(reply.slots.words for reply in one.replies),
    ),
    "replies_right": lambda one: (
        sum(reply.slots.is_whole for reply in one.replies),
        len(one.replies),
    ),
    "starts_in_user_speech": lambda one: (one.score.take_overs, len(one.pauses_s)),
    "answered": lambda one: (sum(one.score.answered), len(one.score.answered)),
    "yielded": lambda one: (sum(one.score.yielded), len(one.score.yielded)),
    "kept": lambda one: (sum(one.score.kept), len(one.score.kept)),
    "passed": lambda one: (one.score.passed, 1),
}
_TIMES: Mapping[str, Callable[[Tally], Sequence[float]]] = {
    "call_complete_ms": lambda one: one.score.need_s,
    "barge_in_stop_ms": lambda one: one.stops_s,
    "answer_gap_ms": lambda one: one.score.gaps_s,
}


def conversation_figures(row: str, tallies: Sequence[Tally]) -> dict[str, Metric]:
    """Everything but how the agent sounds; what had no occasion is left out."""
    metrics = {}
    for name, count in _SHARES.items():
        metrics |= _ratio(f"{name}_{row}", map(count, tallies), "share")
    for name, times_s in _TIMES.items():
        found = [1000 * time_s for one in tallies for time_s in times_s(one)]
        if found:
            metrics[f"{name}_{row}"] = intervals.median(found, "ms")
    silent = [one.calls.made for one in tallies if one.is_silent]
    if silent:
        metrics[f"silent_false_calls_{row}"] = intervals.mean(silent, "calls/dialogue")
    heard = [one.transcript for one in tallies if one.transcript]
    return metrics | _ratio(f"transcript_wer_{row}", heard, "%", 100)


def voice_figures(
    row: str, agent: Sequence[WordErrors], teacher: Sequence[WordErrors]
) -> dict[str, Metric]:
    """Word errors in the agent's lines and in the same lines by its teacher voice, and what the
    agent's are more (both of the same lines, in order; the teacher's may be missing)."""
    metrics = _ratio(f"agent_wer_{row}", agent, "%", 100)
    if teacher:
        more = [(a.errors - t.errors, a.words) for a, t in zip(agent, teacher, strict=True)]
        metrics |= _ratio(f"teacher_wer_{row}", teacher, "%", 100)
        metrics |= _ratio(f"agent_wer_delta_{row}", more, "points", 100)
    return metrics


def _ratio(name: str, pairs: Pairs, unit: str, scale: float = 1.0) -> dict[str, Metric]:
    """A pooled ratio over those that have something in the denominator."""
    kept = [(top, bottom) for top, bottom in pairs if bottom > 0]
    if not kept:
        return {}
    tops, bottoms = zip(*kept, strict=True)
    return {name: intervals.ratio(tops, bottoms, unit, scale)}


def tables(rows: Sequence[str]) -> tuple[Table, ...]:
    """A figure a line, a row of dialogues a column."""
    calls = (*_SHARES, *_TIMES, "silent_false_calls", "transcript_wer")
    voice = ("agent_wer", "teacher_wer", "agent_wer_delta")
    return tuple(
        Table(title, tuple(rows), tuple((n, tuple(f"{n}_{row}" for row in rows)) for n in names))
        for title, names in (("Conversations", calls), ("The agent's voice", voice))
    )
