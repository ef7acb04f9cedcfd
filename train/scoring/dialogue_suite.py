"""suite=dialogue: an agent talks to the callers of the frozen test suites, in closed loop."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data.dialogue import Dialogue
from data.scripts.backend import Backend
from data.scripts.domain import load_domain
from data.suites.suite import load_suites
from data.voices.say import say
from data.voices.silent import SILENT
from model.load_agent import load_agent
from model.ops import Mode, use_kernels
from train.intervals import Metric
from train.parallel import run_all
from train.report import Outcome
from train.scoring import dialogue_figures, recognizers
from train.scoring.dialogue_loop import Agent, caller_of, converse
from train.scoring.dialogue_tally import Spoken, Tally, tally
from train.scoring.patience import delayed
from train.scoring.recognizers import WordErrors, word_errors
from train.scoring.speech_metrics import at_16khz

_RECOGNIZER = "whisper"
_SAMPLE = "One moment."  # what a voice says to show that it is there


@dataclass(frozen=True)
class DialogueSuite:
    """What is asked, and how much; conf/suite/dialogue.yaml says what each field is."""

    domain: str
    suites: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    dialogues: int
    batch: int
    heard_lines: int
    details: str | None
    kernels: Mode = "exact"

    def __post_init__(self) -> None:
        known = load_suites(self.domain)
        for name in ("dialogues", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least 1")
        use_kernels(self.kernels)  # raises ValueError where there is no such mode
        if self.heard_lines < 0:
            raise ValueError(f"heard_lines is {self.heard_lines}: must not be negative")
        if not self.suites or not {*self.suites} <= {*known.suites}:
            raise ValueError(f"suites has {[*self.suites]}: must be of {sorted(known.suites)}")
        check_rows(self.domain, self.rows, {"voices", "line"})

    def check(self, checkpoint: Path) -> None:
        """Raises ValueError where `checkpoint` is no duplex model's directory, or `details` cannot
        be written."""
        load_agent(checkpoint)
        if self.details:
            try:
                Path(self.details).write_text("")
            except OSError as error:
                raise ValueError(
                    f"details is {self.details!r}: cannot write there ({error.strerror})"
                ) from error

    def run(self, checkpoint: Path, processes: int) -> Outcome:
        """Measures everything."""
        torch.set_num_threads(processes)
        with use_kernels(self.kernels):
            return self.measure(load_agent(checkpoint), processes)

    def measure(self, agent: Agent, processes: int) -> Outcome:
        """Talks to every row's callers, one row after the other."""
        metrics: dict[str, Metric] = {}
        notes, heard = [], []
        teacher = load_suites(self.domain).voices["agent"][0]
        recognized, problems = recognizers.usable((_RECOGNIZER,)) if self.heard_lines else ([], [])
        for name, row in self.rows.items():
            voices, missing = usable_voices(load_suites(self.domain).voices[row["voices"]])
            notes += missing
            if not voices:
                notes.append(f"row {name} is left out: none of its voices is installed")
                continue
            tallies = self._talk(agent, name, voices, teacher)
            heard.append(name)
            metrics |= dialogue_figures.conversation_figures(name, tallies)
            if recognized:
                lines = [line for one in tallies for line in one.lines]
                metrics |= _voice_figures(name, lines, teacher, processes)
        tables = dialogue_figures.tables(heard)
        return Outcome(metrics, tables, tuple(dict.fromkeys([*notes, *problems])))

    def _talk(self, agent: Agent, row: str, voices: Sequence[str], teacher: str) -> list[Tally]:
        """The conversations of a row; of each only the lines that are to be recognised are kept."""
        domain = load_domain(self.domain)
        tallies: list[Tally] = []
        going_on: dict[str, Dialogue] = {}
        dialogues = self._dialogues(self.rows[row]["line"], voices, teacher)
        callers = (caller_of(going_on.setdefault(d.name, d)) for d in dialogues)
        with tqdm(total=self.dialogues, desc=f"dialogues, {row}", unit="dialogue") as bar:
            for caller, conversation in converse(agent, callers, self.batch, Backend(domain)):
                dialogue = delayed(going_on.pop(caller.name), conversation.waits)
                one = tally(domain, dialogue, conversation)
                tallies.append(replace(one, lines=self._chosen(one.lines, len(tallies))))
                self._write(row, tallies[-1])
                bar.update()
        return tallies

    def _dialogues(self, line: str, voices: Sequence[str], teacher: str) -> Iterator[Dialogue]:
        """The items of the suites in turn, each said by the voice after the last one's."""
        known = load_suites(self.domain)
        for place in range(self.dialogues):
            suite = known.suites[self.suites[place % len(self.suites)]]
            number = place // len(self.suites) % suite.items
            first = (place - number) % len(voices)
            turned = [*voices[first:], *voices[:first]]
            yield suite.dialogue(number, turned, teacher, known.lines[line])

    def _chosen(self, lines: Sequence[Spoken], number: int) -> tuple[Spoken, ...]:
        """As many of a conversation's lines as are to be heard, not the same place in each."""
        count = min(-(-self.heard_lines // self.dialogues), len(lines))
        return tuple(lines[(number + step) % len(lines)] for step in range(count))

    def _write(self, row: str, one: Tally) -> None:
        if self.details:
            with Path(self.details).open("a") as file:
                file.write(json.dumps({"row": row, **one.as_json()}) + "\n")


def check_rows(domain: str, rows: Mapping[str, Mapping[str, Any]], fields: set[str]) -> None:
    """Raises ValueError unless each row has just these fields, and a domain's voices and line."""
    known = load_suites(domain)
    for name, row in rows.items():
        if {*row} != fields:
            raise ValueError(f"rows.{name} has {sorted(row)}: must have {sorted(fields)}")
        for field, among in (("voices", known.voices), ("line", known.lines)):
            if row[field] not in among:
                raise ValueError(
                    f"rows.{name}.{field} is {row[field]!r}: must be one of {sorted(among)}"
                )


def usable_voices(voices: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of `voices` that speak here, and for the others a line that says why not."""
    found, missing = [], []
    for voice in voices:
        try:
            if voice != SILENT:
                say(_SAMPLE, voice)
        except (FileNotFoundError, ImportError, RuntimeError) as error:
            missing.append(f"voice {voice} is missing: {str(error).splitlines()[0][:200]}")
        else:
            found.append(voice)
    return found, missing


def _voice_figures(
    row: str, lines: Sequence[Spoken], teacher: str, processes: int
) -> dict[str, Metric]:
    jobs = {("agent", n): functools.partial(_heard, *line) for n, line in enumerate(lines)}
    jobs |= {
        ("teacher", n): functools.partial(_taught, line.text, teacher)
        for n, line in enumerate(lines)
    }
    results = run_all(jobs, processes, f"recognising, {row}")
    agent, taught = ([results[who, n] for n in range(len(lines))] for who in ("agent", "teacher"))
    return dialogue_figures.voice_figures(row, agent, taught)


def _heard(text: str, audio: NDArray[np.float32]) -> WordErrors:
    heard = recognizers.transcribe(_RECOGNIZER, at_16khz(audio)) if len(audio) else ""
    return word_errors(text, heard)


def _taught(text: str, voice: str) -> WordErrors:
    return _heard(text, say(text, voice).audio)
