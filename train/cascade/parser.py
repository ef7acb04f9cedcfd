"""What a caller means by what was recognised: requests with their arguments, or something else."""

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from data.scripts.domain import HANDOFF, Domain, Tool, load_domain, of_split
from data.scripts.slots import Slot
from data.voices.words import pronunciation
from train.cascade.phrasebook import ASKS, Match, load_phrasebook
from train.cascade.values import Named, Words, words_of

_ALIKE = 0.81  # from which an unknown word is taken for a name
_ALIKE_MISSING = 0.5  # share of the sounds, where a name is missing
_MANY = 20  # values of a slot that names people
_CLEAR = 0.3  # likeness from which something is understood
_PARTED = 0.35  # from which a part of an utterance is a request of its own
_SHORTEST = 3  # words of such a part
_BETWEEN = 3  # words, at most, between two groups of a number's digits


class Request(NamedTuple):
    """A tool and those of its arguments that were named; `digits` are those of a number that has
    too few or too many."""

    tool: str
    arguments: Mapping[str, str]
    missing: tuple[str, ...]
    digits: str


class Understood(NamedTuple):
    """`act` is `asks` (then there are `requests`), `mentions`, an occasion of the domain's talk, or
    "" where it is nothing that is known. `is_correction`: it begins with "no, sorry" or so."""

    act: str
    words: tuple[str, ...]
    requests: tuple[Request, ...] = ()
    is_correction: bool = False


