"""The caller alone, who reads to an agent that writes down: to hear words, not to guess sentences.

A line is an everyday sentence, or words of the domain's calls in any order, or common words in any
order. Who learns from calls alone soon knows their few thousand sentences by heart, and hears them
in everything.
"""

import functools
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.corpus import check_voices
from data.dialogue import USER, Dialogue
from data.line import LineShares, over_line
from data.monologues import one_by_one
from data.render import render
from data.scripts.compose import compose, draw_scenes
from data.scripts.domain import load_domain
from data.scripts.script import Said
from data.scripts.turn import Piece, Turn
from data.sentences import Split, sentences
from data.voices.say import licence_of

ROLE = "You take dictation. Write down what is said, and say nothing."
_GAP_S = (0.3, 1.2)  # of silence between lines
_WORDS = (3, 9)  # of a line of words in any order


@dataclass(frozen=True)
class DictationCorpus:
    """What `python -m data.synthesize` makes of a domain's callers; `user_voices` and `styles` are
    weights, `user_speeds` is as in `DialogueCorpus`.

    Raises ValueError where there is no such domain or where a held-out or reserved voice speaks.
    """

    domain: str
    split: Split
    user_voices: Mapping[str, float]
    heldout_voices: tuple[str, ...]
    styles: Mapping[str, float]
    lines: LineShares
    user_speeds: tuple[float, float] = (0.88, 1.14)
    turns: int = 10
    shard_minutes: float = 15.0
    with_latents: bool = True
    hours: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        load_domain(self.domain)
        check_voices({*self.user_voices}, self.heldout_voices)
        for name in ("turns", "shard_minutes", "hours"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)}: must be more than 0")

    @property
    def shards(self) -> int:
        """How many shards hold `hours`."""
        return -int(-self.hours * 60 // self.shard_minutes)

    def dialogue(self, shard: int, number: int) -> Dialogue:
        """One dictation, in one voice and one style, over one line."""
        name = f"dictation-{self.domain}-{self.seed}-{shard:05}-{number:03}"
        rng = random.Random(name)
        voice, style = (
            rng.choices([*weights], [*weights.values()])[0]
            for weights in (self.user_voices, self.styles)
        )
        factor = round(rng.uniform(*self.user_speeds), 3)
        turns = itertools.islice(self._turns(name, rng), self.turns)
        placed, end_s = one_by_one(turns, USER, voice, style, _GAP_S, rng, factor)
        spoken = Dialogue(
            name,
            render(placed, (), end_s),
            ((), tuple(word for one in placed for word in one.words())),
            source=f"{self.domain} dictation, {voice}",
            licence=licence_of(voice),
            spells=tuple(one.spell for one in placed),
            system=ROLE,
        )
        line_rng = np.random.default_rng(rng.getrandbits(64))
        return over_line(spoken, self.lines.draw(line_rng), line_rng)

    def _turns(self, name: str, rng: random.Random) -> Iterator[Turn]:
        everyday = sentences(self.split, name)
        words = self._words(rng)
        while True:
            yield _turn(next(everyday).split())
            yield _turn(itertools.islice(words, rng.randint(*_WORDS)))
            yield _turn(rng.choices(_common_words(), k=rng.randint(*_WORDS)))

    def _words(self, rng: random.Random) -> Iterator[str]:
        """Those of both sides of one call after another, in any order and without punctuation."""
        domain = load_domain(self.domain)
        while True:
            script = compose(domain, self.split, draw_scenes(domain, 2, rng), rng)
            said = [step.turn.text for step in script.steps if isinstance(step, Said)]
            words = [word.strip(",.?!-") for word in " ".join(said).split()]
            words = [word for word in words if word]
            rng.shuffle(words)
            yield from words


@functools.cache
def _common_words() -> list[str]:
    return Path(__file__).with_name("common_words.txt").read_text().split()


def _turn(words: Iterator[str] | list[str]) -> Turn:
    return Turn(tuple(Piece(word) for word in words))
