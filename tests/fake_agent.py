"""A stand-in for the agent whose outputs are known: it says what it hears, half as loud."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model.action_session import ActionEvent, SavedActions
from model.agent import AgentFrame, SavedCaller
from model.snapshot import Saved
from model.streaming import State


@dataclass
class FakeState(State):
    """`heard` frames of each slot, int64 [B], and its number."""

    heard: Tensor
    slot: Tensor


@dataclass
class FakeSession:
    """What the engine looks at."""

    waiting: list[int]
    is_open: bool = False
    left: int = 0
    calls: int = 0
    results: list[Mapping[str, Any]] = field(default_factory=list)
    told: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def is_waiting(self) -> bool:
        return bool(self.waiting) and not self.is_open


class FakeTokenizer:
    """Ten tokens, of which 0 is `<pad>`."""

    def __len__(self) -> int:
        return 10

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(f"w{token}" for token in tokens)

    def id_of(self, token: str) -> int:
        return 0


class FakeAgent:
    """Takes in `context` tokens; opens an action at every `call_each`-th frame, `burst` long."""

    def __init__(self, context: int = 70, call_each: int = 5, burst: int = 9) -> None:
        self.context, self.call_each, self.burst = context, call_each, burst
        self.tokenizer: Any = FakeTokenizer()
        self.sessions: dict[int, Any] = {}
        self.batches: list[tuple[str, list[int]]] = []

    def init_state(self, batch: int) -> FakeState:
        return FakeState(torch.zeros(batch, dtype=torch.int64), torch.arange(batch))

    def begin(
        self, state: FakeState, row: int, system: str, tools: Sequence[Mapping[str, Any]], seed: int
    ) -> None:
        if any("name" not in tool for tool in tools):
            raise ValueError("a tool has no name")
        self.sessions[row] = FakeSession([1] * self.context)
        state.heard[row] = 0

    def give(self, state: FakeState, row: int, number: int, result: Mapping[str, Any]) -> None:
        session = self.sessions[row]
        if not 0 < number <= session.calls:
            raise ValueError(f"number {number}: has made calls 1 to {session.calls}")
        session.waiting += [2] * 20
        session.results.append(result)

    def tell(
        self, state: FakeState, row: int, system: str, tools: Sequence[Mapping[str, Any]] | None
    ) -> None:
        if any("name" not in tool for tool in tools or ()):
            raise ValueError("a tool has no name")
        self.sessions[row].told.append((system, tools))

    def save(self, state: FakeState, row: int, known: Sequence[int]) -> SavedCaller:
        session = self.sessions[row]
        heard = [int(state.heard[row])]
        actions = SavedActions(
            session.calls, {}, [[*session.waiting]], [], [(0, 1.0)] * session.left
        )
        return SavedCaller(Saved([], [*known] or [0], heard), actions)

    def load(
        self,
        state: FakeState,
        row: int,
        tools: Sequence[Mapping[str, Any]],
        saved: Sequence[SavedCaller],
        seed: int | None = None,
    ) -> None:
        calls, _, waiting, _, burst = saved[-1].actions
        self.sessions[row] = FakeSession(waiting[0], bool(burst), len(burst), calls)
        state.heard[row] = saved[-1].row.positions[0]

    def prefill(self, state: FakeState, row: int, most: int | None) -> None:
        self.batches.append(("prefill", [row]))
        del self.sessions[row].waiting[:most]

    def hear(self, state: FakeState, pcm: Tensor, active: Tensor) -> AgentFrame:
        slots = state.slot[active].tolist()
        self.batches.append(("hear", slots))
        assert not any(
            self.sessions[slot].waiting for slot in slots if not self.sessions[slot].is_open
        )
        state.heard += active
        events = []
        for slot, heard in zip(slots, state.heard[active].tolist(), strict=True):
            session = self.sessions[slot]
            if heard % self.call_each == 0 and not session.is_open:
                session.is_open, session.left = True, self.burst
                events.append(ActionEvent(slot, "opened", session.calls + 1, "call", "", {}, 1.0))
        text = state.heard % 10
        return AgentFrame(pcm / 2, text, text, torch.zeros_like(text), events)

    def act(self, state: FakeState, active: Tensor) -> list[ActionEvent]:
        slots = state.slot[active].tolist()
        self.batches.append(("act", slots))
        events = []
        for slot in slots:
            session = self.sessions[slot]
            session.left -= 1
            if not session.left:
                session.is_open = False
                session.calls += 1
                events.append(ActionEvent(slot, "made", session.calls, "call", "t", {"a": 1}, 0.9))
        return events
