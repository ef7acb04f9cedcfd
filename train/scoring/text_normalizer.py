"""One spelling for what was said, so that word errors count hearing and not writing.

Whisper's own normaliser (case, punctuation, contractions, numbers), then digit by digit: "order
four eight one", "order 481" and "order 4 81" are all `order 4 8 1`; "oh" is 0.
"""

import functools
import re

from transformers.models.whisper.english_normalizer import EnglishTextNormalizer


@functools.cache
def _whisper_normalizer() -> EnglishTextNormalizer:
    return EnglishTextNormalizer({})  # no table of British spellings


def normalize(text: str) -> str:
    """Text -> words of small letters and single digits, parted by single spaces."""
    text = re.sub(r"\b[Oo]'(?=[A-Za-z])", "o", text)  # o'clock and O'Brien hold no zero
    text = _whisper_normalizer()(text)
    text = re.sub(r"\b([ap])\.? ?m\b", r"\1m", text)  # 3 a.m., 3 a m
    text = re.sub(r"\bcannot\b", "can not", text)
    text = re.sub(r"\bones?\b", "1", text)  # the only number it leaves as a word
    text = re.sub(r"(\d)[,.:](?=\d)", r"\1 ", text)
    tokens = re.findall(r"\d+(?:st|nd|rd|th)\b|\d|[a-z']+", text)
    return " ".join(tokens)
