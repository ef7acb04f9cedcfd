"""When a caller's frames go to the engine: at the pace of his call, whatever the network does.

A frame goes when it is due; where frames were late, those behind them may come a little sooner.
Where a client sends nothing, silence is heard, so that the agent can go on speaking. Who sends
faster than he speaks is heard at the pace of speech, his silences left out until he has caught up.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from model.frame import FRAME_S, FRAME_SIZE
from serve.gateway.audio import Incoming

SILENCE = bytes(2 * FRAME_SIZE)
_QUIET = 32  # int16: -60 dB of full scale


@dataclass(frozen=True)
class PaceConfig:
    """A frame may be `patience_s` late before silence stands in for it, and after that as many may
    come at once as fit into `catch_up_s`. Silent frames are skipped while more than `behind_s`
    waits; of a client who sends more than `most_s` ahead the rest is dropped."""

    patience_s: float = 0.16
    catch_up_s: float = 0.16
    behind_s: float = 0.4
    most_s: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            assert value > 0, f"{name} {value} must be positive"
        assert self.behind_s < self.most_s, f"behind_s {self.behind_s} must be below most_s"


class Due(NamedTuple):
    """A frame for the engine: int16 [1920] little-endian. `sent` is one of the client's, that could
    have gone since `since_s`; what was `filled` holds silence for what had not come."""

    pcm: bytes
    kind: Literal["sent", "filled"]
    since_s: float


class Pace:
    """The frames of one caller; every time is of one monotonic clock, in seconds."""

    def __init__(self, config: PaceConfig, incoming: Incoming) -> None:
        self.config, self.incoming = config, incoming
        self.is_muted = False
        self._frames: deque[tuple[bytes, float]] = deque()  # each, and when it was whole
        self._due_s: float | None = None  # of the next frame; None: not begun

    @property
    def has_begun(self) -> bool:
        """Whether frames go."""
        return self._due_s is not None

    @property
    def waiting_s(self) -> float:
        """How much of the client's sound there is, in whole frames."""
        return len(self._frames) * FRAME_S

    def begin(self, now_s: float) -> None:
        """The first frame is due now."""
        if self._due_s is None:
            self._due_s = now_s

    def say(self, audio: bytes, now_s: float) -> bool:
        """Sound of the client's. False: it was dropped, since too much waits."""
        self.begin(now_s)
        if self.waiting_s > self.config.most_s:
            return False
        self._frames.extend((pcm, now_s) for pcm in self.incoming.feed(audio))
        return True

    def clear(self) -> None:
        """Forgets what waits."""
        self._frames.clear()
        self.incoming.fill()

    def skip_silence(self) -> int:
        """Leaves out silent frames of a client who is behind; how many."""
        skipped = 0
        while self.waiting_s > self.config.behind_s and _is_silent(self._frames[0][0]):
            self._frames.popleft()
            skipped += 1
        return skipped

    def wait_s(self, now_s: float) -> float | None:
        """How long until `take` has a frame if nothing comes meanwhile; None before it began."""
        if self._due_s is None:
            return None
        late_s = 0.0 if self._frames else self.config.patience_s
        return max(0.0, self._due_s + late_s - now_s)

    def take(self, now_s: float) -> Due | None:
        """The frame that is due, if one is."""
        if self._due_s is None or self.wait_s(now_s):
            return None
        if self._frames:
            pcm, whole_s = self._frames.popleft()
            due = Due(pcm, "sent", max(whole_s, self._due_s))
        else:
            due = Due(self.incoming.fill(), "filled", now_s)
        earliest_s = now_s - self.config.catch_up_s - self.config.patience_s
        self._due_s = max(self._due_s, earliest_s) + FRAME_S
        return due._replace(pcm=SILENCE) if self.is_muted else due


def _is_silent(pcm: bytes) -> bool:
    return bool(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)).max() < _QUIET)
