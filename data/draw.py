"""A dialogue as one picture, to be read like a score: lines of ten seconds, one below the other.

Each has, from the top: what the agent does (at its `t_need`), its words and its waveform, who holds
the floor, the caller's waveform and words, and the results that come back. Small triangles at the
caller's words say since when an argument is known.
"""

import math
import textwrap
from pathlib import Path

import matplotlib
import numpy as np

from data.dialogue import AGENT, USER, Action, Dialogue
from data.voices.utterance import SAMPLE_RATE_HZ
from model.frame import FLOORS, FRAME_S

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

_LINE_S = 10.0
_LINE_INCHES = (17.0, 3.5)
_POINTS_A_SECOND = 400  # of a waveform: its envelope, not every sample
_LABEL_CHARACTERS = 34
_COLOURS = {AGENT: "tab:blue", USER: "tab:orange"}
_FLOOR_COLOURS = ("0.92", "tab:blue", "tab:orange", "navajowhite", "lightskyblue")
_MADE, _GIVEN, _ASIDE = "tab:red", "tab:green", "0.6"
# Heights of a line's lanes.
_TOP, _BOTTOM = 4.6, -4.6
_WAVES = {AGENT: 1.5, USER: -1.5}
_WORDS = {AGENT: 2.35, USER: -2.35}
_FLOOR = (-0.18, 0.36)


def draw(dialogue: Dialogue, path: Path) -> None:
    """Draws a dialogue into a PNG file."""
    lines = math.ceil(dialogue.seconds / _LINE_S)
    size = (_LINE_INCHES[0], _LINE_INCHES[1] * lines + 0.9)
    figure, axes = plt.subplots(lines, 1, figsize=size, squeeze=False)
    for number, axis in enumerate(axes[:, 0]):
        _draw_line(axis, dialogue, number * _LINE_S)
    axes[-1, 0].set_xlabel("seconds")
    holders = [Patch(color=c, label=n) for c, n in zip(_FLOOR_COLOURS, FLOORS, strict=True)]
    kinds = {"the agent's actions": _MADE, "results": _GIVEN}
    actions = [Patch(color=colour, label=name) for name, colour in kinds.items()]
    figure.legend(handles=[*holders, *actions], loc="upper right", ncols=7, fontsize=8)
    title = f"{dialogue.name}: {dialogue.source}\n{dialogue.system}"
    figure.suptitle(title, size=9, x=0.01, ha="left")
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / size[1]))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _draw_line(axis: Axes, dialogue: Dialogue, start_s: float) -> None:
    end_s = start_s + _LINE_S
    axis.set(xlim=(start_s, end_s), ylim=(_BOTTOM, _TOP), yticks=[1.5, 0, -1.5])
    axis.set_yticklabels(["agent", "floor", "user"])
    axis.set_xticks(np.arange(start_s, end_s + 0.1, 1.0))
    for side in (AGENT, USER):
        _draw_wave(axis, dialogue, side, start_s)
        for word in dialogue.words[side]:
            if start_s <= word.start_s < end_s:
                _draw_word(axis, side, word.start_s, word.text, "black")
    for word in dialogue.unsaid:
        if start_s <= word.start_s < end_s:
            _draw_word(axis, AGENT, word.start_s, word.text, _ASIDE)
    first = int(start_s / FRAME_S)
    for number, holder in enumerate(dialogue.floor()[first : int(end_s / FRAME_S) + 1], first):
        axis.broken_barh([(number * FRAME_S, FRAME_S)], _FLOOR, color=_FLOOR_COLOURS[holder])
    for spell in dialogue.spells:
        if spell.manner in ("side_talk", "background"):
            span = [(spell.start_s, spell.end_s - spell.start_s)]
            axis.broken_barh(span, (-2.3, 0.12), color=_ASIDE)
    shown = [action for action in dialogue.actions if start_s <= action.time_s < end_s]
    for is_given in (False, True):
        lane = [action for action in shown if (action.kind == "result") == is_given]
        for number, action in enumerate(lane):
            _draw_action(axis, action, number % 2, action.time_s > end_s - 0.15 * _LINE_S)


def _draw_wave(axis: Axes, dialogue: Dialogue, side: int, start_s: float) -> None:
    step = SAMPLE_RATE_HZ // _POINTS_A_SECOND
    first = int(start_s * SAMPLE_RATE_HZ)
    audio = dialogue.audio[side, first : first + int(_LINE_S * SAMPLE_RATE_HZ)]
    loudest = max(float(np.abs(dialogue.audio[side]).max()), 1e-3)
    blocks = np.pad(audio, (0, -len(audio) % step)).reshape(-1, step) * (0.75 / loudest)
    times = start_s + np.arange(len(blocks)) / _POINTS_A_SECOND
    low, high = blocks.min(1) + _WAVES[side], blocks.max(1) + _WAVES[side]
    axis.fill_between(times, low, high, color=_COLOURS[side], alpha=0.75, linewidth=0)


def _draw_word(axis: Axes, side: int, time_s: float, text: str, colour: str) -> None:
    rotation, anchor = (28, "bottom") if side == AGENT else (-28, "top")
    axis.text(
        time_s, _WORDS[side], text, rotation=rotation, rotation_mode="anchor",
        va=anchor, size=8, color=colour, clip_on=True,
    )  # fmt: skip


def _draw_action(axis: Axes, action: Action, lane: int, is_near_end: bool) -> None:
    """A line at its time, from the caller's words up or from the results' lane to the agent."""
    is_given = action.kind == "result"
    colour = _GIVEN if is_given else _MADE
    height = (_BOTTOM + 0.1 + 0.75 * lane) if is_given else (_TOP - 0.1 - 0.75 * lane)
    axis.plot([action.time_s] * 2, [height, 2.3 if is_given else -2.3], color=colour, linewidth=1)
    for argument, known_s in action.known_s.items():
        axis.plot(known_s, -2.3, marker="^", color=colour, markersize=5)
        if known_s < action.time_s - 0.3:
            axis.text(known_s, -2.75, argument, color=colour, size=6, ha="center", va="top")
    axis.text(
        action.time_s, height, f" {_label(action)} ", color=colour, size=7.5,
        ha="right" if is_near_end else "left", va="bottom" if is_given else "top",
    )  # fmt: skip


def _label(action: Action) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in action.arguments.items())
    replaced = f" for {action.revises}" if action.revises else ""
    number = f" {action.number}" if action.number else ""
    text = f"{action.kind}{number}{replaced}: {action.tool} {arguments}"
    return textwrap.shorten(text, 3 * _LABEL_CHARACTERS, placeholder=" ...")
