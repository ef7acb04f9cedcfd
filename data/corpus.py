"""The codec's corpus: which voice speaks which sentence, and the recordings beside them."""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data.sentences import Split, sentences
from data.voices.store import is_made, phrase_path

RESERVED_VOICES = frozenset(
    f"kokoro:{name}" for name in ("am_liam", "am_onyx", "bf_alice", "bm_daniel", "bm_fable")
)


@dataclass(frozen=True)
class CorpusConfig:
    """Voices and how much each says; `train_sentences` is sentences a voice.

    Raises ValueError where a held-out voice (alone or in a blend) also trains, or a reserved voice
    is named at all.
    """

    agent_voices: tuple[str, ...]
    heldout_voices: tuple[str, ...]
    train_sentences: dict[str, int]
    test_sentences_per_voice: int

    def __post_init__(self) -> None:
        check_voices(self.train_sentences, self.heldout_voices)
        if missing := {*self.agent_voices} - {*self.train_sentences}:
            raise ValueError(f"agent_voices {sorted(missing)} need train_sentences")


def check_voices(training: Iterable[str], heldout: Iterable[str]) -> None:
    """Raises ValueError where a held-out voice (alone or in a blend) also trains, or a reserved one
    is named at all."""
    trained = {part for voice in training for part in _parts(voice)}
    if leaked := trained & {*heldout}:
        raise ValueError(f"heldout_voices {sorted(leaked)} also train")
    if reserved := (trained | {*heldout}) & RESERVED_VOICES:
        raise ValueError(f"reserved voices must not be used: {sorted(reserved)}")


def _parts(voice: str) -> list[str]:
    """`kokoro:a+b` is a blend of two voices; espeak's `+` names a variant of its own."""
    engine, _, name = voice.partition(":")
    return [f"{engine}:{part}" for part in name.split("+")] if engine == "kokoro" else [voice]


class Line(NamedTuple):
    """One sentence for one voice."""

    text: str
    voice: str
    split: Split


def plan(config: CorpusConfig) -> Iterator[Line]:
    """Every line of the corpus; voices take turns, so that a part of it is balanced too."""
    columns = [
        [Line(text, voice, "train") for text in itertools.islice(sentences("train", voice), count)]
        for voice, count in config.train_sentences.items()
    ] + [
        [
            Line(text, voice, "test")
            for text in itertools.islice(
                sentences("test", f"test {voice}"), config.test_sentences_per_voice
            )
        ]
        for voice in (*config.agent_voices, *config.heldout_voices)
    ]
    rounds = max(map(len, columns))
    # A column of n lines is spread evenly over all rounds.
    spread = [
        (index * rounds / len(column), number, line)
        for number, column in enumerate(columns)
        for index, line in enumerate(column)
    ]
    yield from (line for _, _, line in sorted(spread, key=lambda row: row[:2]))


def made(config: CorpusConfig, split: Split) -> list[tuple[Line, Path]]:
    """The lines of a split that have been spoken so far, with their audio files."""
    lines = [(line, phrase_path(line.text, line.voice)) for line in plan(config)]
    return [(line, path) for line, path in lines if line.split == split and is_made(path)]


def read_phones(path: Path) -> list[tuple[str, float, float]]:
    """(phone, start, end) in seconds of a cached phrase; empty where its engine gives none."""
    return [tuple(row) for row in json.loads(path.with_suffix(".json").read_text())["phones"]]
