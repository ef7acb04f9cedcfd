"""Dialogue rules: what to say and which calls to make, given what was understood and came back."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from data.scripts.domain import HANDOFF, Domain
from data.scripts.open_call import OpenCall
from data.scripts.turn import Asked, Call, Turn, turn_of
from train.cascade.parser import Parser, Request, Understood
from train.cascade.phrasebook import ANSWERS, ASKS, MENTIONS
from train.scoring.text_normalizer import normalize

_UNCLEAR_WORDS = 3  # of fewer that mean nothing, nothing is made
_IGNORED = {ANSWERS, "yes", "no", "backchannel", "here", "side_talk", "overheard"}


class Say(NamedTuple):
    """Something to be said; `number` that of the call that it is about, 0 where there is none."""

    text: str
    number: int = 0


class Do(NamedTuple):
    """An action: a call or revision gets number `number`, the others are about that one."""

    action: Literal["call", "revise", "cancel", "confirm", "handoff"]
    number: int = 0
    tool: str = ""
    arguments: Mapping[str, Any] = {}
    revises: int = 0


Act = Say | Do


@dataclass
class Made:
    """A call that stands; `result` is None until it is there."""

    number: int
    request: Request
    is_running: bool
    result: Mapping[str, Any] | None = None


@dataclass
class Manager:
    """The rules of one call. `tools` are those that it has."""

    domain: Domain
    parser: Parser
    system: str
    tools: Sequence[str]
    seed: int
    calls: int = 0
    made: list[Made] = field(default_factory=list)
    asking: Request | None = None  # a request that lacks something
    waiting: list[Request] = field(default_factory=list)  # of the same breath, not begun yet
    confirming: Made | None = None
    has_offered: bool = False  # a colleague
    unclear: int = 0
    last_unclear: str = ""
    failures: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        heard = f" {normalize(self.system)} "
        self.role = {
            slot: name
            for slot in self.domain.role_slots
            for name in self.domain.slots[slot].values or ()
            if f" {normalize(name)} " in heard
        }

    def talk(self, occasion: str) -> Say:
        """What is said on an occasion."""
        phrasing = self.rng.choice(list(self.domain.talk[occasion]))
        return Say(turn_of(self.domain, phrasing, lambda slot: self.role.get(slot, slot)).text)

    def greeting(self) -> Say:
        """Who is speaking."""
        return self.talk("greeting")

    def heard(self, text: str) -> list[Act]:
        """What follows from an utterance of the caller's."""
        understood = self.parser.understand(text)
        if self.last_unclear and understood.act in ("", MENTIONS):
            # What was cut in two by a pause may mean something as a whole.
            whole = self.parser.understand(f"{self.last_unclear} {text}")
            understood = whole if whole.act == ASKS else understood
        self.last_unclear = "" if understood.act else text
        acts = self._answer(understood)
        if acts is None:
            acts = self._unclear(understood)
        elif understood.act:
            self.unclear = 0
        return acts

    def _answer(self, understood: Understood) -> list[Act] | None:
        """None where it is not understood."""
        for rule in (self._confirmed, self._offered, self._corrected, self._completed):
            acts = rule(understood)
            if acts is not None:
                return acts
        if understood.act == ASKS:
            self.waiting = list(understood.requests[1:])
            return self._begin(understood.requests[0])
        if understood.act in ("never_mind", "stop"):
            return self._taken_back() or [self.talk("noted")]
        occasions = {MENTIONS: "noted", "out_of_domain": "only", "thanks": "goodbye"}
        if understood.act in occasions:
            return [self.talk(occasions[understood.act])]
        return [] if understood.act in _IGNORED else None

    def given(self, number: int, result: Mapping[str, Any]) -> list[Act]:
        """What follows from a call's result."""
        made = next((one for one in self.made if one.number == number), None)
        if made is None:
            return []
        made.result, made.is_running = result, False
        if "error" in result:
            return self._failed(made, str(result["error"]))
        self.failures = 0
        spoken = self._open(made).reply(self.domain, self.rng).text
        return [Say(f"{spoken} {self.talk('offer').text}", number), *self._next()]

    def waited(self, number: int) -> list[Act]:
        """What is said while a call takes its time."""
        is_running = any(one.number == number and one.is_running for one in self.made)
        return [Say(self.talk("wait").text, number)] if is_running else []

    # Rules, by what is open.

    def _confirmed(self, understood: Understood) -> list[Act] | None:
        """The answer to "shall I?"."""
        made = self.confirming
        if made is None:
            return None
        words = understood.words
        corrected = self.parser.filled(made.request, words)
        says_no = understood.act in ("no", "never_mind", "stop") or words[:1] == ("no",)
        is_other = (
            understood.act == ASKS
            and not understood.is_correction
            and understood.requests[0].tool != made.request.tool
        )
        if corrected.arguments != made.request.arguments and not is_other:
            return self._revise(made, corrected)
        if understood.act == "yes" or words[:1] in (("yes",), ("yep",), ("sure",), ("correct",)):
            self.confirming = None
            made.is_running = True
            return [Do("confirm", made.number), *self._next()]
        if says_no:
            return self._taken_back() or []
        return None

    def _offered(self, understood: Understood) -> list[Act] | None:
        """The answer to the offer of a colleague."""
        if not self.has_offered:
            return None
        self.has_offered = False
        if understood.act == "yes" or understood.words[:1] in (("yes",), ("sure",), ("please",)):
            return self._hand_over("requested")
        if understood.act == "no" or understood.words[:1] == ("no",):
            return [self.talk("noted")]
        return None

    def _corrected(self, understood: Understood) -> list[Act] | None:
        """Another value for the last call, after "no, sorry"."""
        if not understood.is_correction or not self.made:
            return None
        last = self.made[-1]
        corrected = self.parser.filled(last.request, understood.words)
        if corrected.arguments == last.request.arguments:
            return None
        return self._revise(last, corrected)

    def _completed(self, understood: Understood) -> list[Act] | None:
        """What was asked for."""
        asking = self.asking
        if asking is None or understood.act == "never_mind":
            self.asking = None
            return [self.talk("cancelled")] if asking else None
        filled = self.parser.filled(asking, understood.words)
        if filled == asking:
            return None
        is_other = understood.act == ASKS and understood.requests[0].tool != asking.tool
        if is_other and not understood.requests[0].missing:
            return None
        return self._begin(filled)

    # Acts.

    def _begin(self, request: Request) -> list[Act]:
        """A call, or a question for what it lacks."""
        self.asking = self.confirming = None
        if request.tool == HANDOFF:
            return self._hand_over(request.arguments.get("reason", "requested"))
        if request.tool not in self.tools:
            self.has_offered = True
            return [self.talk("cannot")]
        if request.missing:
            self.asking = request
            found = self.domain.ask.get(request.missing[0])
            if not found:  # nobody asks for it
                return [self.talk("unclear")]
            return [Say(turn_of(self.domain, self.rng.choice(list(found)), str).text)]
        self.calls += 1
        made = Made(self.calls, request, True)
        self.made.append(made)
        call = Do("call", made.number, request.tool, request.arguments)
        return [call, *self._checked(made)]

    def _checked(self, made: Made) -> list[Act]:
        """Asks for a yes where the call needs one; else what else was asked for."""
        if not self.domain.replies[made.request.tool].confirm:
            return self._next()
        made.is_running, self.confirming = False, made
        return [Say(self._open(made).confirmation(self.domain, self.rng).text, made.number)]

    def _next(self) -> list[Act]:
        """The next request of the same breath."""
        if not self.waiting or self.confirming or self.asking:
            return []
        return self._begin(self.waiting.pop(0))

    def _revise(self, made: Made, request: Request) -> list[Act]:
        self.calls += 1
        self.made.remove(made)
        new = Made(self.calls, request, True)
        self.made.append(new)
        self.confirming = None
        revision = Do("revise", new.number, request.tool, request.arguments, made.number)
        return [revision, *self._checked(new)]

    def _taken_back(self) -> list[Act] | None:
        """Cancels the last call whose result is not there."""
        open_calls = [one for one in self.made if one.result is None]
        self.asking = self.confirming = None
        self.waiting = []
        if not open_calls:
            return None
        self.made.remove(open_calls[-1])
        return [Do("cancel", open_calls[-1].number), self.talk("cancelled")]

    def _failed(self, made: Made, error: str) -> list[Act]:
        self.made.remove(made)
        self.confirming = None if self.confirming is made else self.confirming
        is_broken = error in ("unavailable", "timeout")
        self.failures = self.failures + 1 if is_broken else 0
        if self.failures > 1:
            return self._hand_over("repeated_failure")
        known = f"error_{error}"
        occasion = known if known in self.domain.talk else "error_unavailable"
        return [self.talk(occasion)._replace(number=made.number), *self._next()]

    def _hand_over(self, reason: str) -> list[Act]:
        return [Do("handoff", 0, "", {"reason": reason}), self.talk("handing_over")]

    def _unclear(self, understood: Understood) -> list[Act]:
        if len(understood.words) < _UNCLEAR_WORDS or self.confirming or self._is_running():
            return []
        self.unclear += 1
        if self.unclear > 1:
            return self._hand_over("low_confidence")
        return [self.talk("unclear")]

    def _is_running(self) -> bool:
        return any(one.is_running for one in self.made)

    def _open(self, made: Made) -> OpenCall:
        """The call as those of scripts, to be spoken of as they are."""
        tool = self.domain.tools[made.request.tool]
        asked = Asked(Turn(()), tool, made.request.arguments, ())
        call = Call("call", made.number, tool.name, made.request.arguments, {}, 0)
        result = None if made.result is None else {k: str(v) for k, v in made.result.items()}
        return OpenCall(asked, call, result)
