"""`python -m data.statistics folder=DIR out=FILE`: what is in a corpus of dialogues.

Reads the words, frames' floors, actions and scripts of its shards, not the codes, and writes a
report (`out`), a Markdown text for docs/data-card.md and a picture of the gaps beside it. How turns
and gaps are told is in data/turn_taking.py. What a script names (scenes, the caller's style,
interruptions) is counted where there is one; a caller's turn that is cut into the agent's, which
stops, is an interruption.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import numpy as np
from datasets import IterableDataset
from omegaconf import DictConfig

from data.dialogue import AGENT, USER
from data.gaps import draw_gaps, gap_figures, gap_table
from data.report import Begun, Figure, check_out, grid, write_report
from data.turn_taking import Stretch, left_s, speech_s, stretches, turns_of
from model.frame import FRAME_S

_COLUMNS: Any = "frames source agent_words user_words agent_turns floor actions script".split()
_AHEAD_S = 0.4  # of the caller's turn that is left: an early call
_KINDS = ("call", "revise", "cancel", "confirm", "handoff", "result")
# How data.perform names who speaks.
_SOURCE = re.compile(r"(?P<domain>\w+), (?P<agent>\S+) and (?P<user>\S+)")


class Talk(NamedTuple):
    """One dialogue: how long it is, its row, its script (or {}), who spoke when."""

    seconds: float
    row: Mapping[str, Any]
    script: Mapping[str, Any]
    stretches: list[Stretch]
    turns: list[Stretch]


@dataclass(frozen=True)
class Group:
    """Dialogues or things by name: how many there are, and where it is known, how many hours."""

    title: str
    counts: Mapping[str, int]
    hours: Mapping[str, float]

    def figures(self, prefix: str, unit: str) -> dict[str, Figure]:
        """A figure a name, in snake case."""
        total = sum(self.counts.values())
        named = {f"{prefix}_{_snake(n)}": Figure(c, total, unit) for n, c in self.counts.items()}
        for name, hours in self.hours.items():
            named[f"hours_{prefix}_{_snake(name)}"] = Figure(hours, self.counts[name], "hours")
        return named


def _snake(name: str) -> str:
    return re.sub(r"\W+", "_", name).lower()


def read_talks(folder: Path) -> list[Talk]:
    """Every dialogue of a folder's shards. Raises FileNotFoundError where it holds none."""
    shards: list[Any] = sorted(str(path) for path in folder.glob("*.parquet"))
    if not shards:
        raise FileNotFoundError(f"no *.parquet in {folder}: name a folder of shards")
    # Not load_dataset: it reports each use to Hugging Face, and waits where it cannot.
    rows = IterableDataset.from_parquet(shards, columns=_COLUMNS)
    return [_talk(row) for row in rows]


def _talk(row: Mapping[str, Any]) -> Talk:
    found = stretches((row["agent_words"], row["user_words"]), row["floor"])
    script = json.loads(row["script"]) if row["script"] else {}
    return Talk(row["frames"] * FRAME_S, row, script, found, turns_of(found))


def groups(talks: Sequence[Talk]) -> dict[str, Group]:
    """What dialogues differ in, and what is in them, by the prefix of its figures."""
    by_voice = [(_SOURCE.fullmatch(talk.row["source"]), talk.seconds) for talk in talks]
    voiced = [(match, seconds) for match, seconds in by_voice if match]
    styled = [(t.script["style"], t.seconds) for t in talks if t.script]
    actions = [action for talk in talks for action in talk.row["actions"]]
    calls = [action for action in actions if action["kind"] in ("call", "revise")]
    turns = [turn for talk in talks for turn in talk.row["agent_turns"]]
    scenes = [scene for talk in talks for scene in talk.script.get("scenes", ())]
    return {
        "agent_voice": _timed("agent's voice", [(match["agent"], s) for match, s in voiced]),
        "user_voice": _timed("caller's voice", [(match["user"], s) for match, s in voiced]),
        "user_style": _timed("caller's style", styled),
        "agent_style": _counted("agent's style, in turns", [turn["style"] for turn in turns]),
        "scene": _counted("scenes", scenes),
        "tool": _counted("tools, in calls and revisions", [call["tool"] for call in calls]),
        "action": _counted("actions", [action["kind"] for action in actions], _KINDS),
        "error": _counted("results that are errors", _errors(actions)),
    }


def _counted(title: str, names: Sequence[str], always: Sequence[str] = ()) -> Group:
    counts = {**dict.fromkeys(always, 0), **dict(Counter(names).most_common())}
    return Group(title, counts, {})


def _timed(title: str, pairs: Sequence[tuple[str, float]]) -> Group:
    hours: Counter[str] = Counter()
    for name, seconds in pairs:
        hours[name] += seconds / 3600  # type: ignore[assignment]
    return Group(title, _counted(title, [name for name, _ in pairs]).counts, hours)


