"""What lies between a caller and us: his room, noise, our own echo, a telephone line."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from data.augment import reverberate, telephone
from data.dialogue import USER, Dialogue
from data.sounds import room_noise
from data.voices.utterance import SAMPLE_RATE_HZ
from model.frame import FRAME_SIZE

_ECHO_DELAY_S = (0.05, 0.3)
_REVERBERATION_S = (0.15, 0.6)
_ECHO_DB = (-40.0, -15.0)
_USUAL_LOUDNESS = 0.05  # of speech, 26 dB below full scale: where the user says nothing


@dataclass(frozen=True)
class Line:
    """Effects on the user's channel, in the order in which they happen; None and 0: not there."""

    reverberation_s: float = 0.0  # time in which an echo of the room falls by 60 dB
    echo_db: float | None = None  # the agent's own voice, against what it said
    noise_db: float | None = None  # the user's speech, where he speaks, over the noise
    is_telephone: bool = False  # 8 kHz mu-law

    def __post_init__(self) -> None:
        if self.reverberation_s < 0:
            raise ValueError(f"reverberation_s {self.reverberation_s}: must not be negative")
        if self.echo_db is not None and self.echo_db > 0:
            raise ValueError(f"echo_db {self.echo_db}: must not be louder than the agent")


@dataclass(frozen=True)
class LineShares:
    """How often callers have which line: shares of all calls; noise by its level in dB."""

    telephone: float = 0.0
    reverberation: float = 0.0
    echo: float = 0.0
    noise_db: Mapping[float, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("telephone", "reverberation", "echo"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be a share in 0..1")
        if not 0 <= sum(self.noise_db.values()) <= 1:
            raise ValueError(f"noise_db {dict(self.noise_db)}: shares must add up to 1 at most")

    def draw(self, rng: np.random.Generator) -> Line:
        """A caller's line."""
        levels = [*self.noise_db, None]
        quiet = 1 - sum(self.noise_db.values())
        level = levels[rng.choice(len(levels), p=[*self.noise_db.values(), quiet])]
        return Line(
            rng.uniform(*_REVERBERATION_S) if rng.random() < self.reverberation else 0.0,
            rng.uniform(*_ECHO_DB) if rng.random() < self.echo else None,
            level,
            bool(rng.random() < self.telephone),
        )


def over_line(dialogue: Dialogue, line: Line, rng: np.random.Generator) -> Dialogue:
    """The dialogue as we hear it over a line; the agent's channel and all labels stay."""
    agent, user = dialogue.audio
    if line.reverberation_s:
        user = reverberate(user, line.reverberation_s, rng)
    if line.echo_db is not None:
        delay = round(rng.uniform(*_ECHO_DELAY_S) * SAMPLE_RATE_HZ)
        echo = np.pad(agent, (delay, 0))[: len(agent)]
        user = user + echo * np.float32(10 ** (line.echo_db / 20))
    if line.noise_db is not None:
        loudness = _loudness(dialogue) * 10 ** (-line.noise_db / 20)
        user = user + room_noise(len(user), rng) * np.float32(loudness)
    if line.is_telephone:
        user = telephone(user)
    audio = np.stack([agent, user.clip(-1, 1)]).astype(np.float32)  # as AGENT and USER number them
    return dataclasses.replace(dialogue, audio=audio)


def _loudness(dialogue: Dialogue) -> float:
    """Root mean square of the user's channel in the frames in which he speaks."""
    is_spoken = np.repeat(dialogue.is_speaking()[USER], FRAME_SIZE)[: dialogue.audio.shape[1]]
    if not is_spoken.any():
        return _USUAL_LOUDNESS
    return float(np.sqrt(np.mean(np.square(dialogue.audio[USER, is_spoken]))))
