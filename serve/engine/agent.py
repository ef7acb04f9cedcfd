"""What the engine asks of an agent."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from model.action_session import ActionEvent, ActionSession
from model.agent import AgentFrame, SavedCaller
from model.tokens import DialogueTokenizer


class Agent(Protocol):
    """What is run: `model.agent.Agent`, or a stand-in. `sessions` are by slot."""

    tokenizer: DialogueTokenizer
    sessions: dict[int, ActionSession]

    def init_state(self, batch: int) -> Any:
        """A fresh state of so many slots."""
        ...

    def begin(
        self, state: Any, row: int, system: str, tools: Sequence[Mapping[str, Any]], seed: int
    ) -> None:
        """A new caller in a slot."""
        ...

    def give(self, state: Any, row: int, number: int, result: Mapping[str, Any]) -> None:
        """The result of one of his calls."""
        ...

    def tell(
        self,
        state: Any,
        row: int,
        system: str,
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> None:
        """What he is to know from now on, and other tools."""
        ...

    def save(self, state: Any, row: int, known: Sequence[int]) -> SavedCaller:
        """All of a caller, or what is new."""
        ...

    def load(
        self,
        state: Any,
        row: int,
        tools: Sequence[Mapping[str, Any]],
        saved: Sequence[SavedCaller],
        seed: int | None = None,
    ) -> None:
        """A caller who was saved, in a slot; with a seed of his own another one."""
        ...

    def prefill(self, state: Any, row: int, most: int | None) -> None:
        """A part of what is to be taken in."""
        ...

    def hear(self, state: Any, pcm: Tensor, active: Tensor) -> AgentFrame:
        """A frame of some callers, whose rows were gathered."""
        ...

    def act(self, state: Any, active: Tensor) -> list[ActionEvent]:
        """A position of their actions."""
        ...
