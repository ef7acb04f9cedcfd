"""A conversation as one picture: lines of ten seconds, one below the other.

Each has, from the top: the calls with their life (opened, made, result given), the agent's words
and its sound, who the model thinks holds the floor, the caller's sound and the words that the model
understood. Words stand where they were written: the agent's text runs ahead of its sound.
"""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from data.dialogue import AGENT, USER
from data.voices.utterance import SAMPLE_RATE_HZ
from model.frame import FLOORS, FRAME_S
from train.conversation import Calls, Conversation, Event

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

_LINE_S = 10.0
_LINE_INCHES = (16.0, 4.1)
_POINTS_A_SECOND = 400
_LABEL_CHARACTERS = 64
_LANES = 3  # of calls
_LOUDNESS = 0.6  # of the loudest sample fills a waveform's height
_COLOURS = {AGENT: "tab:blue", USER: "tab:orange"}
_FLOOR_COLOURS = ("0.92", "tab:blue", "tab:orange", "navajowhite", "lightskyblue")
_DRAFT, _RUNS, _GIVEN, _OTHER = "lightcoral", "tab:red", "tab:green", "tab:purple"
_NEAR_END = 0.68  # of a line, from where on text ends at its time
# Heights.
_TOP, _BOTTOM = 8.0, -3.8
_CALLS, _LANE, _BAR = 4.3, 1.15, 0.22  # the lowest lane of calls, what each takes, its bar
_WAVES = {AGENT: 1.3, USER: -1.3}
_WORDS = {AGENT: 2.3, USER: -2.3}
_FLOOR = (-0.16, 0.32)


@dataclass
class CallLife:
    """One call: when it was opened, when its arguments were there, when its result came (`given_s`)
    and when it was replaced or taken back (`ended_s`); None where that did not happen."""

    label: str
    opened_s: float
    made_s: float | None = None
    given_s: float | None = None
    ended_s: float | None = None
    result: str = ""


def lives(events: tuple[Event, ...]) -> list[CallLife]:
    """The calls and revisions of a conversation, in order of their opening."""
    found: dict[int, CallLife] = {}
    calls = Calls()
    for event in events:
        number = event.number
        if event.kind == "result":
            found[number].given_s, found[number].result = event.time_s, _listed(event.arguments)
        elif event.action in ("call", "revise"):
            found.setdefault(number, CallLife(f"{number} {event.tool}", event.time_s))
        if event.kind != "made":
            continue
        action = calls.made(event)
        if event.action in ("call", "revise"):
            instead = f" instead of {action.revises}" if action.revises else ""
            found[number].label = f"{number}{instead}: {event.tool} {_listed(event.arguments)}"
            found[number].made_s = event.time_s
        ended = number if event.action == "cancel" else action.revises
        if ended in found:
            found[ended].ended_s = event.time_s
    return [*found.values()]


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def draw(conversation: Conversation, path: Path) -> None:
    """Draws a conversation into a PNG file, 1600 pixels wide."""
    lines = max(math.ceil(conversation.seconds / _LINE_S), 1)
    size = (_LINE_INCHES[0], _LINE_INCHES[1] * lines + 0.7)
    figure, axes = plt.subplots(lines, 1, figsize=size, squeeze=False)
    for number, axis in enumerate(axes[:, 0]):
        _draw_line(axis, conversation, number * _LINE_S)
    axes[-1, 0].set_xlabel("seconds")
    colours = dict(zip(FLOORS, _FLOOR_COLOURS, strict=True))
    colours |= {"call opened": _DRAFT, "call made": _RUNS, "result": _GIVEN, "others": _OTHER}
    patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=patches, loc="upper right", ncols=len(patches), fontsize=8)
    figure.suptitle(conversation.name, size=10, x=0.01, ha="left")
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / size[1]))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_line(axis: Axes, conversation: Conversation, start_s: float) -> None:
    end_s = start_s + _LINE_S
    axis.set(xlim=(start_s, end_s), ylim=(_BOTTOM, _TOP))
    axis.set_yticks([_CALLS + _LANE + _BAR / 2, _WAVES[AGENT], 0, _WAVES[USER]])
    axis.set_yticklabels(["calls", "agent", "floor", "caller"])
    axis.set_xticks(np.arange(start_s, end_s + 0.1, 1.0))
    for side in (AGENT, USER):
        _draw_wave(axis, conversation, side, start_s)
        _draw_words(axis, conversation, side, start_s)
    first = int(start_s / FRAME_S)
    for number, holder in enumerate(conversation.floor[first : int(end_s / FRAME_S) + 1], first):
        axis.broken_barh([(number * FRAME_S, FRAME_S)], _FLOOR, color=_FLOOR_COLOURS[holder])
    for place, life in enumerate(lives(conversation.events)):
        _draw_life(axis, life, _CALLS + _LANE * (place % _LANES), conversation.seconds)
    for event in conversation.events:
        if event.action in ("cancel", "confirm", "handoff") and event.kind == "made":
            _draw_other(axis, event)


