"""What callers of the training data say, and which of it something that was heard is closest to."""

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from data.scripts.domain import Domain, load_domain, of_split, phrasing_split
from data.scripts.grammar import Phrasing
from train.cascade.values import Named, Values, words_of

ASKS, MENTIONS = "asks", "mentions"  # what a phrasing of a tool does
ANSWERS = "answers"  # it only names a value
_NEAREST = 3  # phrasings of a meaning that count
# Parts of utterances, which mean nothing alone.
_PARTS = {"story", "opener", "also", "sorry", "filler", "tail"}
_AGENTS = {
    "greeting", "only", "wait", "offer", "goodbye", "noted", "cancelled", "listening",
    "are_you_there", "unclear", "handing_over", "cannot",
}  # fmt: skip


class Meaning(NamedTuple):
    """What is said: `act` is `asks` or `mentions` (of a tool), `answers`, or an occasion of the
    domain's talk."""

    act: str
    tool: str = ""


class Match(NamedTuple):
    """How close what was heard is to phrasings of a meaning (0..1, cosine), and the values of slots
    that words of the closest ones stand for ("open": hours)."""

    meaning: Meaning
    likeness: float
    literal: Mapping[str, str]


class Entry(NamedTuple):
    """A phrasing as words, values put in by what they are of, and the values of its own words."""

    meaning: Meaning
    words: tuple[str, ...]
    literal: tuple[tuple[str, str], ...]


def shaped(words: Sequence[str], named: Sequence[Named]) -> tuple[str, ...]:
    """Words with a placeholder for each value."""
    shape: list[str] = []
    place = 0
    for one in named:
        shape += [*words[place : one.start], f"<{one.kind}>"]
        place = one.end
    return (*shape, *words[place:])


class Phrasebook:
    """Word pairs and words of the training phrasings, weighed by how few meanings have them."""

    def __init__(self, domain: Domain, values: Values) -> None:
        self.values = values
        self.entries = [*dict.fromkeys(_entries(domain, values))]
        self.words = {word for entry in self.entries for word in entry.words}
        self.meanings = [*dict.fromkeys(entry.meaning for entry in self.entries)]
        place = {meaning: number for number, meaning in enumerate(self.meanings)}
        self.of_entry = np.array([place[entry.meaning] for entry in self.entries])
        having: dict[str, set[Meaning]] = {}
        for entry in self.entries:
            for gram in _grams(entry.words):
                having.setdefault(gram, set()).add(entry.meaning)
        self.columns = {gram: number for number, gram in enumerate(having)}
        weights = [np.log(1 + len(self.meanings) / len(found)) for found in having.values()]
        self.weights = np.array(weights)
        rows = [self._weighed(entry.words) for entry in self.entries]
        starts = np.cumsum([0, *(len(columns) for columns, _ in rows)])
        columns, weighed = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        shape = (len(rows), len(self.columns))
        self.matrix = csr_matrix((weighed, columns, starts), shape)

    def _weighed(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Columns and weights of a vector of length 1, less what lies in unknown words."""
        counts = Counter(_grams(words))
        columns = np.array([self.columns[gram] for gram in counts if gram in self.columns], int)
        times = [count for gram, count in counts.items() if gram in self.columns]
        weights = np.array(times) * self.weights[columns]
        unknown = sum(" " not in gram and gram not in self.columns for gram in counts)
        length = np.sqrt(np.square(weights).sum() + unknown * np.square(self.weights.mean()))
        return columns, weights / (length or 1.0)

    def nearest(self, words: Sequence[str], named: Sequence[Named]) -> list[Match]:
        """Every meaning, the closest first."""
        shape = shaped(words, named)
        columns, weights = self._weighed(shape)
        heard = np.zeros(len(self.columns))
        heard[columns] = weights
        likeness = np.asarray(self.matrix @ heard)
        matches = []
        for number, meaning in enumerate(self.meanings):
            own = np.flatnonzero(self.of_entry == number)
            best = own[np.argsort(-likeness[own])[:_NEAREST]]
            literal = self._literal(best[likeness[best] > 0])
            matches.append(Match(meaning, float(likeness[best].mean()), literal))
        return sorted(matches, key=lambda match: -match.likeness)

    def _literal(self, entries: np.ndarray) -> dict[str, str]:
        """The values of the closest entry that has them."""
        for number in entries:
            if self.entries[number].literal:
                return dict(self.entries[number].literal)
        return {}


@functools.cache
def load_phrasebook(domain: str) -> Phrasebook:
    """A domain's; it takes a few seconds."""
    known = load_domain(domain)
    return Phrasebook(known, Values(known))


def _grams(words: Sequence[str]) -> list[str]:
    ends = ["^", *words, "$"]
    return [*words, *(f"{one} {other}" for one, other in itertools.pairwise(ends))]


def _entries(domain: Domain, values: Values) -> Iterator[Entry]:
    """What a caller of the training data may say, and what it means."""
    kinds = ((ASKS, domain.requests), (ASKS, domain.partials), (MENTIONS, domain.mentions))
    for act, by_tool in kinds:
        for tool, found in by_tool.items():
            for phrasing in dict.fromkeys(found):
                if phrasing_split(phrasing) == "train":
                    yield from _spoken(domain, values, Meaning(act, tool), phrasing)
    for found in domain.answer.values():
        for phrasing in of_split(found, "train"):
            yield from _spoken(domain, values, Meaning(ANSWERS), phrasing)
    for occasion, found in domain.talk.items():
        if occasion in _PARTS | _AGENTS or occasion.startswith("error_"):
            continue
        for phrasing in of_split(found, "train"):
            yield from _spoken(domain, values, Meaning(occasion), phrasing)


def _spoken(
    domain: Domain, values: Values, meaning: Meaning, phrasing: Phrasing
) -> Iterator[Entry]:
    """The phrasing with an example of each kind of value that its slots may have."""
    literal = tuple((part.slot, part.value) for part in phrasing if part.value)
    examples = [_examples(domain, values, part.slot, part.text) for part in phrasing]
    for said in itertools.product(*examples):
        words = words_of(" ".join(said))
        if words:
            yield Entry(meaning, shaped(words, values.find(words)), literal)


@functools.cache
def _examples(domain: Domain, values: Values, slot: str, text: str) -> tuple[str, ...]:
    if text or not slot:
        return (text,)
    known = domain.slots[slot]
    if known.digits:
        return (" ".join("7" * known.digits),)
    if known.times:
        return ("10:30",)
    kinds: dict[str, str] = {}
    for said in itertools.chain.from_iterable((known.values or {}).values()):
        for one in values.find(words_of(said))[:1]:
            kinds.setdefault(one.kind, said)
    return tuple(kinds.values())
