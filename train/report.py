"""An evaluation's outcome as JSON (the one shape of docs/design.md) and as Markdown."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.report import current_commit, this_machine
from train.bars import BARS, Bar
from train.intervals import Metric


@dataclass(frozen=True)
class Table:
    """Rows of metric names; an empty name or one that was not measured leaves its cell empty."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]

    def __post_init__(self) -> None:
        for label, names in self.rows:
            if len(names) != len(self.columns):
                raise ValueError(
                    f"row {label}: {len(names)} names, must be {len(self.columns)} as the columns"
                )


@dataclass(frozen=True)
class Outcome:
    """What a suite found: figures, tables to show them in, and what is missing or to be known."""

    metrics: dict[str, Metric]
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """One run of one suite; `load` is what os.getloadavg() gave at its start."""

    suite: str
    command: str
    seconds: float
    load: tuple[float, float, float]
    outcome: Outcome
    commit: str = field(default_factory=current_commit)
    machine: str = field(default_factory=this_machine)

    def as_json(self) -> dict:
        """The shape of docs/design.md, and `notes`."""
        metrics = self.outcome.metrics
        return {
            "suite": self.suite,
            "command": self.command,
            "commit": self.commit,
            "machine": self.machine,
            "load": list(self.load),
            "seconds": round(self.seconds, 1),
            "metrics": {name: dataclasses.asdict(metrics[name]) for name in sorted(metrics)},
            "notes": list(self.outcome.notes),
        }


def check_out(out: Path) -> None:
    """Raises ValueError unless a report can be written to `out` and its Markdown beside it."""
    if out.suffix != ".json":
        raise ValueError(
            f"out is {str(out)!r}: must end in .json (the table goes to .md beside it)"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path in (out, out.with_suffix(".md")):
            existed = path.exists()
            with path.open("a"):
                pass
            if not existed:
                path.unlink()
    except OSError as error:
        raise ValueError(
            f"out is {str(out)!r}: cannot write there ({error.strerror}); name a file in a "
            "directory that you may write to"
        ) from error


def write(report: Report, out: Path) -> None:
    """Writes `out` and the Markdown of the same name."""
    out.write_text(json.dumps(report.as_json(), indent=2, allow_nan=False) + "\n")
    out.with_suffix(".md").write_text(markdown(report))


def markdown(report: Report) -> str:
    """Bars, tables, every figure with its interval, notes."""
    load = " ".join(f"{value:.1f}" for value in report.load)
    parts = [
        f"# Evaluation: {report.suite}\n",
        f"`{report.command}`  \ncommit {report.commit}, {report.machine}, "
        f"load {load} at the start, {report.seconds:.0f} s\n",
    ]
    metrics = report.outcome.metrics
    if bars := BARS.get(report.suite, ()):
        parts.append("## Bars\n\n" + bars_table(bars, metrics))
    parts += [_table(table, metrics) for table in report.outcome.tables]
    if report.outcome.notes:
        parts.append(
            "## Notes\n\n" + "\n".join(f"- {note}" for note in report.outcome.notes) + "\n"
        )
    parts.append(_everything(metrics))
    return "\n".join(parts)


def number(value: float) -> str:
    """Three significant digits and more, without an exponent."""
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def shown(metric: Metric | None) -> str:
    """Value and interval."""
    if metric is None:
        return ""
    if metric.low is None or metric.high is None:
        return number(metric.value)
    return f"{number(metric.value)} ({number(metric.low)} to {number(metric.high)})"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def bars_table(bars: Sequence[Bar], metrics: dict[str, Metric]) -> str:
    """What must hold, and whether it does, as a Markdown table."""
    rows = []
    for bar in bars:
        limit = bar.limit_value(metrics)
        name = ""
        if isinstance(bar.limit, str):
            name = f" ({number(bar.factor)} x " if bar.factor != 1 else " ("
            name += f"`{bar.limit}`)"
        wanted = f"{bar.relation} {'?' if limit is None else number(limit)}{name}"
        verdict = {True: "held", False: "**not held**", None: "not measured"}[bar.held(metrics)]
        rows.append([f"`{bar.metric}`", shown(metrics.get(bar.metric)), wanted, verdict])
    return _grid(["metric", "value (95 % interval)", "bar", "held"], rows)


def _table(table: Table, metrics: dict[str, Metric]) -> str:
    rows = [[label, *(shown(metrics.get(name)) for name in names)] for label, names in table.rows]
    return f"## {table.title}\n\n" + _grid(["", *table.columns], rows)


def _everything(metrics: dict[str, Metric]) -> str:
    rows = [
        [f"`{name}`", shown(metric), str(metric.n), metric.unit]
        for name, metric in sorted(metrics.items())
    ]
    return "## Every figure\n\n" + _grid(["metric", "value (95 % interval)", "n", "unit"], rows)
