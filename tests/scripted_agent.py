"""A stand-in for the agent that holds a call by rule, so that clients have something to talk to.

It hears loudness alone. Of a caller who is loud for a second it calls the first tool, while he is
speaking; of what comes back, or of what it is told, it says a tone, a word every other frame; who
is loud over it is given the floor. Where its role is a `script`, it does what stands there instead:

    {"script": [[10, "call", "book_demo", {"person": "anna"}], [40, "confirm", 1]]}

a frame, an action, then a call's tool and arguments, or the number of the call that is meant.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from fake_agent import FakeState
from torch import Tensor

from model.action_session import ActionEvent, SavedActions
from model.agent import AgentFrame, SavedCaller
from model.frame import AGENTS, FRAME_SIZE, NOBODY, USERS
from model.snapshot import Saved
from model.tool_schema import decodable_tools

WORDS: Sequence[str] = (
    "<pad> your order has shipped and comes on tuesday thank you noted hm".split()
)
ANSWER_FRAMES, NOTED_FRAMES = 30, 10
_LOUD = 0.02
_CALL_FRAMES, _YIELD_FRAMES, _BURST = 12, 3, 3
_TONE = 0.2 * np.sin(2 * np.pi * 440 / 24_000 * np.arange(FRAME_SIZE)).astype(np.float32)


@dataclass
class ScriptedSession:
    """What the engine looks at, and what the script knows."""

    tools: Sequence[Mapping[str, Any]]
    waiting: list[int]
    is_open: bool = False
    calls: int = 0
    left: int = 0
    loud: int = 0  # frames in a row
    is_speaking: bool = False  # of what there is to say; begun in silence alone
    to_say: int = 0
    is_told: bool = False
    script: list[list[Any]] = field(default_factory=list)
    frames: int = 0

    @property
    def is_waiting(self) -> bool:
        return bool(self.waiting) and not self.is_open


class WordTokenizer:
    """A word a token; 0 is `<pad>`."""

    def __len__(self) -> int:
        return len(WORDS)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(f" {WORDS[token]}" for token in tokens)

    def id_of(self, token: str) -> int:
        return WORDS.index(token)


class ScriptedAgent:
    """See above."""

    def __init__(self) -> None:
        self.tokenizer: Any = WordTokenizer()
        self.sessions: dict[int, Any] = {}

    def init_state(self, batch: int) -> FakeState:
        return FakeState(torch.zeros(batch, dtype=torch.int64), torch.arange(batch))

    def begin(
        self, state: FakeState, row: int, system: str, tools: Sequence[Mapping[str, Any]], seed: int
    ) -> None:
        decodable_tools(tools)
        session = ScriptedSession(tools, [1] * len(system.split()))
        if system.startswith('{"script"'):
            session.script = json.loads(system)["script"]
        self.sessions[row] = session

    def give(self, state: FakeState, row: int, number: int, result: Mapping[str, Any]) -> None:
        session = self.sessions[row]
        session.waiting += [1] * 20
        session.to_say, session.is_told = ANSWER_FRAMES, False

    def tell(
        self, state: FakeState, row: int, system: str, tools: Sequence[Mapping[str, Any]] | None
    ) -> None:
        session = self.sessions[row]
        if tools is not None:
            decodable_tools(tools)
            session.tools = tools
        session.waiting += [1] * len(system.split())
        session.to_say, session.is_told = NOTED_FRAMES, True

    def save(self, state: FakeState, row: int, known: Sequence[int]) -> SavedCaller:
        session = self.sessions[row]
        actions = SavedActions(
            session.calls, {}, [[*session.waiting]], [], [(0, 1.0)] * session.left
        )
        return SavedCaller(Saved([], [*known] or [0], [0]), actions)

    def load(
        self,
        state: FakeState,
        row: int,
        tools: Sequence[Mapping[str, Any]],
        saved: Sequence[SavedCaller],
        seed: int | None = None,
    ) -> None:
        calls, _, waiting, _, burst = saved[-1].actions
        session = ScriptedSession(tools, waiting[0], bool(burst), calls=calls, left=len(burst))
        self.sessions[row] = session

    def prefill(self, state: FakeState, row: int, most: int | None) -> None:
        del self.sessions[row].waiting[:most]

    def hear(self, state: FakeState, pcm: Tensor, active: Tensor) -> AgentFrame:
        batch = len(active)
        said, events = torch.zeros(batch, FRAME_SIZE), []
        agent_text, user_text, floor = torch.zeros(3, batch, dtype=torch.int64)
        for place in active.nonzero()[:, 0].tolist():
            slot = int(state.slot[place])
            session = self.sessions[slot]
            is_loud = bool(pcm[place].square().mean().sqrt() > _LOUD)
            session.loud = session.loud + 1 if is_loud else 0
            session.is_speaking = session.to_say > 0 and (session.is_speaking or not is_loud)
            if session.is_speaking and session.loud == _YIELD_FRAMES:
                session.to_say, session.is_speaking = 0, False
            floor[place] = USERS if is_loud else AGENTS if session.is_speaking else NOBODY
            if is_loud and session.loud % 4 == 0:
                user_text[place] = len(WORDS) - 1
            if session.is_speaking:
                said[place] = torch.from_numpy(_TONE)
                agent_text[place] = self._word(session)
                session.to_say -= 1
            session.frames += 1
            if session.script:
                due = [step[1:] for step in session.script if step[0] == session.frames]
                events += [event for step in due for event in _done(session, slot, *step)]
            elif session.loud == _CALL_FRAMES and not session.tools:
                session.to_say, session.is_told = ANSWER_FRAMES, False
            elif session.loud == _CALL_FRAMES and not session.is_open:
                session.is_open, session.left = True, _BURST
                events.append(ActionEvent(slot, "opened", session.calls + 1, "call", "", {}, 1.0))
        return AgentFrame(said, agent_text, user_text, floor, events)

    def _word(self, session: ScriptedSession) -> int:
        if session.is_told:
            return WORDS.index("noted") if session.to_say == NOTED_FRAMES else 0
        place = ANSWER_FRAMES - session.to_say
        return place // 2 + 1 if place % 2 == 0 and place // 2 < 9 else 0

    def act(self, state: FakeState, active: Tensor) -> list[ActionEvent]:
        events = []
        for slot in state.slot[active].tolist():
            session = self.sessions[slot]
            session.left -= 1
            if not session.left:
                session.is_open = False
                session.calls += 1
                tool = session.tools[0]
                names = tool.get("parameters", {}).get("properties", {})
                made = (tool["name"], dict.fromkeys(names, "48192"), 0.9)
                events.append(ActionEvent(slot, "made", session.calls, "call", *made))
        return events


def _done(
    session: ScriptedSession,
    slot: int,
    action: str,
    what: Any = "",
    arguments: Mapping[str, Any] | None = None,
) -> list[ActionEvent]:
    """What a step of the script does, at once."""
    if action in ("call", "revise"):
        session.calls += 1
        number, tool = session.calls, what
    else:
        number, tool = (0, "") if action == "handoff" else (what, "")
    revises = session.calls - 1 if action == "revise" else 0
    made = (action, tool, arguments or {}, 0.9, revises)
    opened = ActionEvent(slot, "opened", number, action, "", {}, 1.0)
    return [opened, ActionEvent(slot, "made", number, *made)]
