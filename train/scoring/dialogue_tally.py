"""What one conversation adds to the figures of suite=dialogue; docs/evaluation.md defines them."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.dialogue import AGENT, USER, Dialogue, Spell
from data.scripts.domain import Domain
from data.voices.utterance import SAMPLE_RATE_HZ, Word
from train.conversation import Calls, Conversation, Event, Interval, text_of
from train.scoring.dialogue_score import Performance, Score, score, standing
from train.scoring.patience import is_interruption
from train.scoring.recognizers import WordErrors, word_errors
from train.scoring.reply_slots import SlotWords, slot_words
from train.scoring.text_normalizer import normalize

_LINE_GAP_S = 1.2  # between the words of two lines of the agent's text
_EARLY_S = 0.1  # by which a line's sound may seem to begin before its text
_AROUND_S = 0.15  # of silence that is cut out with a line


class Spoken(NamedTuple):
    """A line of the agent's: its text and, float32 [T] at 24 kHz, how it sounded."""

    text: str
    audio: NDArray[np.float32]


class Reply(NamedTuple):
    """What the agent said of a result, and the words of it that are right."""

    tool: str
    result: Mapping[str, Any]
    said: str
    slots: SlotWords


class CallPair(NamedTuple):
    """A call that stands at the end: the tool that was asked for and the one that was called, None
    where there is none; whether the arguments are right too, and how sure the model was of them."""

    wanted: str | None
    made: str | None
    is_exact: bool = False
    confidence: float | None = None


class CallCounts(NamedTuple):
    """Calls that stand at the end: asked for, made; of those asked for, the right tool, the right
    arguments too; of those made, the ones whose tool nobody asked for."""

    wanted: int
    made: int
    named: int
    exact: int
    false: int


@dataclass(frozen=True)
class Tally:
    """One conversation. `transcript` is None where the caller says nothing (`is_silent`)."""

    name: str
    score: Score
    pairs: tuple[CallPair, ...]
    pauses_s: tuple[float, ...]  # the longest within each of the caller's turns
    replies: tuple[Reply, ...]
    stops_s: tuple[float, ...]  # of interruptions alone
    transcript: WordErrors | None
    is_silent: bool
    lines: tuple[Spoken, ...]

    @property
    def calls(self) -> CallCounts:
        """How many of the pairs are what."""
        made = sum(pair.made is not None for pair in self.pairs)
        named = sum(pair.wanted is not None and pair.wanted == pair.made for pair in self.pairs)
        return CallCounts(
            wanted=sum(pair.wanted is not None for pair in self.pairs),
            made=made,
            named=named,
            exact=sum(pair.is_exact for pair in self.pairs),
            false=made - named,
        )

    def as_json(self) -> dict[str, Any]:
        """Everything but the sound."""
        kept = dataclasses.asdict(dataclasses.replace(self, lines=()))
        kept["pairs"] = [pair._asdict() for pair in self.pairs]
        return kept | {"lines": [line.text for line in self.lines]}


def tally(domain: Domain, dialogue: Dialogue, conversation: Conversation) -> Tally:
    """Judges a conversation by the dialogue that its caller is from."""
    actions, speech = conversation.actions(), conversation.speech()
    turns = [s for s in dialogue.spells if s.side == USER and s.manner == "turn"]
    said = text_of(dialogue.words[USER])
    transcript = None
    if normalize(said):
        transcript = word_errors(said, text_of(conversation.words[USER]))
    sure = {event.time_s: event.confidence for event in conversation.events if _is_call(event)}
    return Tally(
        dialogue.name,
        score(dialogue, Performance(actions, speech)),
        call_pairs(standing(dialogue.actions), standing(actions), sure),
        tuple(_longest_pause_s(dialogue.words[USER], turn) for turn in turns),
        _replies(domain, dialogue, conversation, turns),
        _stops_s(dialogue, turns, speech),
        transcript,
        not dialogue.words[USER],
        _lines(conversation, turns, speech),
    )


def call_pairs(
    wanted: Mapping[float, str], made: Mapping[float, str], confidence: Mapping[float, float | None]
) -> tuple[CallPair, ...]:
    """Pairs what `standing` tells, whatever was confirmed: equal calls first, then those of the
    same tool, then the others in the order of their times. `confidence` is by when they were made.
    """
    asked = [_unconfirmed(wanted[time_s]) for time_s in sorted(wanted)]
    left = {time_s: _unconfirmed(made[time_s]) for time_s in sorted(made)}
    found: list[CallPair] = []
    for key in (str, _tool, lambda _: ""):
        for call in [*asked]:
            time_s = next((time_s for time_s in left if key(left[time_s]) == key(call)), None)
            if time_s is not None:
                asked.remove(call)
                other = left.pop(time_s)
                sure = confidence.get(time_s)
                found.append(CallPair(_tool(call), _tool(other), call == other, sure))
    found += [CallPair(_tool(call), None) for call in asked]
    for time_s, other in left.items():
        found.append(CallPair(None, _tool(other), confidence=confidence.get(time_s)))
    return tuple(found)


