"""Callers who let the agent finish, as people do, where the script's caller does not interrupt.

An agent may choose longer words than the script's, and a caller who spoke at the script's times
would cut them off. So where he begins a turn he waits, and all that is to come comes later.

What is to come while the agent speaks (an interruption, a word aside, a cough) may be cued by it:
it waits for an agent that begins later than the script's.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from data.dialogue import AGENT, USER, Dialogue, Spell
from data.voices.utterance import SAMPLE_RATE_HZ
from model.frame import FRAME_S
from train.conversation import Wait

MOST_FRAMES = 125  # that he waits: 10 s
MOST_CUE_FRAMES = 60  # that what comes over the agent's words waits for them: 4.8 s
_UNSAID_S = 1.5  # within which an interruption keeps the agent from a word
_QUIET_FRAMES = 3  # of silence after which he surely comes in
_CUE_FRAMES = 15  # of the agent's speech, at most, that something over it waits for: 1.2 s
_BREATH_FRAMES = 5  # of silence, at most, within what it says
_LOUD = 10 ** (-45 / 20)  # root mean square of a frame that is speech


def is_interruption(dialogue: Dialogue, turn: Spell) -> bool:
    """Whether the caller's turn keeps the labels' agent from saying more."""
    until_s = turn.start_s + _UNSAID_S
    return any(turn.start_s < word.start_s < until_s for word in dialogue.unsaid)


def waits_of(dialogue: Dialogue) -> dict[int, int]:
    """The frames in which the caller begins a turn without interrupting, and how many silent frames
    of the agent's he wants before it: no more than it left him."""
    agents = [spell for spell in dialogue.spells if spell.side == AGENT]
    waits: dict[int, int] = {}
    for turn in dialogue.spells:
        begun = [spell for spell in agents if spell.start_s < turn.start_s]
        is_turn = turn.side == USER and turn.manner == "turn"
        if is_turn and begun and not is_interruption(dialogue, turn):
            quiet = int((turn.start_s - max(spell.end_s for spell in begun)) / FRAME_S)
            waits[int(turn.start_s / FRAME_S)] = min(max(quiet, 1), _QUIET_FRAMES)
    return waits


def cues_of(dialogue: Dialogue) -> dict[int, int]:
    """The frames in which something on the caller's channel begins over the agent's words without
    waiting for their end, and how many frames it must have been speaking by then: as in the script,
    less two, but no more than 1.2 s."""
    agents = [s for s in dialogue.spells if s.side == AGENT and s.manner == "turn"]
    cues: dict[int, int] = {}
    for over in dialogue.spells:
        if over.side == AGENT or (over.manner == "turn" and not is_interruption(dialogue, over)):
            continue
        for spell in agents:
            if spell.start_s < over.start_s < spell.end_s:
                frames = int((over.start_s - spell.start_s) / FRAME_S) - 2
                cues[int(over.start_s / FRAME_S)] = max(1, min(frames, _CUE_FRAMES))
    return cues


def speaking_frames(heard: Sequence[NDArray[np.float32]]) -> int:
    """For how many of the last of the agent's frames [1920] it has been speaking; 0 where it is
    silent, but for a breath."""
    frames = last = 0
    for number, frame in enumerate(reversed(heard), 1):
        if not is_quiet(frame):
            frames = last = number
        elif number - last > _BREATH_FRAMES:
            break
    return frames


def is_quiet(heard: NDArray[np.float32]) -> bool:
    """Whether nothing is said in a frame of the agent's [1920]."""
    return float(np.sqrt(np.mean(np.square(heard)))) < _LOUD


def delayed(dialogue: Dialogue, waits: tuple[Wait, ...]) -> Dialogue:
    """The dialogue as it would have been with these pauses."""

    def later(time_s: float) -> float:
        return time_s + sum(wait.seconds for wait in waits if wait.at_s <= time_s)

    def moved(parts):
        return tuple(
            part._replace(start_s=later(part.start_s), end_s=later(part.end_s)) for part in parts
        )

    def known(times_s: Mapping[str, float]) -> dict[str, float]:
        return {name: later(time_s) for name, time_s in times_s.items()}

    audio = dialogue.audio
    for wait in reversed(waits):
        at, length = (round(s * SAMPLE_RATE_HZ) for s in wait)
        audio = np.insert(audio, [min(at, audio.shape[1])] * length, 0.0, axis=1)
    return dataclasses.replace(
        dialogue,
        audio=audio,
        words=tuple(map(moved, dialogue.words)),
        unsaid=moved(dialogue.unsaid),
        spells=moved(dialogue.spells),
        actions=tuple(
            action._replace(time_s=later(action.time_s), known_s=known(action.known_s))
            for action in dialogue.actions
        ),
    )
