"""The dialogues of an experiment: who talks to whom, over which line. Each has a number and a seed,
and is the same whenever and wherever it is made."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data.corpus import check_voices
from data.dialogue import Dialogue
from data.line import LineShares, over_line
from data.perform import perform
from data.scripts.compose import compose, draw_scenes
from data.scripts.domain import load_domain
from data.sentences import Split
from data.timeline import Cast


@dataclass(frozen=True)
class DialogueCorpus:
    """What `python -m data.synthesize` makes of a domain.

    `user_voices` are weights; `user_speeds` the range in which a caller's voice is played slower or
    faster. A dialogue has 1 to `most_scenes` scenes. Raises ValueError where there is no such
    domain, or where a held-out or reserved voice is among those that train.
    """

    domain: str
    split: Split
    agent_voices: tuple[str, ...]
    user_voices: Mapping[str, float]
    heldout_voices: tuple[str, ...]
    lines: LineShares
    user_speeds: tuple[float, float] = (0.88, 1.14)
    most_scenes: int = 4
    shard_minutes: float = 15.0
    with_latents: bool = True
    hours: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        load_domain(self.domain)
        check_voices({*self.agent_voices, *self.user_voices}, self.heldout_voices)
        if len(self.user_voices) < 2:
            raise ValueError(f"user_voices {sorted(self.user_voices)}: must be two at least")
        for name in ("most_scenes", "shard_minutes", "hours"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)}: must be more than 0")

    @property
    def shards(self) -> int:
        """How many shards hold `hours`."""
        return math.ceil(self.hours * 60 / self.shard_minutes)

    def dialogue(self, shard: int, number: int) -> Dialogue:
        """One dialogue, as it comes over the caller's line."""
        spoken, rng = self._spoken(shard, number)
        line_rng = np.random.default_rng(rng.getrandbits(64))
        return over_line(spoken, self.lines.draw(line_rng), line_rng)

    def spoken(self, shard: int, number: int) -> Dialogue:
        """The same dialogue before the line: nothing but the voices and the sounds of the room."""
        return self._spoken(shard, number)[0]

    def _spoken(self, shard: int, number: int) -> tuple[Dialogue, random.Random]:
        """The dialogue before the line, and what its line is to be drawn from."""
        name = f"{self.domain}-{self.seed}-{shard:05}-{number:03}"
        rng = random.Random(name)
        domain = load_domain(self.domain)
        scenes = draw_scenes(domain, rng.randint(1, self.most_scenes), rng)
        script = compose(domain, self.split, scenes, rng)
        voices = list(self.user_voices)
        user = rng.choices(voices, [*self.user_voices.values()])[0]
        cast = Cast(
            agent=rng.choice(self.agent_voices),
            user=user,
            other=rng.choice([voice for voice in voices if voice != user]),
            user_speed=round(rng.uniform(*self.user_speeds), 3),
        )
        return perform(script, cast, name, rng), rng
