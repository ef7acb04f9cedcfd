"""One caller's action channel: which bursts may open, what is decoded in them, what came of it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from model.grammar import ActionGrammar, parse_action
from model.tokens import DialogueTokenizer, serialize

_CALLS = ("call", "revise")
_UNDECLARED = {"error": "undeclared"}


class ActionEvent(NamedTuple):
    """`opened`: the model began an action, `made`: it came to its end and is valid.

    `row` is the caller's. Calls and revisions are numbered together from 1; `number` is an action's
    own, or that of the call that it cancels or confirms (0: not known yet, or a hand-off); what is
    made `revises` a call that stood until then, or none (0).
    `confidence` is that of its arguments, 0..1. What was opened for a tool that is not declared is
    a `cancel` of its number; `confidence` is how sure that is.
    """

    row: int
    kind: Literal["opened", "made"]
    number: int
    action: str
    tool: str
    arguments: Mapping[str, Any]
    confidence: float
    revises: int = 0


class SavedActions(NamedTuple):
    """What `ActionSession.load` takes; `burst` are the tokens of an open one, and how likely each
    was."""

    calls: int
    standing: dict[int, str]
    waiting: list[list[int]]
    forced: list[int]
    burst: list[tuple[int, float]]


class ActionSession:
    """`calls` have been made, `standing` of them (number to tool) are neither replaced nor taken
    back. Tokens that are still to go in: `forced` ones of the burst, which the grammar left no
    choice of, and behind it those that are `waiting`, of the role, the tools and results: a run for
    each thing given, so that it is the same run whenever it comes (other runs, other rounding)."""

    def __init__(self, row: int, tokenizer: DialogueTokenizer, grammar: ActionGrammar) -> None:
        self.row, self.tokenizer = row, tokenizer
        self.use(grammar)
        self.is_open = False
        self.calls = 0
        self.standing: dict[int, str] = {}
        self.waiting: list[list[int]] = []
        self.forced: list[int] = []

    def use(self, grammar: ActionGrammar) -> None:
        """What may be called from now on; nothing may be open."""
        self.grammar, self.matcher = grammar, grammar.matcher()

    @property
    def is_waiting(self) -> bool:
        """Whether there is something that may go in."""
        return bool(self.forced or (self.waiting and not self.is_open))

    def allowed(self) -> Tensor:
        """Which tokens may come, bool [V]: those of the open burst, or those that open one."""
        if self.is_open:
            return self.matcher.allowed()
        return self.grammar.openings([*self.standing])

    def take(self, token: int, probability: float) -> list[ActionEvent]:
        """The next token, and how likely the model held it before the mask; with it those that
        must follow. `forced` must be empty."""
        assert not self.forced, f"tokens {self.forced} have not gone in"
        events = []
        if self.is_open:
            self.matcher.accept(token, probability)
        else:
            self.matcher.begin(token, [*self.standing])
            self.is_open = True
            action = self.grammar.kinds[token]
            number = self.calls + 1 if action in _CALLS else 0
            events.append(ActionEvent(self.row, "opened", number, action, "", {}, 1.0))
        # Which tool is meant the model is to say, also where there is but one.
        self.forced = [] if self.matcher.is_naming else self.matcher.forced()
        for forced in self.forced:
            self.matcher.accept(forced)
        self.is_open = not self.matcher.is_done
        return events if self.is_open else [*events, self._made()]

    def undeclared(self, confidence: float) -> ActionEvent:
        """Instead of a tool's first token: the call that is open is none, since the tool that is
        meant is not declared. It ends there (its `<end>` goes in next), and that is its result."""
        assert self.matcher.is_naming, "no tool is to be named"
        self.matcher.drop()
        self.is_open = False
        self.calls += 1
        refusal = serialize("result", self.calls, "", _UNDECLARED)
        self.waiting.append(self.tokenizer.encode_action(refusal))
        return ActionEvent(self.row, "made", self.calls, "cancel", "", {}, confidence)

    def save(self) -> SavedActions:
        """All of it, but what the tools say."""
        matcher = self.matcher
        burst = zip(matcher.tokens, matcher.probabilities, strict=True) if self.is_open else ()
        waiting = [[*run] for run in self.waiting]
        return SavedActions(self.calls, dict(self.standing), waiting, [*self.forced], [*burst])

    def load(self, saved: SavedActions) -> None:
        """Into a fresh one with the same tools."""
        self.calls, self.standing = saved.calls, dict(saved.standing)
        self.waiting, self.forced = [[*run] for run in saved.waiting], [*saved.forced]
        self.is_open = bool(saved.burst)
        for place, (token, probability) in enumerate(saved.burst):
            if place:
                self.matcher.accept(token, probability)
            else:
                self.matcher.begin(token, [*self.standing])

    def _made(self) -> ActionEvent:
        action = parse_action(self.tokenizer, self.matcher.tokens)
        number, revised = action.number, 0
        if action.kind == "cancel":
            del self.standing[number]
        if action.kind == "revise":  # the last call of the same tool, or else the last one
            same = [call for call, tool in self.standing.items() if tool == action.tool]
            revised = max(same or self.standing)
            del self.standing[revised]
        if action.kind in _CALLS:
            self.calls += 1
            number = self.calls
            self.standing[number] = action.tool
        confidence = self.matcher.confidence.weakest
        about = (action.kind, action.tool, action.arguments)
        return ActionEvent(self.row, "made", number, *about, confidence, revised)
