"""Calls in which nobody speaks, a minute each: silence, and hold music."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data.scripts.backend import prompts
from data.sounds import music, room_noise
from data.voices.utterance import SAMPLE_RATE_HZ
from train import intervals
from train.conversation import Conversation
from train.intervals import Metric
from train.scoring.dialogue_loop import Caller, Hold

_MINUTE_S = 60
_GREETING_S = 3.0  # what begins earlier is the greeting
_SAYING_GAP_S = 1.2  # a longer silence parts two things said
_ROOM = 10 ** (-60 / 20)  # loudness of an empty room


def callers(domain: str, minutes: int) -> Iterator[Caller]:
    """A quiet room and hold music in turn; every tool is declared."""
    for number in range(minutes):
        system, tools = prompts(domain, number)
        rng = np.random.default_rng(number)
        audio = _music(rng) if number % 2 else _room(rng)
        yield Caller(f"quiet-{number:03}", audio, system, tools)


def _room(rng: np.random.Generator) -> NDArray[np.float32]:
    return room_noise(_MINUTE_S * SAMPLE_RATE_HZ, rng) * np.float32(_ROOM)


def _music(rng: np.random.Generator) -> NDArray[np.float32]:
    """Pieces of hold music, one after the other."""
    parts: list[NDArray[np.float32]] = []
    while sum(map(len, parts)) < _MINUTE_S * SAMPLE_RATE_HZ:
        parts.append(music("test", rng))
    return np.concatenate(parts)[: _MINUTE_S * SAMPLE_RATE_HZ]


def sayings(conversation: Conversation) -> int:
    """How often the agent begins to say something, after its greeting."""
    count, last_s = 0, -np.inf
    for start_s, end_s in conversation.speech():
        count += start_s > max(_GREETING_S, last_s + _SAYING_GAP_S)
        last_s = end_s
    return count


def figures(hold: Hold, domain: str, minutes: int) -> dict[str, Metric]:
    """How often something is said, a minute and in the worst one, and calls and hand-offs."""
    if not minutes:
        return {}
    found = [one for _, one in hold(callers(domain, minutes))]
    said = [sayings(conversation) for conversation in found]
    acts = [
        event
        for conversation in found
        for event in conversation.events
        if event.kind == "made" and event.action in ("call", "revise", "handoff")
    ]
    return {
        "silence_said_per_minute": intervals.mean(said, "sayings/minute"),
        "silence_said_most": intervals.exact(max(said), minutes, "sayings"),
        "silence_calls": intervals.exact(len(acts), minutes, "calls"),
    }
