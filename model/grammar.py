"""The action channel under a grammar: a call that its tool's JSON Schema refuses cannot be made.

A burst is opened by its first token, which the model chooses at a frame (`ActionGrammar.openings`
says among which); from then on `ActionMatcher.allowed` says which tokens may follow. Every
tokenisation of a valid text is allowed, `<end>` only behind a whole text, and nothing behind it.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from model.confidence import Confidence, confidence_of
from model.tokens import END, MADE, SPECIAL_TOKENS, DialogueTokenizer
from model.tool_schema import HANDOFF, decodable_tools

_CALLS = ("call", "revise")  # made under a tool's schema
_ANSWERS = ("cancel", "confirm")  # name an open call
_CALL_TEXT = re.compile(r" (?P<tool>\S+) (?P<payload>\{.*\}) ", re.DOTALL)
_ANSWER_TEXT = re.compile(r" (?P<number>[1-9][0-9]*) ")
# Left to itself the library allows of a text that is forced only its usual tokens, and takes an
# argument that is named `<end>` for the special token.
_ANY_TOKENS = '%llguidance {"no_forcing": true}'
_HANDOFF_TEXT = re.compile(r" (?P<payload>\{.*\}) ", re.DOTALL)


class MadeAction(NamedTuple):
    """One action as it was decoded.

    `number` is that of the call that is cancelled or confirmed, else 0; `tool` is `handoff` for a
    hand-off and empty where a number says which call is meant.
    """

    kind: str
    number: int
    tool: str
    arguments: dict[str, Any]


class ActionGrammar:
    """What may be decoded with a list of tools, each with `name` and `parameters` (JSON Schema).

    A tool named `handoff` says what a hand-off holds, and is not called; where there is none, a
    hand-off holds its `reason`. Raises ValueError on a tool that cannot be decoded, naming it and
    the argument (model/tool_schema.py says what can).
    """

    def __init__(self, tokenizer: DialogueTokenizer, tools: Sequence[Mapping[str, Any]]) -> None:
        schemas = decodable_tools(tools)
        self.tools = tuple(name for name in schemas if name != HANDOFF)
        self.end = tokenizer.id_of(END)
        self.kinds = {tokenizer.id_of(f"<{kind}>"): kind for kind in MADE}
        self.size = len(tokenizer)
        self.tokenizer = tokenizer
        self._tokenizer = _library_tokenizer(tokenizer)
        if self._tokenizer.vocab_size != self.size:
            raise ValueError("the vocabulary has gaps: tokens must be numbered from 0 on")
        self._handoff = self._compiled(f'start: " " {_json(schemas[HANDOFF])} " "')
        self._call = None
        if self.tools:
            calls = (f'" {name} " {_json(schemas[name])} " "' for name in self.tools)
            self._call = self._compiled(f"start: {' | '.join(calls)}")

    def matcher(self) -> "ActionMatcher":
        """Follows the bursts of one session, one after the other."""
        return ActionMatcher(self)

    def openings(self, open_calls: Sequence[int]) -> Tensor:
        """Which tokens may open a burst: bool [V]. `<idle>`, which opens none, is not among them.

        `open_calls` are the numbers of the calls that can be revised, cancelled or confirmed.
        """
        mask = torch.zeros(self.size, dtype=torch.bool)
        mask[[token for token, kind in self.kinds.items() if self._can_open(kind, open_calls)]] = (
            True
        )
        return mask

    def burst(self, opening: int, open_calls: Sequence[int]) -> LLMatcher:
        """What follows that opening token; raises ValueError where it may open nothing now."""
        kind = self.kinds.get(opening)
        if kind is None or not self._can_open(kind, open_calls):
            raise ValueError(
                f"token {opening} ({kind}) cannot open with calls {[*open_calls]} open"
            )
        if kind in _ANSWERS:
            if min(open_calls) < 1:
                raise ValueError(f"open calls {[*open_calls]}: must be numbered from 1 on")
            numbers = (f'" {number} "' for number in {*open_calls})
            return self._compiled(f"start: {' | '.join(numbers)}")
        compiled = self._handoff if kind == HANDOFF else self._call
        assert compiled is not None, f"{kind} opened without tools"
        return compiled.deep_copy()

    def bytes_of(self, token: int) -> bytes:
        """What a token that is text stands for."""
        return self._tokenizer.decode_bytes([token])

    def _can_open(self, kind: str, open_calls: Sequence[int]) -> bool:
        has_tool = bool(self.tools) or kind not in _CALLS
        return has_tool and (bool(open_calls) or kind in ("call", HANDOFF))

    def _compiled(self, lark: str) -> LLMatcher:
        matcher = LLMatcher(
            self._tokenizer, LLMatcher.grammar_from_lark(f"{_ANY_TOKENS}\n{lark}"), log_level=0
        )
        if matcher.is_error():
            raise ValueError(f"the tools cannot be decoded: {matcher.get_error()}")
        return matcher


class ActionMatcher:
    """One session's place in its bursts. Fresh ones come from `ActionGrammar.matcher`.

    `tokens` are those of the burst so far, the opening one first; with the calls that were open and
    the `probabilities` that they came with they are all that there is to restore.
    """

    def __init__(self, grammar: ActionGrammar) -> None:
        self._grammar = grammar
        self._burst: LLMatcher | None = None  # None outside of a burst
        self._bits = np.zeros((grammar.size + 31) // 32, np.int32)
        self._is_argument = self._calls = False
        self._probabilities: list[float] = []  # of the tokens that count for the confidence
        self.tokens: list[int] = []
        self.probabilities: list[float] = []

    @property
    def is_done(self) -> bool:
        """Whether the last burst has come to its `<end>`."""
        return self._burst is None and bool(self.tokens)

    @property
    def is_naming(self) -> bool:
        """Whether a tool comes next, and nothing of it is there yet."""
        return self._burst is not None and len(self.tokens) == 1 and self._calls

    @property
    def confidence(self) -> Confidence:
        """How sure the model is of the arguments so far."""
        return confidence_of(self._probabilities)

    def begin(self, opening: int, open_calls: Sequence[int] = ()) -> None:
        """Opens a burst. Raises ValueError within one, and where that token may open nothing."""
        if self._burst is not None:
            raise ValueError("a burst is open: must come to its end first")
        self._burst = self._grammar.burst(opening, open_calls)
        self._calls = self._grammar.kinds[opening] in _CALLS
        self._is_argument = not self._calls
        self._probabilities = []
        self.tokens, self.probabilities = [opening], [1.0]

    def allowed(self) -> Tensor:
        """Which tokens may come next: bool [V], V = len(tokenizer). Outside of a burst none."""
        if self._burst is None:
            return torch.zeros(self._grammar.size, dtype=torch.bool)
        if self._burst.is_accepting():  # a text that is whole ends: none is another one's beginning
            mask = torch.zeros(self._grammar.size, dtype=torch.bool)
            mask[self._grammar.end] = True
            return mask
        self._burst.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little", count=self._grammar.size)
        return torch.from_numpy(bits.view(np.bool_))

    def forced(self) -> list[int]:
        """The tokens that must come next, whatever the model says: all that is left with its
        `<end>`, or else all but the last, which what comes behind it may be joined to."""
        if self._burst is None:
            return []
        rest = self._burst.deep_copy()
        try:
            tokens = self._grammar.tokenizer.encode(rest.compute_ff_bytes().decode())
        except UnicodeDecodeError:  # it ends within a letter
            return []
        if not rest.try_consume_tokens(tokens) == len(tokens):
            raise RuntimeError(f"the grammar failed: {rest.get_error()}")
        return [*tokens, self._grammar.end] if rest.is_accepting() else tokens[:-1]

    def accept(self, token: int, probability: float = 1.0) -> None:
        """Takes the next token, and how likely the model held it before the mask.

        Raises ValueError on one that is not allowed, and stays where it was.
        """
        burst = self._burst
        if burst is None:
            raise ValueError(f"token {token}: no burst is open")
        if burst.is_accepting() and token == self._grammar.end:
            self._burst = None
        elif not 0 <= token < self._grammar.size or not burst.validate_tokens([token]):
            raise ValueError(f"token {token} is not allowed here")
        else:
            self._note(burst, self._grammar.bytes_of(token), probability)
            if not burst.consume_token(token):
                raise RuntimeError(f"the grammar failed: {burst.get_error()}")
        self.tokens.append(token)
        self.probabilities.append(probability)

    def drop(self) -> None:
        """Leaves the burst, which is not to come to its end."""
        self._burst = None

    def _note(self, burst: LLMatcher, text: bytes, probability: float) -> None:
        """Keeps the probability of a token that says something about the arguments."""
        self._is_argument = self._is_argument or b"{" in text
        if self._is_argument and not burst.compute_ff_bytes().startswith(text):
            self._probabilities.append(probability)


@functools.lru_cache(maxsize=2)
def _library_tokenizer(tokenizer: DialogueTokenizer) -> LLTokenizer:
    """Kept, since it takes longer than the tools: a new list of them comes with every session."""
    return LLTokenizer(tokenizer.to_json(), eos_token=tokenizer.id_of(END))


def parse_action(tokenizer: DialogueTokenizer, tokens: Sequence[int]) -> MadeAction:
    """Reads a burst from its opening token to its `<end>`.

    Raises ValueError on any other tokens, and on text that is no action; whether a tool takes the
    arguments is not looked at.
    """
    kinds = {tokenizer.id_of(f"<{kind}>"): kind for kind in MADE}
    special = {tokenizer.id_of(name) for name in SPECIAL_TOKENS}
    if len(tokens) < 2 or tokens[0] not in kinds or tokens[-1] != tokenizer.id_of(END):
        raise ValueError(f"tokens {[*tokens]}: must begin with an action's and end with {END}")
    body = tokens[1:-1]
    if wrong := [t for t in body if t in special or not 0 <= t < len(tokenizer)]:
        raise ValueError(f"tokens {wrong} within an action: must be text")
    kind, text = kinds[tokens[0]], tokenizer.decode(body)
    form = _HANDOFF_TEXT if kind == HANDOFF else _CALL_TEXT if kind in _CALLS else _ANSWER_TEXT
    found = form.fullmatch(text)
    if not found:
        raise ValueError(f"{kind} with {text!r}: must match {form.pattern}")
    if kind in _ANSWERS:
        return MadeAction(kind, int(found["number"]), "", {})
    tool = HANDOFF if kind == HANDOFF else found["tool"]
    return MadeAction(kind, 0, tool, _arguments(found["payload"]))


def _arguments(payload: str) -> dict[str, Any]:
    try:
        return json.loads(payload, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(f"{payload[:40]!r}... is nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError(f"{[name for name, _ in pairs]}: an argument is given twice")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps(schema)}"
