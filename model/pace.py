"""How fast text can be said: a word is not to come before those ahead of it are over."""

from typing import NamedTuple

import torch
from torch import Tensor

from model.tokens import SPECIAL_TOKENS, DialogueTokenizer

# Of a quick speaker: about one word in three is said faster (docs/lab-notes.md, 2026-11-26).
_FRAMES_A_LETTER, _FRAMES_A_STOP = 0.75, 3
_STOPS = frozenset(",.?!")


class Pace(NamedTuple):
    """Of every token of a vocabulary [V]: `least_frames` float32 that it takes to say it,
    `begins_word` bool."""

    least_frames: Tensor
    begins_word: Tensor


def pace_of(tokenizer: DialogueTokenizer, vocabulary: int) -> Pace:
    """The pace of a tokenizer's tokens; those behind them up to `vocabulary` say nothing."""
    pace = Pace(torch.zeros(vocabulary), torch.zeros(vocabulary).bool())
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        if text not in SPECIAL_TOKENS:
            pace.least_frames[token] = _least_frames(text)
            pace.begins_word[token] = text.startswith(" ")
    return pace


def _least_frames(text: str) -> float:
    letters = sum(letter.isalnum() for letter in text)
    return letters * _FRAMES_A_LETTER + _FRAMES_A_STOP * bool(_STOPS & {*text})
