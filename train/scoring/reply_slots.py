"""Whether a reply names what came back: the words of its slots, however the reply is phrased."""

import functools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data.scripts.domain import Domain, load_domain
from data.scripts.grammar import Phrasing
from train.scoring.text_normalizer import normalize

_DRAWS = 32  # that surely bring up each way to say a value

Words = list[str]


class SlotWords(NamedTuple):
    """Words of slots that are right, and that should be there."""

    right: int
    words: int

    @property
    def is_whole(self) -> bool:
        """Whether all are right."""
        return self.right == self.words


def slot_words(domain: Domain, tool: str, result: Mapping[str, Any], said: str) -> SlotWords:
    """Judges what was `said` of a result (the arguments and what was found).

    Which slots it should name is told by the phrasing of the domain that it is closest to: twice
    the words that they have in common over all words of both.
    """
    reply = normalize(said).split()
    values = _spoken(domain, tool, result)
    counts = {name: _best(forms, reply) for name, forms in values.items()}
    found = [_against(phrasing, counts, reply) for phrasing in domain.replies[tool].say]
    return max(found, key=lambda one: (one[0], one[1].right - one[1].words))[1]


def _against(
    phrasing: Phrasing, counts: Mapping[str, SlotWords], reply: Words
) -> tuple[float, SlotWords]:
    """(how close the reply is to a phrasing, its slots' words)."""
    plain = normalize(" ".join(part.text for part in phrasing if not part.slot)).split()
    named = [counts[part.slot] for part in phrasing if part.slot]
    right, words = sum(one.right for one in named), sum(one.words for one in named)
    common = (Counter(plain) & Counter(reply)).total() + right
    return 2 * common / (len(plain) + words + len(reply)), SlotWords(right, words)


def _best(forms: Sequence[Words], reply: Words) -> SlotWords:
    """The way to say a value that the reply is closest to."""
    counts = [SlotWords(_heard(form, reply), len(form)) for form in forms]
    return max(counts, key=lambda count: (count.right / count.words, count.right, -count.words))


def _heard(form: Words, reply: Words) -> int:
    """How many of these words stand together in the reply, in order; one other may be between."""
    size = len(form) + 1
    places = range(max(len(reply) - size, 0) + 1)
    return max(_in_order(form, reply[place : place + size]) for place in places)


def _in_order(one: Words, other: Words) -> int:
    """The length of the longest common subsequence."""
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, heard in enumerate(other, 1):
            kept = lengths[place]
            lengths[place] = before + 1 if heard == word else max(kept, lengths[place - 1])
            before = kept
    return lengths[-1]


def _spoken(domain: Domain, tool: str, result: Mapping[str, Any]) -> dict[str, tuple[Words, ...]]:
    """How each argument and each field of a result may be said, normalised."""
    slots = {name: domain.slots[slot] for name, slot in domain.tools[tool].slots.items()}
    slots |= {
        name: domain.slots[slot.format(**result)]
        for name, slot in domain.replies[tool].results.items()
    }
    return {
        name: tuple(form.split() for form in _forms(domain.name, slots[name].name, value))
        for name, value in result.items()
    }


@functools.cache
def _forms(domain: str, slot: str, value: str) -> tuple[str, ...]:
    known = load_domain(domain).slots[slot]
    said = {normalize(known.say(value, random.Random(draw))) for draw in range(_DRAWS)}
    return tuple(sorted(said))
