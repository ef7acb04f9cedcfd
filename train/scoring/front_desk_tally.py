"""What suite=front_desk counts in a conversation beside its `Tally`; docs/evaluation.md has it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.dialogue import AGENT, USER, Dialogue
from data.scripts.domain import HANDOFF, Domain
from train.conversation import Conversation, text_of
from train.scoring.dialogue_score import (
    answers,
    asides,
    begun_within,
    matched,
    standing,
    turns_of,
)
from train.scoring.dialogue_tally import Tally
from train.scoring.text_normalizer import normalize

_LEFT_S = 0.4  # of the caller's turn, at least, where a call could come before its end
_WAITED_S = 0.6  # for a result, at most, before something is said


@dataclass(frozen=True)
class Judged:
    """One conversation. `row` says who speaks over which line, `cluster` what it has in common with
    others: scenes and voice. Shares are (right, of how many).

    `acted` are calls and hand-offs that were made, whatever came of them; `undeclared` those of
    them whose tool the call does not have. `early` are right calls that came before the end of the
    caller's turn, of those that could. `gaps_s` are those before answers, what a result was waited
    for left out. `begun` counts what the agent began within turns of the caller's, `held_s` is how
    long those are in all. `priority` is whether the priority of the message is right, None where
    none was sent.
    """

    row: str
    suite: str
    cluster: str
    tally: Tally
    acted: int
    undeclared: int
    early: tuple[int, int]
    gaps_s: tuple[float, ...]
    begun: int
    held_s: float
    kept: tuple[bool, ...]
    names: tuple[int, int]
    priority: bool | None

    @property
    def item(self) -> tuple[str, str]:
        """The same for the same script in the same voice over the same line, with any seed."""
        return self.row, self.tally.name.partition(" ")[0]

    def as_json(self) -> dict[str, Any]:
        """Everything but the sound."""
        own = {name: value for name, value in vars(self).items() if name != "tally"}
        return {**own, **self.tally.as_json()}


def judge(
    domain: Domain,
    row: str,
    suite: str,
    dialogue: Dialogue,
    conversation: Conversation,
    tally: Tally,
) -> Judged:
    """Counts the rest; `dialogue` is delayed as its caller was."""
    script = json.loads(dialogue.script)
    acted = [
        HANDOFF if event.action == "handoff" else event.tool
        for event in conversation.events
        if event.kind == "made" and event.action in ("call", "revise", "handoff")
    ]
    return Judged(
        row,
        suite,
        f"{'+'.join(script['scenes'])} {dialogue.source}",
        tally,
        acted=len(acted),
        undeclared=sum(tool not in script["tools"] for tool in acted),
        early=_early(dialogue, conversation),
        gaps_s=_gaps_s(dialogue, conversation),
        begun=len(begun_within(dialogue, conversation.speech())),
        held_s=sum(turn.end_s - turn.start_s for turn in turns_of(dialogue, USER)),
        kept=_kept(dialogue, conversation),
        names=_names(domain, dialogue, conversation),
        priority=_priority(dialogue, conversation),
    )


def _early(dialogue: Dialogue, conversation: Conversation) -> tuple[int, int]:
    wanted, found = standing(dialogue.actions), standing(conversation.actions())
    ends_s = [turn.end_s for turn in turns_of(dialogue, USER)]
    could = early = 0
    for need_s, made_s in matched(wanted, found):
        end_s = min((end_s for end_s in ends_s if end_s >= need_s), default=need_s)
        if end_s - need_s >= _LEFT_S:
            could += 1
            early += made_s < end_s
    return early, could


def _gaps_s(dialogue: Dialogue, conversation: Conversation) -> tuple[float, ...]:
    """From each turn that is answered to the answer. Where a result comes first that is not said to
    be waited for, from it, but from 0.6 s after the turn's end at the latest."""
    gaps_s = []
    for turn, begin_s in answers(dialogue, conversation.speech()):
        if begin_s is not None:
            results_s = [
                event.time_s
                for event in conversation.events
                if event.kind == "result" and turn.end_s < event.time_s <= begin_s
            ]
            waited_s = min(results_s[0], turn.end_s + _WAITED_S) if results_s else turn.end_s
            gaps_s.append(begin_s - waited_s)
    return tuple(gaps_s)


def _kept(dialogue: Dialogue, conversation: Conversation) -> tuple[bool, ...]:
    """Of what comes over the agent's words and is no turn: whether they went on."""
    return tuple(
        end_s >= until_s
        for aside_s, until_s in asides(dialogue)
        for start_s, end_s in conversation.speech()
        if start_s <= aside_s < end_s
    )


def _names(domain: Domain, dialogue: Dialogue, conversation: Conversation) -> tuple[int, int]:
    """How many of the names that the role gives to company and agent are in the agent's text before
    the caller's first turn, of those that the labels' agent says there."""
    first_s = min((turn.start_s for turn in turns_of(dialogue, USER)), default=dialogue.seconds)

    def said(words) -> str:
        return f" {normalize(text_of(word for word in words if word.start_s < first_s))} "

    role = f" {normalize(dialogue.system)} "
    known = [name for slot in sorted(domain.role_slots) for name in domain.slots[slot].values or ()]
    names = [f" {normalize(name)} " for name in known]
    given = [name for name in names if name in role and name in said(dialogue.words[AGENT])]
    return sum(name in said(conversation.words[AGENT]) for name in given), len(given)


def _priority(dialogue: Dialogue, conversation: Conversation) -> bool | None:
    """Whether the message that stands at the end is urgent where the labels' is, and only there."""
    wanted, found = (
        [_arguments(call) for call in standing(actions).values() if _is_message(call)]
        for actions in (dialogue.actions, conversation.actions())
    )
    if not wanted or not found:
        return None
    return (found[0].get("priority") == "urgent") == (wanted[0].get("priority") == "urgent")


def _is_message(call: str) -> bool:
    return call.startswith("send_message ")


def _arguments(call: str) -> Mapping[str, Any]:
    """Those of what `standing` tells."""
    return json.JSONDecoder().raw_decode(call, call.index("{"))[0]