class Parser:
    """Understands callers of a domain."""

    def __init__(self, domain: str) -> None:
        self.domain: Domain = load_domain(domain)
        self.book = load_phrasebook(domain)
        self.values = self.book.values
        self.sorry = self._said("sorry")
        self.also = self._said("also")
        self.never_mind = [form for form in self._said("never_mind") if len(form) > 1]
        self.names = {
            form[0]: form for form in self.values.forms if len(form) == 1 and len(form[0]) > 2
        }
        for name in self.names:
            pronunciation(name)  # a program says it once

    def _said(self, occasion: str) -> list[tuple[str, ...]]:
        """The training forms of an occasion as words, the longest first."""
        found = of_split(self.domain.talk[occasion], "train")
        forms = {tuple(words_of(" ".join(p.text for p in one))) for one in found}
        return sorted(filter(None, forms), key=len, reverse=True)

    def understand(self, text: str) -> Understood:
        """What is meant by a whole utterance."""
        words = self._spelled(words_of(text))
        if not words:
            return Understood("", ())
        is_correction = self._begins(words, self.sorry) > 0
        if self._is_taken_back(words):
            return Understood("never_mind", tuple(words))
        parts = self._parts(words)
        if len(parts) > 1:
            requests = tuple(self._request(*part) for part in parts)
            return Understood(ASKS, tuple(words), requests, is_correction)
        corrected = self._without_mistakes(words)
        match = self._match(corrected)
        if match.likeness < _CLEAR:
            return Understood("", tuple(words), (), is_correction)
        requests = (self._request(words, match),) if match.meaning.act == ASKS else ()
        return Understood(match.meaning.act, tuple(words), requests, is_correction)

    def named(self, words: Words, slot: str) -> str | None:
        """What is said of one slot, or None; of several values that after "no, sorry"."""
        return next(iter(self._by_slot(words, [slot]).values()), None)

    def digits(self, words: Words) -> str:
        """All digits that were said, one after the other, of the last attempt."""
        last = self._attempts(words)[-1]
        return "".join(
            word for one in self.values.find(last) for word in last[one.start : one.end]
            if word.isdigit()
        )  # fmt: skip

    def filled(self, request: Request, words: Words) -> Request:
        """A request with what else was said now."""
        tool = self.domain.tools[request.tool]
        found = self._arguments(tool, words)
        found |= self._guessed(tool, [*{*request.missing} - {*found}], words)
        digits = self.digits(words) if not found else ""
        for argument in request.missing:
            size = self.domain.slots[tool.slots[argument]].digits
            if size and request.digits and len(request.digits + digits) == size:
                found[argument] = request.digits + digits
        return self._asked(tool, {**request.arguments, **found}, request.digits + digits)

    # Words.

    def _spelled(self, words: Sequence[str]) -> list[str]:
        """Words that training knows nothing of are taken for the name that they look like."""
        return [self._known(word) for word in words]

    def _known(self, word: str) -> str:
        if word in self.book.words or word in self.names or not word.isalpha():
            return word
        close = difflib.get_close_matches(word, self.names, 1, _ALIKE)
        return close[0] if close else word

    def _begins(self, words: Words, forms: Sequence[tuple[str, ...]]) -> int:
        """How many words of a form the words begin with."""
        return next((len(form) for form in forms if tuple(words[: len(form)]) == form), 0)

    def _is_taken_back(self, words: Words) -> bool:
        """Whether they end in "never mind" or the like."""
        return any(tuple(words[-len(form) :]) == form for form in self.never_mind)

    def _attempts(self, words: Words) -> list[list[str]]:
        """What was said between "no, sorry" and the like."""
        attempts: list[list[str]] = [[]]
        place = 0
        while place < len(words):
            if length := self._begins(words[place:], self.sorry):
                attempts.append([])
                place += length
            else:
                attempts[-1].append(words[place])
                place += 1
        return [attempt for attempt in attempts if attempt] or [[]]

    def _without_mistakes(self, words: Words) -> list[str]:
        """Words without values that others replace later, and what announces those."""
        kept: list[str] = []
        for attempt in self._attempts(words):
            kinds = {one.kind for one in self.values.find(attempt)}
            again = [one for one in self.values.find(kept) if one.kind in kinds]
            kept = [*(kept[: again[-1].start] if again else kept), *attempt]
        return kept

    # Meanings.

    def _match(self, words: Words) -> Match:
        return self.book.nearest(words, self.values.find(words))[0]

    def _parts(self, words: list[str]) -> list[tuple[list[str], Match]]:
        """Several requests of one breath, each with its meaning; one where there are no more."""
        whole = self._match(self._without_mistakes(words))
        best: tuple[float, list[tuple[list[str], Match]]] = (0.0, [(words, whole)])
        for first, second in self._cuts(words):
            one, other = (self._match(self._without_mistakes(part)) for part in (first, second))
            is_each = all(
                match.meaning.act == ASKS and match.likeness >= _PARTED for match in (one, other)
            )
            if not is_each:
                continue
            requests = [self._request(first, one), self._request(second, other)]
            if any(request.missing for request in requests):
                continue
            likeness = min(one.likeness, other.likeness)
            if likeness > best[0] and (one.meaning != other.meaning or requests[0] != requests[1]):
                best = (likeness, [(first, one), (second, other)])
        return best[1]

    def _cuts(self, words: list[str]) -> Iterator[tuple[list[str], list[str]]]:
        for place in range(_SHORTEST, len(words) - _SHORTEST):
            if length := self._begins(words[place:], self.also):
                first, second = words[:place], words[place + length :]
                if len(second) >= _SHORTEST:
                    yield first, second

    # Arguments.

    def _request(self, words: Words, match: Match) -> Request:
        tool = self.domain.tools[match.meaning.tool]
        arguments = self._arguments(tool, words)
        for slot, value in match.literal.items():
            argument = next(name for name, of in tool.slots.items() if of == slot)
            if argument not in arguments and (argument in tool.required or tool.name == HANDOFF):
                arguments[argument] = value
        arguments |= self._guessed(tool, [*{*tool.required} - {*arguments}], words)
        is_number = any(self.domain.slots[slot].digits for slot in tool.slots.values())
        return self._asked(tool, arguments, self.digits(words) if is_number else "")

    def _asked(self, tool: Tool, arguments: Mapping[str, str], digits: str) -> Request:
        ordered = {name: arguments[name] for name in tool.slots if name in arguments}
        missing = tuple(name for name in tool.required if name not in ordered)
        is_open = any(self.domain.slots[tool.slots[name]].digits for name in missing)
        return Request(tool.name, ordered, missing, digits if is_open else "")

    def _arguments(self, tool: Tool, words: Words) -> dict[str, str]:
        by_slot = self._by_slot(words, [*tool.slots.values()])
        return {name: by_slot[slot] for name, slot in tool.slots.items() if slot in by_slot}

    def _guessed(self, tool: Tool, missing: Sequence[str], words: Words) -> dict[str, str]:
        """Names that are missing, by the unknown word that sounds most like one."""
        unknown = [word for word in words if word.isalpha() and word not in self.book.words]
        unknown = [word for word in unknown if (word,) not in self.values.forms]
        guessed: dict[str, str] = {}
        for argument in missing:
            values = self.domain.slots[tool.slots[argument]].values or {}
            if unknown and len(values) > _MANY:
                pairs = ((_likeness(word, name), name) for word in unknown for name in values)
                likeness, name = max(pairs)
                if likeness >= _ALIKE_MISSING:
                    guessed[argument] = name
        return guessed

    def _by_slot(self, words: Words, slots: Sequence[str]) -> dict[str, str]:
        """The last attempt's value of each slot."""
        found: dict[str, str] = {}
        for attempt in self._attempts(words):
            named = self.values.find(attempt)
            for slot in slots:
                value = self._of_slot(slot, named, attempt)
                if value is not None:
                    found[slot] = value
        return found

    def _of_slot(self, slot: str, named: Sequence[Named], words: Words) -> str | None:
        known = self.domain.slots[slot]
        if known.digits:
            return self._number(known, named, words)
        found = [one.by_slot[slot] for one in named if slot in one.by_slot]
        return found[0] if found else None

    def _number(self, slot: Slot, named: Sequence[Named], words: Words) -> str | None:
        """Digits of a slot's length: one group, or several that stand close together."""
        groups = [
            (one.start, one.end, digits)
            for one in named
            if (digits := re.sub(r"\D", "", "".join(words[one.start : one.end])))
        ]
        for first in range(len(groups)):
            joined, end = "", groups[first][0]
            for start, stop, digits in groups[first:]:
                if start - end > _BETWEEN:
                    break
                joined, end = joined + digits, stop
                if len(joined) == slot.digits:
                    return joined
        return None


@functools.cache
def _likeness(word: str, name: str) -> float:
    """How much of two words sounds the same, 0..1."""
    spoken = pronunciation(word), pronunciation(name)
    return difflib.SequenceMatcher(None, *spoken, autojunk=False).ratio()


@functools.cache
def load_parser(domain: str) -> Parser:
    """A domain's, built once."""
    return Parser(domain)
