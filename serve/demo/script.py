"""A scripted caller: lines that he says when their moment has come, and what each is to bring."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dacite
import numpy as np
import yaml
from numpy.typing import NDArray

from data.voices.say import say
from data.voices.style import NEUTRAL
from data.voices.utterance import SAMPLE_RATE_HZ, Utterance
from model.frame import FRAME_S, FRAME_SIZE
from train.scoring.patience import MOST_FRAMES, is_quiet

_QUIET_FRAMES = 12  # of the agent's, after which it is his turn
_AFTER = round(0.1 * SAMPLE_RATE_HZ)  # of silence that stays of a line's


@dataclass(frozen=True)
class Line:
    """`say` in a `style`, when the agent has ended, or `over_s` after it has begun to speak.

    `calls` is the tool that must be called then, with these `arguments`; `after` the last word of
    the line that it needs. `about` says what it shows.
    """

    about: str
    say: str
    style: str = NEUTRAL
    over_s: float | None = None
    calls: str = ""
    arguments: Mapping[str, str] | None = None
    after: str = ""

    def __post_init__(self) -> None:
        if self.after and self.after not in map(bare, self.say.split()):
            raise ValueError(f"after is {self.after!r}: must be a word of {self.say!r}")
        if bool(self.calls) != bool(self.after):
            raise ValueError(f"{self.say!r}: calls and after must be given together")


def bare(word: str) -> str:
    """Without the punctuation behind it."""
    return word.rstrip(",.?!")


@dataclass(frozen=True)
class CallScript:
    """What one `voice` says in a call."""

    voice: str
    lines: list[Line]


def read_script(path: Path) -> CallScript:
    """Raises ValueError where `path` holds none."""
    try:
        read: Any = yaml.safe_load(path.read_text())
        return dacite.from_dict(CallScript, read, dacite.Config(strict=True))
    except (OSError, yaml.YAMLError, dacite.DaciteError, AttributeError) as error:
        raise ValueError(f"call is {str(path)!r}: no script of a call ({error})") from error


class ScriptedCaller:
    """Says a script's lines; `begun_s` is when each began, on the call's clock."""

    def __init__(self, script: CallScript) -> None:
        """Raises FileNotFoundError where the voice is not installed."""
        self.script = script
        self.spoken = [say(line.say, script.voice, line.style) for line in script.lines]
        self.begun_s: list[float] = []
        self._frame = 0
        self._left = np.zeros((0, FRAME_SIZE), np.float32)  # of the line that is said
        self._since = 0  # frames of the agent's that are older than the last line's end

    def next_frame(self, heard: list[NDArray[np.float32]]) -> NDArray[np.float32] | None:
        """80 ms of his, float32 [1920]; None once he has said all and had his answer."""
        if not len(self._left) and self._is_due(heard[self._since :]):
            if len(self.begun_s) == len(self.spoken):
                return None
            self._left = _frames(self.spoken[len(self.begun_s)])
            self.begun_s.append(self._frame * FRAME_S)
        self._frame += 1
        if not len(self._left):
            return np.zeros(FRAME_SIZE, np.float32)
        said, self._left = self._left[0], self._left[1:]
        self._since = len(heard)
        return said

    def _is_due(self, heard: list[NDArray[np.float32]]) -> bool:
        """Whether it is time for the next line, or for hanging up."""
        loud = [not is_quiet(frame) for frame in heard]
        place = len(self.begun_s)
        over_s = self.script.lines[place].over_s if place < len(self.script.lines) else None
        if over_s is not None:
            return sum(loud) * FRAME_S >= over_s or len(loud) >= MOST_FRAMES
        has_ended = any(loud) and not any(loud[-_QUIET_FRAMES:])
        return has_ended or len(loud) >= MOST_FRAMES


def _frames(spoken: Utterance) -> NDArray[np.float32]:
    """float32 [n, 1920]."""
    audio = spoken.audio[: round(spoken.words[-1].end_s * SAMPLE_RATE_HZ) + _AFTER]
    return np.pad(audio, (0, -len(audio) % FRAME_SIZE)).reshape(-1, FRAME_SIZE)
