"""What an engine runs next: the item that is due first, with all others of its kind."""

import math
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Literal, NamedTuple

from model.action_session import ActionSession
from serve.engine.session import EngineSession

Kind = Literal["hear", "act", "prefill"]


class Batch(NamedTuple):
    """What a round runs, and for whom."""

    kind: Kind
    sessions: list[EngineSession]


def next_batch(
    sessions: Iterable[EngineSession], acting: Mapping[int, ActionSession], actions_per_frame: int
) -> Batch | None:
    """`acting` is by slot. Of what is to be taken in, one caller's; None where all is done."""
    items = [
        (*item, session)
        for session in sessions
        if (item := _next_item(session, acting[session.slot], actions_per_frame))
    ]
    if not items:
        return None
    _, kind, first = min(items, key=itemgetter(0))
    if kind == "prefill":
        return Batch(kind, [first])
    return Batch(kind, [session for _, other, session in items if other == kind])


def _next_item(
    session: EngineSession, acting: ActionSession, actions_per_frame: int
) -> tuple[float, Kind] | None:
    """What a session needs next, and when that is late. A new caller has time."""
    frame_due_s = session.frames[0].due_s if session.frames else math.inf
    if session.actions_left:
        return session.action_due_s(actions_per_frame), "act"
    if acting.is_waiting:
        return frame_due_s, "prefill"
    return (frame_due_s, "hear") if session.frames else None
