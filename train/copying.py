"""Which token says what another one writes: what a small model's pointers copy as.

The streams write one thing in different ways. An argument has `"monday"` and `"48"`, the user's
text ` monday` and ` four eight`, the agent's ` Monday`. `copy_targets` is a table of them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from data.scripts.domain import Domain, load_domain
from data.scripts.spoken import number
from model.tokens import DialogueTokenizer

SPOKEN, DONE = 0, 1  # rows
_WORD_LETTERS = 3  # a token of fewer is most often a part of a word


def copy_targets(tokenizer: DialogueTokenizer, domains: Sequence[str]) -> Tensor:
    """int64 [2, V]. Row SPOKEN: a token of the action channel -> that of the agent's text which
    says it. Row DONE: a token of the user's text -> that of the action channel which writes it.

    A word's twin (with or without the space in front), small letters or large ones as the domains
    have them, numbers as digits. A token that nothing else stands for is copied as it is.
    """
    by_text = {tokenizer.decode([token]): token for token in range(len(tokenizer))}
    loaded = [load_domain(name) for name in domains]
    table = torch.arange(len(tokenizer)).repeat(2, 1)  # [2, V]
    for row, meanings in ((SPOKEN, _spoken(by_text, loaded)), (DONE, _done(by_text, loaded))):
        for text, meant in meanings.items():
            if text in by_text and meant in by_text:
                table[row, by_text[text]] = by_text[meant]
    return table


def _spoken(tokens: Mapping[str, int], domains: Sequence[Domain]) -> dict[str, str]:
    """What the agent's text writes for a token of a result or an argument."""
    values = [value for domain in domains for value in _values(domain)]
    first = {value.split()[0] for value in values}
    words = [
        text
        for text in tokens
        if text[:1].isalpha() and (len(text) >= _WORD_LETTERS or text in first)
    ]
    forms = {value: form for domain in domains for value, form in _forms(domain)}
    as_word = {text: f" {text}" for text in words}
    as_form = {value: f" {form}" for value, form in forms.items() if form.lower() == value}
    return as_word | as_form | {str(digit): f" {number(digit)}" for digit in range(10)}


def _done(tokens: Mapping[str, int], domains: Sequence[Domain]) -> dict[str, str]:
    """What an argument writes for a token of the user's text."""
    values = [value for domain in domains for value in _values(domain, arguments_only=True)]
    later = {word for value in values for word in value.split()[1:]}
    first = {value.split()[0] for value in values}
    done = {
        text: text[1:].lower()
        for text in tokens
        if text[:1] == " " and text[1:].lower() not in later - first
    }
    for value in range(99, -1, -1):  # "six" is 6, "sixteen" and "ten" begin with 1
        name = number(value)
        if " " not in name:
            done |= {f" {name}": str(value)[0], f" {name.capitalize()}": str(value)[0]}
    return done | {" oh": "0", " Oh": "0"}


def _values(domain: Domain, arguments_only: bool = False) -> list[str]:
    arguments = {slot for tool in domain.tools.values() for slot in tool.slots.values()}
    return [
        value
        for name, slot in domain.slots.items()
        if name in arguments or not arguments_only
        for value in slot.values or ()
    ]


def _forms(domain: Domain) -> list[tuple[str, str]]:
    return [
        (value, form)
        for slot in domain.slots.values()
        for value, forms in (slot.values or {}).items()
        for form in forms
    ]