def _unconfirmed(call: str) -> str:
    return call.removesuffix(" True").removesuffix(" False")


def _tool(call: str) -> str:
    return call.partition(" ")[0]


def _is_call(event: Event) -> bool:
    return event.kind == "made" and event.action in ("call", "revise", "handoff")


def _longest_pause_s(words: Sequence[Word], turn: Spell) -> float:
    said = [word for word in words if turn.start_s <= word.start_s < turn.end_s]
    pauses_s = [after.start_s - before.end_s for before, after in itertools.pairwise(said)]
    return max([0.0, *pauses_s])


def _stops_s(
    dialogue: Dialogue, turns: Sequence[Spell], speech: Sequence[Interval]
) -> tuple[float, ...]:
    """How long after each interruption the agent is silent, where it spoke then."""
    return tuple(
        end_s - turn.start_s
        for turn in turns
        if is_interruption(dialogue, turn)
        for start_s, end_s in speech
        if start_s < turn.start_s < end_s
    )


def _replies(
    domain: Domain, dialogue: Dialogue, conversation: Conversation, turns: Sequence[Spell]
) -> tuple[Reply, ...]:
    """What the agent says from each result to the end of the caller's next turn, unless that only
    confirms another call.

    Left out are results that hold an error, those of calls that stand no longer, and those whose
    reply an interruption cuts off or the labels' agent does not tell in that time either.
    """
    confirmed_s = [action.time_s for action in dialogue.actions if action.kind == "confirm"]
    turns = [t for t in turns if not any(t.start_s < time_s <= t.end_s for time_s in confirmed_s)]
    calls = Calls()
    for event in conversation.events:
        if event.kind == "made":
            calls.made(event)
    replies = []
    for given in conversation.events:
        if given.kind != "result" or "error" in given.arguments:
            continue
        following = next((turn for turn in turns if turn.start_s > given.time_s), None)
        if given.number not in calls.standing:
            continue
        if following is not None and is_interruption(dialogue, following):
            continue
        until_s = following.end_s if following else math.inf
        if _is_labelled(dialogue, given) and not (
            _reply(domain, dialogue.words[AGENT], given, until_s).slots.is_whole
        ):
            continue
        replies.append(_reply(domain, conversation.words[AGENT], given, until_s))
    return tuple(replies)


def _is_labelled(dialogue: Dialogue, given: Event) -> bool:
    """Whether it is a result of the labels."""
    return any(
        (action.kind, action.tool, action.arguments) == ("result", given.tool, given.arguments)
        for action in dialogue.actions
    )


def _reply(domain: Domain, words: Sequence[Word], given: Event, until_s: float) -> Reply:
    said = text_of(word for word in words if given.time_s < word.start_s < until_s)
    slots = slot_words(domain, given.tool, given.arguments, said)
    return Reply(given.tool, given.arguments, said, slots)


def _lines(
    conversation: Conversation, turns: Sequence[Spell], speech: Sequence[Interval]
) -> tuple[Spoken, ...]:
    """The agent's lines with the sound of each, without those that the caller spoke into.

    A stretch of sound belongs to the last line that was written when it begins, and a line without
    a sound of its own to the one before; the first one may have none at all.
    """
    written: list[list[Word]] = []
    for word in conversation.words[AGENT]:
        if not written or word.start_s - written[-1][-1].end_s > _LINE_GAP_S:
            written.append([])
        written[-1].append(word)
    groups: list[tuple[list[Word], list[Interval]]] = []
    starts_s = [words[0].start_s - _EARLY_S for words in written]
    for number, words in enumerate(written):
        from_s = starts_s[number] if number else 0.0
        until_s = starts_s[number + 1] if number + 1 < len(written) else math.inf
        sounds = [sound for sound in speech if from_s <= sound[0] < until_s]
        if sounds or not groups:
            groups.append((words, sounds))
        else:
            groups[-1][0].extend(words)
    return tuple(
        Spoken(text_of(words), _cut(conversation.audio[AGENT], sounds))
        for words, sounds in groups
        if normalize(text_of(words)) and not _is_spoken_into(words, sounds, turns)
    )


def _is_spoken_into(
    words: Sequence[Word], sounds: Sequence[Interval], turns: Sequence[Spell]
) -> bool:
    last_s = max([words[-1].end_s, *(end_s for _, end_s in sounds)])
    return any(words[0].start_s < turn.start_s < last_s for turn in turns)


def _cut(pcm: NDArray[np.float32], sounds: Sequence[Interval]) -> NDArray[np.float32]:
    """From the first sound to the last one; nothing where there is none."""
    if not sounds:
        return np.zeros(0, np.float32)
    first = max(round((sounds[0][0] - _AROUND_S) * SAMPLE_RATE_HZ), 0)
    return pcm[first : round((sounds[-1][1] + _AROUND_S) * SAMPLE_RATE_HZ)].copy()
