"""A whole conversation before anybody speaks it: who says what, what is right, what comes back."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from data.scripts.turn import Call, Turn
from data.sentences import Split

Side = Literal["agent", "user"]
Manner = Literal["turn", "backchannel", "side_talk"]
Sound = Literal["overheard", "cough", "music"]


@dataclass(frozen=True)
class Said:
    """A turn. `over` is the share of the other side's turn that has passed when it begins, None
    where it begins after all that was said before; the other one stops if it `takes_floor`."""

    side: Side
    turn: Turn
    over: float | None = None
    manner: Manner = "turn"

    @property
    def takes_floor(self) -> bool:
        """Whether it is one's turn, rather than a word aside."""
        return self.manner == "turn"


@dataclass(frozen=True)
class Heard:
    """What else comes through the caller's microphone: other people (`turn` is what they say), a
    cough, or hold music."""

    sound: Sound
    turn: Turn | None = None
    over: float | None = None


@dataclass(frozen=True)
class Ran:
    """The result of a call, `latency_s` after it was right and, where need be, confirmed.

    `wait` is what the agent says if it takes its time; None where it has said so already.
    """

    number: int
    tool: str
    latency_s: float
    result: Mapping[str, str]
    wait: Turn | None


@dataclass(frozen=True)
class Did:
    """What the agent does of its own accord, once it knows all that was said and came back."""

    call: Call


@dataclass(frozen=True)
class Silence:
    """Nobody speaks."""

    seconds: float


Step = Said | Heard | Ran | Did | Silence


@dataclass(frozen=True)
class Script:
    """One conversation: `system` is the role prompt, `tools` those that are declared, `style` the
    caller's, `scenes` what it is made of."""

    domain: str
    split: Split
    system: str
    tools: tuple[str, ...]
    style: str
    scenes: tuple[str, ...]
    steps: tuple[Step, ...]

    def to_json(self) -> str:
        """The same script, always as the same text."""
        steps = [{"step": type(step).__name__, **vars(step)} for step in self.steps]
        fields = {**vars(self), "steps": steps}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), default=vars)

    def sha256(self) -> str:
        """The hash of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
