"""A script in time: two voices say it, calls come when they are right, results when ready."""

import dataclasses
import random
from dataclasses import dataclass, field

from data.dialogue import AGENT, USER, Action, Dialogue
from data.render import Placed, render
from data.scripts.script import Exchange, Script
from data.scripts.spoken_turn import speak
from data.scripts.turn import Turn
from data.voices.style import NEUTRAL

_LICENCE = "that of the voices: docs/data-card.md"
_START_S, _END_S = 0.3, 0.6  # of silence
_GAP_S = (0.1, 1.5)
_SOON_S = 0.6  # a result that comes later than this is waited for with a word


@dataclass
class _Timeline:
    """What has been placed so far, and when the last of it ends."""

    voices: tuple[str, str]  # agent, user
    style: str  # the user's
    rng: random.Random
    turns: list[Placed] = field(default_factory=list)
    results: list[Action] = field(default_factory=list)
    calls: int = 0
    end_s: float = _START_S

    def say(self, side: int, turn: Turn) -> Placed:
        """Places a turn after a gap (log-normal, median 0.35 s)."""
        gap_s = min(max(self.rng.lognormvariate(-1.05, 0.5), _GAP_S[0]), _GAP_S[1])
        spoken = speak(turn, self.voices[side], self.style if side == USER else NEUTRAL)
        placed = Placed(side, spoken, self.end_s + gap_s)
        self.turns.append(placed)
        self.end_s = placed.end_s
        return placed

    def exchange(self, exchange: Exchange) -> None:
        """A request, its calls, a confirmation where there is one, the result and the reply."""
        calls = self.say(USER, exchange.request).calls()
        first = self.calls + 1
        self.calls += len(calls)
        runs_s, right = calls[-1]
        if exchange.confirm and exchange.confirmed:
            self.say(AGENT, exchange.confirm)
            runs_s = self.say(USER, exchange.confirmed).end_s
        elif len(calls) > 1 and calls[0][0] + exchange.latency_s < runs_s:
            # The mistaken call was quick: its result is there, and is never spoken.
            time_s, wrong = calls[0]
            stale = {**exchange.result, **wrong.arguments}
            self.results.append(
                Action(time_s + exchange.latency_s, "result", first, wrong.tool, stale)
            )
        ready_s = runs_s + exchange.latency_s
        self.results.append(Action(ready_s, "result", self.calls, right.tool, exchange.result))
        if ready_s > self.end_s + _SOON_S:
            self.say(AGENT, exchange.wait)
        self.end_s = max(self.end_s, ready_s)
        self.say(AGENT, exchange.reply)


def perform(
    script: Script, agent_voice: str, user_voice: str, style: str, name: str, rng: random.Random
) -> Dialogue:
    """Two voices say a script; `style` is the user's. Raises ValueError as `say` does."""
    timeline = _Timeline((agent_voice, user_voice), style, rng)
    timeline.say(AGENT, script.greeting)
    for exchange in script.exchanges:
        timeline.exchange(exchange)
    timeline.say(USER, script.thanks)
    timeline.say(AGENT, script.goodbye)
    source = f"{script.domain}, {agent_voice} and {user_voice}"
    dialogue = render(name, timeline.turns, timeline.end_s + _END_S, source, _LICENCE)
    actions = sorted([*dialogue.actions, *timeline.results], key=lambda action: action.time_s)
    return dataclasses.replace(dialogue, actions=tuple(actions))
