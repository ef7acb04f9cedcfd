"""Figures about data: a report of the one shape in docs/design.md, and Markdown tables."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parent.parent


class Figure(NamedTuple):
    """A figure without an interval; `n` counts what it was made of."""

    value: float
    n: int
    unit: str


@dataclass(frozen=True)
class Begun:
    """When a run began, and how busy the machine was then."""

    at_s: float = field(default_factory=time.monotonic)
    load: tuple[float, float, float] = field(default_factory=os.getloadavg)


def check_out(out: Path) -> None:
    """Raises ValueError unless `out` is named like a report; makes its folder."""
    if out.suffix != ".json":
        raise ValueError(f"out is {str(out)!r}: must end in .json (a table goes to .md beside it)")
    out.parent.mkdir(parents=True, exist_ok=True)


def write_report(
    out: Path, suite: str, begun: Begun, figures: Mapping[str, Figure], markdown: str
) -> None:
    """Writes the report to `out` and its Markdown beside it."""
    report = {
        "suite": suite,
        "command": " ".join(["python", "-m", f"data.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "commit": current_commit(),
        "machine": this_machine(),
        "load": list(begun.load),
        "seconds": round(time.monotonic() - begun.at_s, 1),
        "metrics": {
            name: {"value": f.value, "low": None, "high": None, "n": f.n, "unit": f.unit}
            for name, f in sorted(figures.items())
        },
    }
    out.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    out.with_suffix(".md").write_text(markdown)


def current_commit() -> str:
    """The checked out commit, `-dirty` where files differ from it, `unknown` outside git."""
    git = ["git", "-C", str(_ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    if head.returncode:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if status.stdout.strip() else "")


def this_machine() -> str:
    """Processor, cores and system."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
