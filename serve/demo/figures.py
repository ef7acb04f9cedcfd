"""What a scripted call came to: of each line what was called and how soon, on the audio's clock."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.voices.utterance import Utterance
from serve.demo.script import Line, ScriptedCaller, bare
from serve.watched_call import WatchedCall
from train.conversation import Conversation, Event

_TOUCH_S = 0.24  # by which an answer may begin before the caller's end
_COLUMNS = ("", "right call", "after its last word", "before he ended", "answered", "silent")


class LineFigures(NamedTuple):
    """Of a line: whether what it is to bring was called, how long after the last word that it needs
    and how long before the line's end (negative: after it); how long after the line's end the agent
    answered; how long after its beginning an agent that was speaking fell silent. None where there
    was nothing of the kind."""

    about: str
    is_right: bool | None
    need_to_call_s: float | None
    early_s: float | None
    gap_s: float | None
    stop_s: float | None


def line_figures(caller: ScriptedCaller, conversation: Conversation) -> list[LineFigures]:
    """Of each line that was said."""
    until_s = [*caller.begun_s[1:], conversation.seconds]
    said = zip(caller.script.lines, caller.spoken, caller.begun_s, until_s, strict=False)
    return [_figures(*one, conversation) for one in said]


def _figures(
    line: Line, spoken: Utterance, begun_s: float, until_s: float, conversation: Conversation
) -> LineFigures:
    end_s = begun_s + spoken.words[-1].end_s
    called_s = need_s = None
    if line.calls:
        words = reversed(spoken.words)
        need_s = begun_s + next(w.end_s for w in words if bare(w.text) == line.after)
        called_s = next(_calls(line, conversation.events, begun_s, until_s), None)
    speech = conversation.speech()
    stops = [end - begun_s for start, end in speech if start < begun_s < end]
    gaps = [start - end_s for start, _ in speech if end_s - _TOUCH_S <= start < until_s]
    return LineFigures(
        line.about,
        called_s is not None if line.calls else None,
        None if called_s is None or need_s is None else called_s - need_s,
        None if called_s is None else end_s - called_s,
        gaps[0] if gaps else None,
        stops[0] if stops and line.over_s is not None else None,
    )


def _calls(line: Line, events: Sequence[Event], begun_s: float, until_s: float) -> Iterator[float]:
    """When what a line is to bring was called."""
    for event in events:
        is_call = event.kind == "made" and event.action in ("call", "revise", "handoff")
        is_his = begun_s <= event.time_s < until_s and event.tool == line.calls
        if is_call and is_his and dict(event.arguments) == dict(line.arguments or {}):
            yield event.time_s


def table(figures: Sequence[LineFigures]) -> str:
    """With a line for each."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for one in figures:
        right = {None: "", True: "yes", False: "NO"}[one.is_right]
        times_s = (one.need_to_call_s, one.early_s, one.gap_s, one.stop_s)
        rows.append(
            (one.about, right, *("" if s is None else f"{1000 * s:.0f} ms" for s in times_s))
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def pace(watched: WatchedCall) -> str:
    """How soon frames came back, as the caller saw it and as the server says of itself."""
    waits_ms = 1000 * (np.array(watched.answered_s) - np.array(watched.sent_s))
    p50, p99 = np.quantile(waits_ms, (0.5, 0.99))
    said: Mapping[str, Any] = watched.load
    return (
        f"{len(waits_ms)} frames: there and back {p50:.1f} ms (p99 {p99:.1f}, "
        f"max {waits_ms.max():.1f}); in the engine {said['latency_ms_p50']:.1f} ms "
        f"(p99 {said['latency_ms_p99']:.1f}, of the last 10 s)"
    )
