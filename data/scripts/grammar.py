"""Phrasings as data: `(can|could) you [please] book a demo with {person}`.

    (a|b)            one of them
    [a]              a or nothing
    {slot}           the slot's value, as it is spoken
    {slot=value|a}   the words `a`, which say that the slot has this value

They nest, except inside braces. `(`, `)`, `[`, `]`, `{`, `}` and `|` are never spoken.
"""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(r"\{[^{}]*\}|[()\[\]|]|[^\s(){}\[\]|]+|\s+|[{}]")
_SLOT = re.compile(r"\{(\w+)(?:=([^|{}]+)\|([^|{}]+))?\}")


class Part(NamedTuple):
    """Words of a phrasing: plain ones, or those that say a slot's value.

    `text` is empty where the value is yet to be spoken; `value` is empty for plain words and for
    whatever value the slot is going to have.
    """

    text: str
    slot: str = ""
    value: str = ""


Phrasing = tuple[Part, ...]


def phrasings(text: str) -> Iterator[Phrasing]:
    """Every phrasing of a template; raises ValueError where its brackets do not match."""
    tokens = [token for token in _TOKEN.findall(text) if not token.isspace()]
    found, rest = _choices(tokens, text)
    if rest:
        raise ValueError(f"template {text!r}: {rest[0]!r} closes nothing")
    yield from found


def skeleton(phrasing: Phrasing) -> str:
    """The phrasing without its values: what makes two phrasings the same."""
    return " ".join(part.text or f"{{{part.slot}}}" for part in phrasing)


def _choices(tokens: list[str], text: str) -> tuple[list[Phrasing], list[str]]:
    """The alternatives up to what closes them, and the tokens from there on."""
    found: list[Phrasing] = []
    sequence: list[list[Phrasing]] = []
    while tokens and tokens[0] not in (")", "]"):
        token, tokens = tokens[0], tokens[1:]
        if token == "|":
            found += _joined(sequence)
            sequence = []
        elif token in ("(", "["):
            inner, tokens = _choices(tokens, text)
            closing = {"(": ")", "[": "]"}[token]
            if not tokens or tokens[0] != closing:
                raise ValueError(f"template {text!r}: {token!r} is not closed by {closing!r}")
            tokens = tokens[1:]
            sequence.append([*inner, ()] if token == "[" else inner)
        else:
            sequence.append([(_part(token, text),)])
    return found + _joined(sequence), tokens


def _joined(sequence: list[list[Phrasing]]) -> list[Phrasing]:
    return [tuple(itertools.chain(*choice)) for choice in itertools.product(*sequence)]


def _part(token: str, text: str) -> Part:
    if token[0] not in "{}":
        return Part(token)
    match = _SLOT.fullmatch(token)
    if match is None:
        raise ValueError(f"template {text!r}: {token!r} must be {{slot}} or {{slot=value|words}}")
    slot, value, words = match.groups()
    return Part(words or "", slot, value or "")
