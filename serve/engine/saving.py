"""Sessions that outlive their engine: saved at intervals, taken up by any of the same model.

A gateway keeps what it is told here and what it has said since (`remembered.py`).
"""

from typing import Any

import msgspec
import numpy as np

from serve.engine.agent import Agent
from serve.engine.messages import Resume, Saved
from serve.engine.session import EngineSession, SavedSession, Waiting

_WHOLE_EACH = 32  # times; in between what is new
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SavedSession)


def saved(agent: Agent, state: Any, session: EngineSession) -> Saved:
    """A session between two rounds."""
    if session.saves % _WHOLE_EACH == 0:
        session.known, session.saved_at = [], -1
    caller = agent.save(state, session.slot, session.known)
    packed = _encoder.encode(
        SavedSession(session.number, session.taken, session.actions_left, caller)
    )
    reply = Saved(session.name, session.number, session.saved_at, session.taken, packed)
    session.saves += 1
    session.known, session.saved_at = caller.row.positions, session.number
    return reply


def resumed(agent: Agent, state: Any, slot: int, command: Resume, now_s: float) -> EngineSession:
    """The session of a `Resume`, in that slot. Raises ValueError on states that are not whole, that
    cannot be read or that are of another model."""
    try:
        states = [_decoder.decode(packed) for packed in command.states]
    except msgspec.MsgspecError as error:
        raise ValueError(f"states: {error}") from error
    if not states or any(states[0].caller.row.since):
        raise ValueError("states: the first must be whole")
    agent.load(state, slot, command.tools, [one.caller for one in states])
    last = states[-1]
    heard = Waiting(last.number, np.zeros(0, np.float32), now_s)
    return EngineSession(
        command.session, slot, now_s,
        actions_left=last.actions_left, heard=heard, taken=last.taken,
    )  # fmt: skip
