"""suite=front_desk: an agent and cascades talk to the frozen suites' callers, in closed loop."""

import json
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.dialogue import Dialogue
from data.scripts.backend import Backend
from data.scripts.domain import load_domain
from data.suites.suite import Suite, has_recordings, load_suites
from model.codec import Codec
from model.load_agent import load_agent
from model.ops import Mode, use_kernels
from train.cascade.cascade import Cascade, CascadeConfig
from train.intervals import Metric
from train.report import Outcome
from train.scoring import front_desk_figures, front_desk_picture, quiet_calls, recognizers
from train.scoring.agent_voice import voice_figures
from train.scoring.dialogue_loop import Agent, Hold, caller_of, converse
from train.scoring.dialogue_suite import check_rows, usable_voices
from train.scoring.dialogue_tally import Spoken, tally
from train.scoring.front_desk_tally import Judged, judge
from train.scoring.live_loop import converse_live
from train.scoring.patience import cues_of, delayed

_CLEAN = "clean"


@dataclass(frozen=True)
class FrontDeskSuite:
    """What is asked, and how much; conf/suite/front_desk.yaml says what each field is."""

    domain: str
    rows: Mapping[str, Mapping[str, Any]]
    dialogues: int
    seeds: int
    batch: int
    heard_lines: int
    quiet_minutes: int
    cascades: tuple[int, ...]
    details: str | None = None
    picture: str | None = None
    server: str | None = None
    kernels: Mode = "exact"

    def __post_init__(self) -> None:
        known = load_suites(self.domain)
        for name in ("dialogues", "seeds", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least 1")
        for name in ("heard_lines", "quiet_minutes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: must not be negative")
        use_kernels(self.kernels)  # raises ValueError where there is no such mode
        for pause_ms in self.cascades:
            CascadeConfig(pause_ms=pause_ms)
        check_rows(self.domain, self.rows, {"voices", "line", "suites"})
        for name, row in self.rows.items():
            if unknown := {*row["suites"]} - {*known.suites}:
                raise ValueError(
                    f"rows.{name}.suites has {sorted(unknown)}: must be of {sorted(known.suites)}"
                )

    def check(self, checkpoint: Path) -> None:
        """Raises ValueError where `checkpoint` is no duplex model's directory, what a cascade needs
        is not installed, the server does not answer, or a file cannot be written."""
        load_agent(checkpoint)
        self._cascades()
        if self.server:
            try:
                urllib.request.urlopen(f"{self.server}/readyz").close()
            except (OSError, ValueError) as error:
                raise ValueError(f"server is {self.server!r}: does not answer ({error})") from error
        for name in ("details", "picture"):
            if path := getattr(self, name):
                try:
                    Path(path).write_text("")
                except OSError as error:
                    raise ValueError(
                        f"{name} is {path!r}: cannot write there ({error.strerror})"
                    ) from error

    def run(self, checkpoint: Path, processes: int) -> Outcome:
        """Measures everything."""
        torch.set_num_threads(processes)
        with use_kernels(self.kernels):
            agent = load_agent(checkpoint)
            return self.measure({"": agent, **self._cascades()}, agent.codec, processes)

    def _cascades(self) -> dict[str, Cascade]:
        """By what their figures begin with."""
        voice = load_suites(self.domain).voices["agent"][0]
        found = {}
        for number, pause_ms in enumerate(self.cascades):
            prefix = f"cascade_{pause_ms}_" if number else "cascade_"
            try:
                found[prefix] = Cascade(self.domain, voice, CascadeConfig(pause_ms=pause_ms))
            except (ImportError, OSError) as error:
                raise ValueError(f"cascades is {[*self.cascades]}: {error}") from error
        return found

    def measure(
        self, agents: Mapping[str, Agent], codec: Codec[Any] | None, processes: int
    ) -> Outcome:
        """Each agent talks to the same callers; the first one's figures have no prefix. `codec` is
        the first one's."""
        metrics: dict[str, Metric] = {}
        voices, notes = self._voices()
        judged: dict[str, list[Judged]] = {}
        usable, problems = recognizers.usable(tuple(recognizers.RECOGNIZERS))
        for prefix, agent in agents.items():
            began_s = time.monotonic()
            title = prefix.rstrip("_") or "checkpoint"
            hold = self._held_with(agent)
            judged[prefix] = found = self._talk(hold, title, voices)
            notes.append(f"{title}: {len(found)} dialogues in {time.monotonic() - began_s:.0f} s")
            own = self._figures(found)
            own |= quiet_calls.figures(hold, self.domain, self.quiet_minutes)
            lines = [line for one in found for line in one.tally.lines]
            if self.heard_lines and lines:
                through = codec if prefix == "" else None
                own |= voice_figures(lines, self._teacher, through, usable, processes)
            if isinstance(agent, Cascade):
                own |= agent.figures()
            metrics |= {f"{prefix}{name}": metric for name, metric in own.items()}
        for prefix in list(agents)[1:]:
            metrics |= self._leads(judged, prefix)
        if self.picture:
            front_desk_picture.draw(judged, Path(self.picture))
        tables = front_desk_figures.tables([*agents], [*voices])
        return Outcome(metrics, tables, tuple(dict.fromkeys([*notes, *problems])))

    @property
    def _teacher(self) -> str:
        return load_suites(self.domain).voices["agent"][0]

    def _voices(self) -> tuple[dict[str, list[str]], list[str]]:
        """The rows that somebody speaks here, and who; and notes about the others."""
        voices, notes = {}, []
        for name, row in self.rows.items():
            found, missing = usable_voices(load_suites(self.domain).voices[row["voices"]])
            notes += missing
            if found:
                voices[name] = found
            else:
                notes.append(f"row {name} is left out: none of its voices is installed")
        return voices, notes

    def _figures(self, judged: Sequence[Judged]) -> dict[str, Metric]:
        """Those of each row, and without its name those of all pooled ones together."""
        metrics = front_desk_figures.figures([one for one in judged if self._is_pooled(one.row)])
        for name in self.rows:
            found = front_desk_figures.figures([one for one in judged if one.row == name])
            metrics |= {f"{figure}_{name}": metric for figure, metric in found.items()}
        return metrics

    def _is_pooled(self, row: str) -> bool:
        """Whether figures without a row's name are of it too: a clean line, and no recordings."""
        voices = load_suites(self.domain).voices[self.rows[row]["voices"]]
        return self.rows[row]["line"] == _CLEAN and not has_recordings(voices)

    def _leads(self, judged: Mapping[str, Sequence[Judged]], prefix: str) -> dict[str, Metric]:
        """How much better the first agent's arguments are than another's, by row."""
        return {
            f"{prefix}{figure}_{row}": metric
            for row in self.rows
            for figure, metric in front_desk_figures.argument_lead(
                *([one for one in judged[agent] if one.row == row] for agent in ("", prefix))
            ).items()
        }

    def _held_with(self, agent: Agent) -> Hold:
        """How an agent is called: here, or the first one by its server."""
        backend = Backend(load_domain(self.domain))
        if self.server and not isinstance(agent, Cascade):
            return partial(converse_live, self.server, at_once=self.batch, backend=backend)
        return lambda callers: converse(agent, callers, self.batch, backend)

    def _talk(self, hold: Hold, title: str, voices: Mapping[str, Sequence[str]]) -> list[Judged]:
        """The conversations of all rows; of each only the lines that are to be recognised stay."""
        judged: list[Judged] = []
        count = sum(1 for row in voices for _ in self._items(row, voices[row]))
        with tqdm(total=count, desc=title, unit="dialogue") as bar:
            for row, speaking in voices.items():
                for one in self._row(hold, row, speaking):
                    lines = self._chosen(one, count, len(judged))
                    one = replace(one, tally=replace(one.tally, lines=lines))
                    judged.append(one)
                    self._write(title, one)
                    bar.update()
        return judged

    def _row(self, hold: Hold, row: str, voices: Sequence[str]) -> Iterator[Judged]:
        domain = load_domain(self.domain)
        going_on: dict[str, tuple[str, Dialogue]] = {}

        def callers():
            for suite, dialogue in self._dialogues(row, voices):
                going_on[dialogue.name] = suite, dialogue
                yield replace(caller_of(dialogue), cues=cues_of(dialogue))

        for caller, conversation in hold(callers()):
            suite, dialogue = going_on.pop(caller.name)
            dialogue = delayed(dialogue, conversation.waits)
            counted = tally(domain, dialogue, conversation)
            yield judge(domain, row, suite, dialogue, conversation, counted)

    def _dialogues(self, row: str, voices: Sequence[str]) -> Iterator[tuple[str, Dialogue]]:
        """The row's items as they are said; what seeds draw differs by their names."""
        line = load_suites(self.domain).lines[self.rows[row]["line"]]
        for suite, number, seed in self._items(row, voices):
            turned = _turned(suite, number, voices)
            dialogue = suite.dialogue(number, turned, self._teacher, line)
            yield suite.name, replace(dialogue, name=f"{dialogue.name} {seed}")

    def _items(self, row: str, voices: Sequence[str]) -> Iterator[tuple[Suite, int, int]]:
        """The row's items with each seed: suite, number, seed."""
        for name in self.rows[row]["suites"]:
            suite = load_suites(self.domain).suites[name]
            for seed in range(self.seeds):
                for number in suite.items_for(voices)[: self.dialogues]:
                    yield suite, number, seed

    def _chosen(self, one: Judged, count: int, number: int) -> tuple[Spoken, ...]:
        """As many of a conversation's lines as are to be heard, not the same place in each."""
        lines = one.tally.lines
        if not self.heard_lines or not lines or not self._is_pooled(one.row):
            return ()
        wanted = (number + 1) * self.heard_lines // count - number * self.heard_lines // count
        return tuple(lines[(number + step) % len(lines)] for step in range(min(wanted, len(lines))))

    def _write(self, title: str, one: Judged) -> None:
        if self.details:
            with Path(self.details).open("a") as file:
                file.write(json.dumps({"agent": title, **one.as_json()}) + "\n")


def _turned(suite: Suite, number: int, voices: Sequence[str]) -> list[str]:
    """The voices, so that each of them says each scene in turn."""
    first = (number // len(suite.scenes) - number) % len(voices)
    return [*voices[first:], *voices[:first]]
