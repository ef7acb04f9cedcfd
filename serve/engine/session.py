"""What the engine knows of one caller beside the rows of the model's state."""

from collections import deque
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.agent import SavedCaller
from model.frame import FRAME_S
from serve.engine.messages import Open, Result, Tell


@dataclass(frozen=True)
class Waiting:
    """A frame that is to be heard: float32 [1920] in -1..1, and when it arrived."""

    number: int
    pcm: NDArray[np.float32]
    arrived_s: float

    @property
    def due_s(self) -> float:
        """When its answer is late."""
        return self.arrived_s + FRAME_S


class SavedSession(msgspec.Struct):
    """The state of a `messages.Saved`."""

    number: int
    taken: int
    actions_left: int
    caller: SavedCaller


@dataclass
class EngineSession:
    """A caller in a slot, of whom something came last at `seen_s`.

    `opening` is how he came in, until his prompt is taken in. `actions_left` are the action
    positions that may still come before his next frame; `heard` is the last frame that was heard.
    `told`, results and what else he is told, wait for theirs; so many were `taken`. He was saved
    last, of `saves` times, at frame `saved_at`, as far as `known` (`model.snapshot.save`).
    """

    name: str
    slot: int
    seen_s: float
    frames: deque[Waiting] = field(default_factory=deque)
    actions_left: int = 0
    heard: Waiting | None = None
    opening: Open | None = None
    told: deque[Result | Tell] = field(default_factory=deque)
    taken: int = 0
    saved_at: int = -1
    known: list[int] = field(default_factory=list)
    saves: int = 0

    @property
    def number(self) -> int:
        """Of the last frame that was heard; -1 before the first."""
        return self.heard.number if self.heard else -1

    def action_due_s(self, actions_per_frame: int) -> float:
        """When the next action position is due: they are spread over the frame that follows."""
        assert self.heard is not None, "an action opens at a frame"
        done = actions_per_frame - self.actions_left
        return self.heard.due_s + FRAME_S * (done + 1) / actions_per_frame
