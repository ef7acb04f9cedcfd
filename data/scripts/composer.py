"""Plays scenes: each step becomes turns, calls and results of a script."""

import dataclasses
import random
from collections.abc import Mapping, Sequence

from data.scripts.disfluency import (
    correction,
    other_value,
    with_correction,
    with_filler,
    with_pause,
    with_restart,
)
from data.scripts.domain import HANDOFF, Domain, Phrasings, Tool, of_split
from data.scripts.open_call import OpenCall, result_of
from data.scripts.scene import Scene, Step, names_value
from data.scripts.script import Did, Heard, Manner, Ran, Said, Side, Silence
from data.scripts.script import Step as ScriptStep
from data.scripts.turn import (
    Asked,
    Call,
    Turn,
    answer,
    joined,
    last_words,
    may_be_named,
    request,
    turn_of,
)
from data.sentences import Split

LATENCY_S = {"ok": (0.2, 3.0), "timeout": (4.0, 6.0)}  # from a call to its result, by outcome
_OVER = (0.25, 0.7)


class Composer:
    """Plays scenes of one script, and keeps what the next ones need to know."""

    def __init__(
        self, domain: Domain, split: Split, style: str, tools: Sequence[str], rng: random.Random
    ) -> None:
        self.domain, self.style, self.rng = domain, style, rng
        self.split: Split = split
        self.tools = tuple(tools)
        role = {slot: domain.slots[slot].draw(rng) for slot in sorted(domain.role_slots)}
        self.role = {slot: domain.slots[slot].say(value, rng) for slot, value in role.items()}
        self.steps: list[ScriptStep] = []
        self.numbers = 0
        self.open: list[OpenCall] = []
        self.asked: list[Asked] = []
        self.is_waited_for = False
        self.scene = Scene("none", 0, ())

    def talk(self, occasion: str, side: Side) -> Turn:
        """Something that is said on an occasion."""
        found = self.domain.talk[occasion]
        choices = of_split(found, self.split) if side == "user" else list(found)
        return turn_of(self.domain, self.rng.choice(choices), self.role.__getitem__)

    def say(self, side: Side, turn: Turn) -> None:
        """Adds a turn after all others."""
        self.steps.append(Said(side, turn))

    def play(self, scene: Scene) -> None:
        """Adds a scene's steps."""
        self.scene, self.open, self.asked, self.is_waited_for = scene, [], [], False
        for step in scene.steps:
            getattr(self, f"_{step.act}")(step)

    def _over(self, step: Step) -> float | None:
        return round(self.rng.uniform(*_OVER), 3) if step.over else None

    def _manner(self, step: Step) -> Manner:
        if step.over != "soft":
            return "turn"
        return "side_talk" if "side_talk" in step.parts else "backchannel"

    # What the caller says.

    def _user(self, step: Step) -> None:
        turn = Turn(())
        for part in step.parts:
            turn = joined(turn, self._users(part, step.change))
        self.steps.append(Said("user", turn, self._over(step), self._manner(step)))

    def _users(self, part: str, change: str) -> Turn:
        if part in ("request", "again", "partial"):
            return self._changed(self._asking(part, change), change)
        if part == "mention":
            tool = self._tool(self.domain.mentions)
            found = self.domain.mentions[tool.name]
            return request(self.domain, tool, found, self.split, self.rng).turn
        if part == "correction":
            return self._correction()
        turn = self.talk(part, "user")
        if part in ("never_mind", "no"):
            return self._taking_back(turn)
        if part == "story" and change == "pause":
            return with_pause(turn, self.rng)
        return turn

    def _tool(self, among: Mapping[str, object]) -> Tool:
        fitting = [name for name in self.scene.fitting(self.domain) if name in among]
        if self.scene.tools == "undeclared":
            fitting = [name for name in fitting if name not in self.tools]
        else:
            fitting = [name for name in fitting if name in self.tools]
        return self.domain.tools[self.rng.choice(fitting)]

    def _asking(self, part: str, change: str) -> Turn:
        """A request, and its call where nothing is missing and the tool is declared."""
        domain, rng = self.domain, self.rng
        if part == "again":
            before = self.asked[-1]
            found = domain.requests[before.tool.name]
            spoken = {a: v for a, v in before.arguments.items() if a not in self._voiced(before)}
            asked = request(domain, before.tool, found, self.split, rng, spoken)
        else:
            kinds = domain.partials if part == "partial" else domain.requests
            tool = self._tool(kinds)
            asked = self._asked_of(tool, self._suitable(tool, kinds[tool.name], change))
        asked = asked._replace(arguments={**asked.arguments, **self._voiced(asked)})
        self.asked.append(asked)
        if asked.missing or asked.tool.name not in self.tools:
            return asked.turn
        return self._called(asked, asked.turn, asked.arguments)

    def _asked_of(self, tool: Tool, found: Phrasings) -> Asked:
        """A request whose arguments belong to the split also with those that the voice gives."""
        while True:
            asked = request(self.domain, tool, found, self.split, self.rng)
            arguments = {**asked.arguments, **self._voiced(asked)}
            if may_be_named(self.domain, tool, arguments, self.split):
                return asked

    def _suitable(self, tool: Tool, found: Phrasings, change: str) -> Phrasings:
        """The phrasings in which there is something to correct, or to tell from the voice alone."""
        if change == "correction":
            return tuple(filter(names_value, found))
        if self.scene.tools == "voiced":
            given = {a for tools in self.domain.voiced.values() for a in tools.get(tool.name, {})}
            slots = {tool.slots[argument] for argument in given}
            return tuple(p for p in found if not slots & {part.slot for part in p})
        return found

    def _voiced(self, asked: Asked) -> dict[str, str]:
        """What the voice alone says, where no word does."""
        given = self.domain.voiced.get(self.style, {}).get(asked.tool.name, {})
        said = {piece.slot for piece in asked.turn.pieces}
        return {a: value for a, value in given.items() if asked.tool.slots[a] not in said}

    def _called(self, asked: Asked, turn: Turn, named: Sequence[str] | Mapping[str, str]) -> Turn:
        """The turn with the call that is right at its last needed word."""
        needs = last_words(turn, asked.tool, list(named))
        after = max(needs.values(), default=len(turn.pieces) - 1)
        if asked.tool.name == HANDOFF:
            handoff = Call("handoff", 0, HANDOFF, asked.arguments, needs, after)
            return dataclasses.replace(turn, calls=(handoff,))
        self.numbers += 1
        call = Call("call", self.numbers, asked.tool.name, asked.arguments, needs, after)
        self.open.append(OpenCall(asked, call))
        return dataclasses.replace(turn, calls=(call,))

    def _changed(self, turn: Turn, change: str) -> Turn:
        if change == "filler":
            return with_filler(self.domain, turn, self.rng)
        if change == "restart":
            return with_restart(turn, self.rng)
        if change == "pause":
            return with_pause(turn, self.rng)
        if change == "correction" and turn.calls:
            turn = with_correction(self.domain, turn, self.split, self.rng)
            if len(turn.calls) > 1:
                self.open[-1].superseded.append(turn.calls[0])
                self.open[-1].call = turn.calls[1]
                self.numbers = turn.calls[1].number
        return turn

    def _correction(self) -> Turn:
        """Another value for the last call. What it was about before is superseded."""
        last = self.open[-1]
        tool = last.asked.tool
        arguments = [*last.call.needs]
        self.rng.shuffle(arguments)
        for argument in arguments:
            right = other_value(
                self.domain, tool, last.call.arguments, argument, self.split, self.rng
            )
            if right is not None:
                break
        else:
            raise ValueError(f"{tool.name} {last.call.arguments}: the split has no other value")
        self.numbers += 1
        turn = correction(self.domain, last.call, right, argument, self.numbers, self.rng)
        asked = last.asked._replace(arguments=right)
        self.open[-1] = OpenCall(asked, turn.calls[0])
        self.is_waited_for = False
        return turn

    def _taking_back(self, turn: Turn) -> Turn:
        """The caller's "no" or "never mind" to the last open call, if there is one."""
        if not self.open or self.open[-1].result is not None:
            return turn
        call = self.open.pop().call
        last = len(turn.pieces) - 1
        cancel = Call("cancel", call.number, call.tool, {}, {}, last)
        return dataclasses.replace(turn, calls=(cancel,))

    def _complete(self, step: Step) -> None:
        """Each missing argument is asked for and named; the last one makes the call right."""
        asked = self.asked[-1]
        for argument in asked.missing:
            phrasing = self.rng.choice(list(self.domain.ask[argument]))
            self.say("agent", turn_of(self.domain, phrasing, self.role.__getitem__))
            value = asked.arguments[argument]
            turn = answer(self.domain, asked.tool, argument, value, self.split, self.rng)
            if argument == asked.missing[-1]:
                turn = self._called(asked, turn, [argument])
            self.say("user", turn)

    # What the agent says and does.

    def _agent(self, step: Step) -> None:
        turn = Turn(())
        for part in step.parts:
            turn = joined_sentences(turn, self._agents(part))
        self.is_waited_for = self.is_waited_for or "wait" in step.parts
        self.steps.append(Said("agent", turn, self._over(step), self._manner(step)))

    def _agents(self, part: str) -> Turn:
        if part == "reply":
            return self._reply()
        if part == "confirm":
            return self.open[-1].confirmation(self.domain, self.rng)
        if part == "error":
            result = self.open[-1].result or {}
            self.open[-1].is_told = True
            return self.talk(f"error_{result['error']}", "agent")
        return self.talk(part, "agent")

    def _reply(self) -> Turn:
        """Every result that was not told yet."""
        turn = Turn(())
        for one in self.open:
            if one.result is None or one.is_told:
                continue
            one.is_told = True
            turn = joined_sentences(turn, one.reply(self.domain, self.rng))
        return turn

    def _run(self, step: Step) -> None:
        (outcome,) = step.parts
        for one in self.open:
            if one.result is not None:
                continue
            reply = self.domain.replies[one.call.tool]
            if reply.confirm and not one.is_confirmed:
                self._confirmed(one)
            for wrong in one.superseded:
                # What only reads has run by then, if it was quick; nobody speaks of it.
                if one.asked.tool.effect == "read":
                    self._ran(wrong, "ok", None)
            wait = None if self.is_waited_for else self.talk("wait", "agent")
            one.result = self._ran(one.call, outcome, wait)

    def _confirmed(self, one: OpenCall) -> None:
        """The agent asks and the caller says yes, unless the agent has just asked."""
        last = self.steps[-1]
        if not (isinstance(last, Said) and last.side == "agent" and last.takes_floor):
            self.say("agent", one.confirmation(self.domain, self.rng))
        turn = self.talk("yes", "user")
        last_word = len(turn.pieces) - 1
        confirm = Call("confirm", one.call.number, one.call.tool, {}, {}, last_word)
        self.say("user", dataclasses.replace(turn, calls=(confirm,)))
        one.is_confirmed = True

    def _ran(self, call: Call, outcome: str, wait: Turn | None) -> dict[str, str]:
        result = result_of(self.domain, call, outcome, self.rng)
        latency_s = round(self.rng.uniform(*LATENCY_S.get(outcome, LATENCY_S["ok"])), 3)
        self.steps.append(Ran(call.number, call.tool, latency_s, result, wait))
        return result

    def _handoff(self, step: Step) -> None:
        (reason,) = step.parts
        self.steps.append(Did(Call("handoff", 0, HANDOFF, {"reason": reason}, {}, 0)))

    # What nobody says.

    def _silence(self, step: Step) -> None:
        self.steps.append(Silence(round(float(step.parts[0]) * self.rng.uniform(0.8, 1.2), 3)))

    def _hear(self, step: Step) -> None:
        (sound,) = step.parts
        turn = self.talk("overheard", "user") if sound == "overheard" else None
        self.steps.append(Heard(sound, turn, self._over(step)))  # type: ignore[arg-type]


def joined_sentences(one: Turn, other: Turn) -> Turn:
    """One sentence after the other."""
    return Turn((*one.pieces, *other.pieces), one.calls, one.templates + other.templates)
