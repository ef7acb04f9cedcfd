"""Sentences to speak: a random walk through the grammar of sentences.yaml.

A sentence belongs to the training or to the test set by the hash of its text, so no test sentence
is ever spoken in training, in any voice.
"""

import functools
import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml

Split = Literal["train", "test"]
_TEST_SHARE = 0.1


def split_of(key: str, test_share: float = _TEST_SHARE) -> Split:
    """Which of the splits a sentence, a phrasing or a value belongs to, for good."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return "test" if number < test_share * 2**32 else "train"


@functools.cache
def _grammar() -> dict[str, list[str]]:
    return yaml.safe_load(Path(__file__).with_name("sentences.yaml").read_text())


def _expand(text: str, rng: random.Random) -> str:
    while match := re.search(r"\{(\w+)\}", text):
        text = text[: match.start()] + str(rng.choice(_grammar()[match[1]])) + text[match.end() :]
    return text


def sentences(split: Split, seed: str) -> Iterator[str]:
    """Endless distinct sentences of a split; the same seed gives the same ones."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        text = _expand(rng.choice(_grammar()["templates"]), rng)
        text = text[0].upper() + text[1:]
        if split_of(text) == split and text not in seen:
            seen.add(text)
            yield text