def _errors(actions: Sequence[Mapping[str, Any]]) -> list[str]:
    results = [json.loads(a["arguments"]) for a in actions if a["kind"] == "result"]
    return [result["error"] for result in results if "error" in result]


def figures(talks: Sequence[Talk]) -> dict[str, Figure]:
    """How much there is, and how people take turns in it."""
    dialogues = len(talks)
    seconds = sum(talk.seconds for talk in talks)
    kinds = Counter((s.side, s.kind) for talk in talks for s in talk.stretches)
    turns = sum(len(talk.turns) for talk in talks)
    some_s, both_s = np.sum([speech_s(talk.stretches) for talk in talks], axis=0)
    ahead = [is_early for talk in talks for is_early in early_calls(talk)]
    found = {
        "hours": Figure(seconds / 3600, dialogues, "hours"),
        "dialogues": Figure(dialogues, dialogues, "dialogues"),
        "words_agent": Figure(_words(talks, "agent"), dialogues, "words"),
        "words_user": Figure(_words(talks, "user"), dialogues, "words"),
        "turns_per_minute": Figure(turns / seconds * 60, turns, "turns/minute"),
        "backchannels_agent": Figure(kinds[AGENT, "backchannel"], dialogues, "backchannels"),
        "backchannels_user": Figure(kinds[USER, "backchannel"], dialogues, "backchannels"),
        "interruptions": Figure(sum(map(_interruptions, talks)), dialogues, "turns"),
        "silence_share": Figure(1 - some_s / seconds, dialogues, "share of time"),
        "overlap_share": Figure(both_s / seconds, dialogues, "share of time"),
    }
    if some_s:
        found["overlap_speech_share"] = Figure(both_s / some_s, dialogues, "share of speech")
    if ahead:
        found["early_calls_share"] = Figure(float(np.mean(ahead)), len(ahead), "share of calls")
    return found


def _words(talks: Sequence[Talk], side: str) -> int:
    return sum(len(talk.row[f"{side}_words"]) for talk in talks)


def _interruptions(talk: Talk) -> int:
    steps = [step for step in talk.script.get("steps", ()) if step["step"] == "Said"]
    return sum(
        step["side"] == "user" and step["over"] is not None and step["manner"] == "turn"
        for step in steps
    )


def early_calls(talk: Talk) -> list[bool]:
    """Whether the caller speaks on for 0.4 s after each call or revision is right."""
    return [
        left_s(talk.turns, action["time_s"]) >= _AHEAD_S
        for action in talk.row["actions"]
        if action["kind"] in ("call", "revise")
    ]


def as_markdown(found: Mapping[str, Figure], by: Mapping[str, Group]) -> str:
    """What docs/data-card.md takes in."""
    value = {name: figure.value for name, figure in found.items()}
    rows = [
        ["hours, dialogues", f"{value['hours']:.1f}, {value['dialogues']:,}"],
        ["words of the agent, of the caller", f"{_plain(value, 'words_agent', 'words_user')}"],
        ["turns a minute", f"{value['turns_per_minute']:.1f}"],
        ["interruptions by the caller", _plain(value, "interruptions")],
        [
            "backchannels of the agent, of the caller",
            _plain(value, "backchannels_agent", "backchannels_user"),
        ],
        ["silence, share of the time", f"{value['silence_share']:.1%}"],
    ]
    if "early_calls_share" in value:
        share = f"{value['early_calls_share']:.1%} of {found['early_calls_share'].n:,}"
        rows.append(["calls and revisions 0.4 s or more before the caller's turn ends", share])
    parts = [grid(["", "value"], rows), *map(_group_table, by.values()), gap_table(found)]
    return "\n".join(part for part in parts if part)


def _plain(value: Mapping[str, float], *names: str) -> str:
    return ", ".join(f"{value[name]:,}" for name in names)


def _group_table(group: Group) -> str:
    if not group.counts:
        return ""
    if not group.hours:
        listed = ", ".join(f"`{name}` {count:,}" for name, count in group.counts.items())
        return f"**{group.title[0].upper()}{group.title[1:]}**: {listed}.\n"
    rows = [[f"`{n}`", f"{c:,}", f"{group.hours[n]:.2f}"] for n, c in group.counts.items()]
    return grid([group.title, "dialogues", "hours"], rows)


def describe(folder: Path, out: Path) -> str:
    """Writes the report, the Markdown and the picture; returns the Markdown."""
    begun = Begun()
    check_out(out)
    talks = read_talks(folder)
    by = groups(talks)
    turns = [talk.turns for talk in talks]
    found = {**figures(talks), **gap_figures(turns)}
    named = {
        k: f for prefix, group in by.items() for k, f in group.figures(prefix, "count").items()
    }
    markdown = as_markdown(found, by)
    draw_gaps(turns, out.with_suffix(".png"))
    write_report(out, "dialogue_statistics", begun, {**found, **named}, markdown)
    return markdown


@hydra.main(version_base=None, config_path="../conf", config_name="statistics")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    try:
        print(describe(Path(cfg.folder), Path(cfg.out)))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
