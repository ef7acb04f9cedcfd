"""The agent alone: turns out of many scripts and everyday sentences, for the speech transformer.

A monologue is a dialogue in which nobody answers, so it is made, stored and read as one. Half of
what is said comes from a domain, with values drawn afresh, so that names and digits are balanced.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from data.corpus import check_voices
from data.dialogue import AGENT, Dialogue
from data.render import Placed, render
from data.scripts.compose import compose, draw_scenes
from data.scripts.domain import load_domain
from data.scripts.script import Said
from data.scripts.spoken_turn import speak
from data.scripts.turn import Piece, Turn
from data.sentences import Split, sentences
from data.voices.say import licence_of
from data.voices.utterance import SAMPLE_RATE_HZ

_GAP_S = (0.4, 0.8)  # of silence between turns
_MOST_SENTENCES = 2  # of everyday ones in a turn


@dataclass(frozen=True)
class MonologueCorpus:
    """What `python -m data.synthesize` makes of a domain's agent; `styles` are weights.

    Raises ValueError where there is no such domain or where a held-out or reserved voice speaks.
    """

    domain: str
    split: Split
    agent_voices: tuple[str, ...]
    heldout_voices: tuple[str, ...]
    styles: Mapping[str, float]
    turns: int = 12
    shard_minutes: float = 15.0
    with_latents: bool = False
    hours: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        load_domain(self.domain)
        check_voices(self.agent_voices, self.heldout_voices)
        for name in ("turns", "shard_minutes", "hours"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)}: must be more than 0")

    @property
    def shards(self) -> int:
        """How many shards hold `hours`."""
        return -int(-self.hours * 60 // self.shard_minutes)

    def dialogue(self, shard: int, number: int) -> Dialogue:
        """One monologue, in one voice and one style."""
        name = f"monologue-{self.domain}-{self.seed}-{shard:05}-{number:03}"
        rng = random.Random(name)
        voice = rng.choice(self.agent_voices)
        style = rng.choices([*self.styles], [*self.styles.values()])[0]
        turns = itertools.islice(self._turns(name, rng), self.turns)
        placed, end_s = one_by_one(turns, AGENT, voice, style, _GAP_S, rng)
        words = tuple(word for one in placed for word in one.words())
        return Dialogue(
            name,
            render(placed, (), end_s),
            (words, ()),
            source=f"{self.domain} monologue, {voice}",
            licence=licence_of(voice),
            spells=tuple(one.spell for one in placed),
        )

    def _turns(self, name: str, rng: random.Random) -> Iterator[Turn]:
        everyday = sentences(self.split, name)
        scripted = scripted_turns(self.domain, self.split, rng)
        while True:
            yield next(scripted)
            said = [next(everyday) for _ in range(rng.randint(1, _MOST_SENTENCES))]
            yield Turn(tuple(Piece(word) for word in " ".join(said).split()))


def one_by_one(
    turns: Iterable[Turn],
    side: int,
    voice: str,
    style: str,
    gap_s: tuple[float, float],
    rng: random.Random,
    factor: float = 1.0,
) -> tuple[list[Placed], float]:
    """One side's turns with silence of `gap_s` before, between and behind them, and when it ends;
    `factor` as in `speak`."""
    placed: list[Placed] = []
    end_s = rng.uniform(*gap_s)
    for turn in turns:
        spoken = speak(turn, voice, style, factor)
        placed.append(Placed(side, spoken, end_s, style=style))
        # Whatever silence the voice leaves at the end counts: the next turn is on no grid.
        end_s += len(spoken.utterance.audio) / SAMPLE_RATE_HZ + rng.uniform(*gap_s)
    return placed, end_s


def scripted_turns(domain: str, split: Split, rng: random.Random) -> Iterator[Turn]:
    """Without end: what the agent says in one script after another, in any order."""
    described = load_domain(domain)
    while True:
        script = compose(described, split, draw_scenes(described, 3, rng), rng)
        steps = [step for step in script.steps if isinstance(step, Said)]
        turns = [step.turn for step in steps if step.side == "agent"]
        rng.shuffle(turns)
        yield from turns[:3]
