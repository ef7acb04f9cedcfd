"""Dialogues without sound, made on the fly from scripts: they teach to copy and to act.

Rows are those of the shards, with zeros for sound; time is squeezed, since nothing is to be heard.
In some of them every value that people or tools may name freely is one of any words, so that a name
cannot be guessed from having been named before: it has to be copied. Some of the caller's other
words are wrong, as they will be where they have to be heard. No argument is told by a style of
voice: where there is none it could only be guessed.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.dialogue import AGENT, USER, Action, Dialogue
from data.perform import perform
from data.scripts import spoken
from data.scripts.compose import compose, draw_scenes
from data.scripts.domain import Domain, load_domain
from data.scripts.script import Said, Script
from data.scripts.slots import Slot
from data.scripts.turn import Piece
from data.sentences import Split
from data.timeline import Cast
from data.voices.silent import SILENT
from data.voices.utterance import Word
from model.tokens import DialogueTokenizer, compact_json

_VALUES = 2000  # of a slot that may have any, in one process
_NEW_WORDS = 0.2  # share of words that are no token: two of them joined
_MORE_WORDS = 0.3  # chance of one more word in a value, where there may be several
_DIGITS = (3, 8)
_FEW_DIGITS = 3  # kinds of them in every second number: each follows several others
_WAYS = (1, 2, 1)  # of saying them: pairs, of which two digits are one word, are the harder to copy
_WORD = re.compile("[a-z]{3,}")
_SHORT_WORDS = 4  # in what is always heard right, as a yes or a no is


@dataclass(frozen=True)
class TextDialoguesConfig:
    """`domains` are weights. `any_values` is the share of dialogues that name any words and numbers
    of any length; `misheard` is the share of the caller's words, of those that name no value, that
    are any others; times are multiplied by `time_scale`. `codebooks` and `latent_dim` are those of
    the shards beside which they are trained.
    """

    domains: Mapping[str, float]
    codebooks: int
    latent_dim: int
    any_values: float = 0.5
    misheard: float = 0.0
    time_scale: float = 0.4
    most_scenes: int = 4

    def __post_init__(self) -> None:
        for name in self.domains:
            load_domain(name)
        if not self.domains or min(self.domains.values()) <= 0:
            raise ValueError(f"domains {dict(self.domains)}: must be some, with weights above 0")
        if not 0 <= self.any_values <= 1 or not 0 <= self.misheard <= 1:
            raise ValueError("any_values and misheard must be in 0..1")
        if not 0 < self.time_scale <= 1:
            raise ValueError(f"time_scale {self.time_scale}: must be in 0..1, not 0")
        if min(self.codebooks, self.most_scenes) < 1 or self.latent_dim < 0:
            raise ValueError("codebooks and most_scenes must be at least 1, latent_dim 0")


class TextDialogues:
    """Makes rows of one split; a row depends on its name alone."""

    def __init__(self, config: TextDialoguesConfig, split: Split, words: Sequence[str]) -> None:
        """`words` are those that any value is made of; raises ValueError where one is needed and
        there is none."""
        self.config = config
        self.split: Split = split
        if not words and (config.any_values or config.misheard):
            raise ValueError("any_values and misheard: there must be words, where they are not 0")
        self._words = words
        self._domains = {
            name: dataclasses.replace(load_domain(name), voiced={}) for name in config.domains
        }
        self._with_any = {
            name: _anything(domain, words) for name, domain in self._domains.items() if words
        }

    def row(self, name: str) -> dict[str, Any]:
        """A row of `data.shards.features`."""
        config, rng = self.config, random.Random(name)
        domain = rng.choices([*config.domains], [*config.domains.values()])[0]
        domains = self._with_any if rng.random() < config.any_values else self._domains
        return text_row(self._dialogue(domains[domain], name, rng), config)

    def _dialogue(self, domain: Domain, name: str, rng: random.Random) -> Dialogue:
        scenes = draw_scenes(domain, rng.randint(1, self.config.most_scenes), rng)
        script = self._misheard(compose(domain, self.split, scenes, rng), rng)
        return perform(script, Cast(SILENT, SILENT, SILENT), name, rng)

    def _misheard(self, script: Script, rng: random.Random) -> Script:
        def heard(piece: Piece) -> Piece:
            if piece.slot or rng.random() >= self.config.misheard:
                return piece
            return piece._replace(text=rng.choice(self._words))

        def step_of(step: Any) -> Any:
            if not isinstance(step, Said) or step.side != "user":
                return step
            if len(step.turn.pieces) < _SHORT_WORDS:
                return step
            turn = dataclasses.replace(step.turn, pieces=tuple(map(heard, step.turn.pieces)))
            return dataclasses.replace(step, turn=turn)

        return dataclasses.replace(script, steps=tuple(map(step_of, script.steps)))


def vocabulary_words(tokenizer: DialogueTokenizer) -> list[str]:
    """Small-letter words that are a token each, in the order of the alphabet."""
    tokens = (tokenizer.decode([number]).strip() for number in range(len(tokenizer)))
    return sorted({token for token in tokens if _WORD.fullmatch(token)})


def text_row(dialogue: Dialogue, config: TextDialoguesConfig) -> dict[str, Any]:
    """A dialogue as a row without sound, its time squeezed."""
    scale = config.time_scale
    frames = max(1, int(dialogue.frames * scale))
    codes = np.zeros((frames, config.codebooks), np.int64)
    # The floor in the middle of each frame.
    at = ((np.arange(frames) + 0.5) / scale).astype(int).clip(max=dialogue.frames - 1)
    return {
        "name": dialogue.name,
        "frames": frames,
        "system": dialogue.system,
        "tools": dialogue.tools,
        "agent_words": _words(dialogue.words[AGENT], scale),
        "agent_unsaid_words": _words(dialogue.unsaid, scale),
        "user_words": _words(dialogue.words[USER], scale),
        "agent_turns": [
            {"start_s": spell.start_s * scale, "end_s": spell.end_s * scale, "style": spell.style}
            for spell in dialogue.spells
            if spell.side == AGENT
        ],
        "floor": dialogue.floor()[at],
        "actions": [_action(action, scale) for action in dialogue.actions],
        "agent_codes": codes,
        "user_codes": codes,
        "user_latents": np.zeros((frames, config.latent_dim), np.float32),
    }


def _words(words: Sequence[Word], scale: float) -> list[dict[str, Any]]:
    return [
        {"text": word.text, "start_s": word.start_s * scale, "end_s": word.end_s * scale}
        for word in words
    ]


def _action(action: Action, scale: float) -> dict[str, Any]:
    return {
        "time_s": action.time_s * scale,
        "kind": action.kind,
        "number": action.number,
        "tool": action.tool,
        "arguments": compact_json(action.arguments),
    }


class _AnyDigits(Slot):
    """Digits, as many as it happens."""

    def draw(self, rng: random.Random) -> str:
        kinds = rng.sample("0123456789", rng.choice((_FEW_DIGITS, 10)))
        return "".join(rng.choice(kinds) for _ in range(rng.randint(*_DIGITS)))

    def say(self, value: str, rng: random.Random) -> str:
        return spoken.digits(value, rng, _WAYS)


def _anything(domain: Domain, words: Sequence[str]) -> Domain:
    """The domain with any value in each slot that no phrasing and no tool ties to certain ones.

    Arguments are one word, so that what was said tells how it is written; results may be more.
    """
    rng = random.Random(domain.name)
    tied = _tied(domain)
    arguments = {slot for tool in domain.tools.values() for slot in tool.slots.values()}
    slots: dict[str, Slot] = dict(domain.slots)
    for name, slot in domain.slots.items():
        if slot.digits:
            slots[name] = _AnyDigits(name, digits=slot.digits)
        elif slot.values and name not in tied:
            found = (_value(words, rng, name not in arguments) for _ in range(_VALUES))
            slots[name] = Slot(name, {value: [value] for value in found})
    return dataclasses.replace(domain, slots=slots)


def _tied(domain: Domain) -> set[str]:
    """Slots whose values stand in a phrasing, a schema or the name of another slot."""
    asking = itertools.chain(
        domain.requests.values(), domain.partials.values(), domain.mentions.values()
    )
    tied = {part.slot for found in asking for p in found for part in p if part.value}
    for tool in domain.tools.values():
        for name, schema in tool.parameters["properties"].items():
            if "enum" in schema:
                tied.add(tool.slots[name])
    return tied


def _value(words: Sequence[str], rng: random.Random, may_be_more: bool) -> str:
    value = [_word(words, rng)]
    while may_be_more and rng.random() < _MORE_WORDS:
        value.append(_word(words, rng))
    return " ".join(value)


def _word(words: Sequence[str], rng: random.Random) -> str:
    word = rng.choice(words)
    return word + rng.choice(words) if rng.random() < _NEW_WORDS else word
