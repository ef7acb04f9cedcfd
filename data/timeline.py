"""When each step of a script happens: turns with gaps and overlaps, results when they are ready."""

import math
import random
from dataclasses import dataclass, field, replace

import numpy as np

from data.dialogue import AGENT, USER, Action
from data.render import Background, Placed
from data.scripts.script import Did, Heard, Ran, Said, Silence
from data.scripts.spoken_turn import speak
from data.scripts.turn import Turn
from data.sentences import Split
from data.sounds import cough, music, silent_music
from data.voices.silent import SILENT
from data.voices.style import NEUTRAL
from data.voices.utterance import SAMPLE_RATE_HZ

_START_S = 0.3  # of silence
# Gaps between turns, from word to word. People take over 0.2 s after the other one has ended, and
# often before (Stivers et al. 2009); an agent that must be sure of it is a little later.
_AGENT_GAP = (math.log(0.28), 0.35, 0.16, 1.2)  # log-normal: median, spread; least, most
_USER_GAP = (0.2, 0.4, -0.4, 2.0)  # normal: mean, spread; least, most
_HESITANT = 1.5  # times as long the agent waits for somebody who hesitates
_AFTER_RESULT_S = 0.12
_SOON_S = 0.6  # a result that comes later than this is waited for with a word
_YIELD_S = 0.16  # two frames
_FROM_OTHERS = 10 ** (-14 / 20)  # how loud others are in the user's room
_SIDES = {"agent": AGENT, "user": USER}


@dataclass(frozen=True)
class Cast:
    """Who speaks: the agent, the caller (`user_speed` times as fast and as high as his voice), and
    somebody else in the caller's room."""

    agent: str
    user: str
    other: str
    user_speed: float = 1.0


@dataclass
class Timeline:
    """What has been placed so far, and when the last of it ends; `styles` are the agent's and the
    user's."""

    cast: Cast
    styles: tuple[str, str]
    split: Split
    rng: random.Random
    turns: list[Placed] = field(default_factory=list)
    backgrounds: list[Background] = field(default_factory=list)
    others: list[Action] = field(default_factory=list)  # than those within turns
    end_s: float = _START_S

    def actions(self) -> list[Action]:
        """Everything on the action channel so far, in time."""
        within = [action for turn in self.turns for action in turn.actions()]
        return sorted([*within, *self.others], key=lambda action: action.time_s)

    def add(self, step: Said | Heard | Ran | Did | Silence) -> None:
        """Places one step."""
        if isinstance(step, Said):
            self._said(step)
        elif isinstance(step, Heard):
            self._heard(step)
        elif isinstance(step, Ran):
            self._ran(step)
        elif isinstance(step, Did):
            call = step.call
            self.others.append(Action(self.end_s, "handoff", 0, call.tool, call.arguments))
        else:
            self.end_s += step.seconds

    def _said(self, step: Said) -> None:
        side = _SIDES[step.side]
        if step.over is not None:
            self._over(step, side, step.over)
        else:
            self._say(side, step.turn, self.end_s + self._gap_s(side))

    def _say(self, side: int, turn: Turn, begins_s: float) -> Placed:
        """Places a turn whose first word is to begin at a time."""
        style = self.styles[side]
        if side == AGENT:
            spoken = speak(turn, self.cast.agent, style)
        else:
            spoken = speak(turn, self.cast.user, style, self.cast.user_speed)
        start_s = max(0.0, begins_s - spoken.utterance.words[0].start_s)
        placed = Placed(side, spoken, start_s, style=style)
        self.turns.append(placed)
        self.end_s = max(self.end_s, placed.spell.end_s)
        return placed

    def _over(self, step: Said, side: int, share: float) -> None:
        """A turn that begins while the other side speaks, which stops if its floor is taken."""
        number = max(n for n, turn in enumerate(self.turns) if turn.side != side)
        other = self.turns[number]
        placed = self._say(side, step.turn, self._within(other, share))
        if not step.takes_floor:
            self.turns[-1] = replace(placed, manner=step.manner)
            return
        stop_s = placed.spell.start_s + _YIELD_S
        if stop_s < other.spell.end_s:
            self.turns[number] = replace(other, stop_s=stop_s)
        self.end_s = placed.spell.end_s

    def _within(self, other: Placed, share: float) -> float:
        spell = other.spell
        return spell.start_s + max(share * (spell.end_s - spell.start_s), _YIELD_S)

    def _gap_s(self, side: int) -> float:
        if side == AGENT:
            median, spread, least, most = _AGENT_GAP
            waits = _HESITANT if self.styles[USER] == "hesitant" else 1.0
            return min(max(self.rng.lognormvariate(median, spread), least), most) * waits
        mean, spread, least, most = _USER_GAP
        last = max((turn.spell for turn in self.turns), key=lambda s: s.end_s, default=None)
        if last is None or last.side != AGENT or last.end_s < self.end_s:
            least = 0.05  # nobody's end to come in before
        return min(max(self.rng.gauss(mean, spread), least), most)

    def _heard(self, step: Heard) -> None:
        seed = np.random.default_rng(self.rng.getrandbits(32))
        if step.sound == "cough":
            audio = cough(seed)
        elif step.sound == "music":
            is_silent = self.cast.user == SILENT
            audio = silent_music(seed) if is_silent else music(self.split, seed)
        else:
            assert step.turn is not None
            spoken = speak(step.turn, self.cast.other, NEUTRAL)
            audio = spoken.utterance.audio * np.float32(_FROM_OTHERS)
        if step.over is None:
            at_s = self.end_s + self.rng.uniform(0.8, 2.0)
            self.end_s = at_s + len(audio) / SAMPLE_RATE_HZ + self.rng.uniform(0.3, 1.0)
        else:
            at_s = self._within(self.turns[-1], step.over)
        self.backgrounds.append(Background(at_s, audio))

    def _ran(self, step: Ran) -> None:
        """A result, unless what it answers was replaced or taken back before it was there."""
        mine = [a for a in self.actions() if a.number == step.number and a.kind != "result"]
        ready_s = max(action.time_s for action in mine if action.kind != "cancel") + step.latency_s
        ended_s = [
            action.time_s
            for action in self.actions()
            if action.revises == step.number
            or (action.kind == "cancel" and action.number == step.number)
        ]
        if min(ended_s, default=math.inf) <= ready_s:
            return
        self.others.append(Action(ready_s, "result", step.number, step.tool, step.result))
        if ended_s:
            return  # nobody waits for it: it is replaced by now
        if step.wait is not None and ready_s > self.end_s + _SOON_S:
            self._say(AGENT, step.wait, self.end_s + self._gap_s(AGENT))
        self.end_s = max(self.end_s, ready_s + _AFTER_RESULT_S)