def _draw_wave(axis: Axes, conversation: Conversation, side: int, start_s: float) -> None:
    step = SAMPLE_RATE_HZ // _POINTS_A_SECOND
    first = int(start_s * SAMPLE_RATE_HZ)
    audio = conversation.audio[side, first : first + int(_LINE_S * SAMPLE_RATE_HZ)]
    loudest = max(_LOUDNESS * float(np.abs(conversation.audio[side]).max()), 1e-3)
    blocks = np.pad(audio, (0, -len(audio) % step)).reshape(-1, step) / loudest
    blocks = blocks.clip(-1, 1) * 0.9
    times = start_s + np.arange(len(blocks)) / _POINTS_A_SECOND
    low, high = blocks.min(1) + _WAVES[side], blocks.max(1) + _WAVES[side]
    axis.fill_between(times, low, high, color=_COLOURS[side], alpha=0.75, linewidth=0)


def _draw_words(axis: Axes, conversation: Conversation, side: int, start_s: float) -> None:
    rotation, anchor = (28, "bottom") if side == AGENT else (-28, "top")
    for word in conversation.words[side]:
        if start_s <= word.start_s < start_s + _LINE_S:
            axis.text(
                word.start_s, _WORDS[side], word.text, rotation=rotation, rotation_mode="anchor",
                va=anchor, size=9, clip_on=True,
            )  # fmt: skip


def _draw_life(axis: Axes, life: CallLife, height: float, end_s: float) -> None:
    """Bars from opened to made and from there to its result, with what was called and came back."""
    made_s = end_s if life.made_s is None else life.made_s
    times_s = [time_s for time_s in (life.given_s, life.ended_s) if time_s is not None]
    done_s = max([made_s, min([*times_s, end_s])])
    axis.broken_barh([(life.opened_s, made_s - life.opened_s)], (height, _BAR), color=_DRAFT)
    axis.broken_barh([(made_s, done_s - made_s)], (height, _BAR), color=_RUNS)
    _write(axis, life.opened_s, height + _BAR, life.label, _RUNS, "bottom")
    middle = height + _BAR / 2
    if life.made_s is not None:
        axis.plot(made_s, middle, marker="|", color="black", markersize=11)
    if life.ended_s is not None:
        axis.plot(life.ended_s, middle, marker="X", color=_OTHER, markersize=8)
    if life.given_s is not None:
        axis.plot(life.given_s, middle, marker="D", color=_GIVEN, markersize=7)
        _write(axis, life.given_s, height - _BAR, life.result, _GIVEN, "top")


def _draw_other(axis: Axes, event: Event) -> None:
    about = f" {event.number}" if event.action != "handoff" else f" {_listed(event.arguments)}"
    axis.axvline(event.time_s, color=_OTHER, linewidth=1, linestyle=":")
    _write(axis, event.time_s, _TOP - 0.1, f" {event.action}{about} ", _OTHER, "top")


def _write(axis: Axes, time_s: float, height: float, text: str, colour: str, anchor: str) -> None:
    """Text that begins at a time, or ends there where the line would end before it does."""
    start_s, end_s = axis.get_xlim()
    if start_s <= time_s < end_s:
        is_near_end = time_s > start_s + _NEAR_END * (end_s - start_s)
        axis.text(
            time_s, height, textwrap.shorten(text, _LABEL_CHARACTERS, placeholder="..."),
            color=colour, size=8.5, ha="right" if is_near_end else "left", va=anchor,
        )  # fmt: skip
