"""`python -m serve.bench out=FILE.json`: what an engine holds, and what happens to its callers.

A real engine process and callers over its socket, part by part (`conf/bench.yaml`):
`'~parts.kills'` leaves one out.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from train import report
from train.intervals import Metric, exact
from train.report import Outcome, Report

_VERSUS = {"moshi": "sessions_max", "vllm": "sessions_max_temporal"}  # ours that does as much


@hydra.main(version_base=None, config_path="../../conf", config_name="bench")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    try:
        if not cfg.out:
            raise ValueError("out is missing: give out=a .json file")
        report.check_out(Path(cfg.out))
        parts = {name: instantiate(part, _convert_="object") for name, part in cfg.parts.items()}
        load, start = os.getloadavg(), time.monotonic()
        whole = Outcome({})
        for name, part in parts.items():
            before = os.getloadavg()[0]
            found = part.measure(cfg.checkpoint, cfg.threads, cfg.speech)
            whole = Outcome(
                whole.metrics | found.metrics,
                whole.tables + found.tables,
                (*whole.notes, *found.notes, f"{name}: load {before:.1f} when it began"),
            )
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error
    whole = replace(whole, metrics=whole.metrics | _versus(whole.metrics))
    command = " ".join(["python -m serve.bench", *sys.argv[1:]])
    done = Report("engine", command, time.monotonic() - start, load, whole)
    report.write(done, Path(cfg.out))
    print(report.markdown(done))


def _versus(metrics: dict[str, Metric]) -> dict[str, Metric]:
    """How many times a peer's sessions this engine holds, doing as much as that one."""
    pairs = {peer: (ours, f"sessions_max_{peer}") for peer, ours in _VERSUS.items()}
    return {
        f"sessions_vs_{peer}": exact(
            metrics[ours].value / max(metrics[theirs].value, 1), 1, "times"
        )
        for peer, (ours, theirs) in pairs.items()
        if ours in metrics and theirs in metrics
    }


if __name__ == "__main__":
    main()
