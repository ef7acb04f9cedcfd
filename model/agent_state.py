"""All that an agent remembers of its callers (model/agent.py)."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from model.duplex import DuplexState
from model.speech import SpeechState
from model.streaming import State


@dataclass
class AgentState(State):
    """Everything of the callers but what their open bursts are held to; integers are int64 [B].

    `agent_text`, `user_text` and `floor` are the last frame's, `floor_frames` for how many it has
    been that, `holder` is who surely had it last; `action` and `is_new` (bool) as in `Inputs`.
    `positions` counts what has gone in, `slot` is the row's number where all rows are. A row is to
    be begun before its first step.
    """

    codec: State
    duplex: DuplexState
    speech: SpeechState
    agent_text: Tensor
    user_text: Tensor
    floor: Tensor
    floor_frames: Tensor
    holder: Tensor
    action: Tensor
    is_new: Tensor
    positions: Tensor
    seed: Tensor
    slot: Tensor

    @classmethod
    def fresh(cls, codec: State, duplex: DuplexState, speech: SpeechState) -> Self:
        """Around fresh states of the parts."""
        zero = torch.zeros(len(speech.codes), dtype=torch.int64)
        names = ("agent_text", "user_text", "floor", "floor_frames", "holder", "action")
        return cls(
            codec,
            duplex,
            speech,
            **{name: zero.clone() for name in (*names, "positions", "seed")},
            is_new=zero.bool(),
            slot=torch.arange(len(zero)),
        )
