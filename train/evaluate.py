"""`python -m train.evaluate suite=codec checkpoint=DIR out=FILE.json`: scores a checkpoint.

A suite is a file of conf/suite whose `_target_` is a frozen dataclass with `check(checkpoint)`,
which raises ValueError before any work, and `run(checkpoint, processes)`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Protocol

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from train import report
from train.report import Outcome, Report


class Suite(Protocol):
    """A set of measurements of one kind of checkpoint."""

    def check(self, checkpoint: Path) -> None:
        """Raises ValueError where the checkpoint cannot be scored."""
        ...

    def run(self, checkpoint: Path, processes: int) -> Outcome:
        """Measures."""
        ...


def evaluate(
    name: str, suite: Suite, checkpoint: Path, out: Path, processes: int, command: str
) -> Report:
    """Runs a suite and writes its report; raises ValueError before the work on wrong arguments."""
    if processes < 1:
        raise ValueError(f"processes is {processes}: must be at least 1")
    report.check_out(out)
    suite.check(checkpoint)
    load, start = os.getloadavg(), time.monotonic()
    outcome = suite.run(checkpoint, processes)
    done = Report(name, command, time.monotonic() - start, load, outcome)
    report.write(done, out)
    return done


@hydra.main(version_base=None, config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    try:
        for field, meaning in (("checkpoint", "a model's directory"), ("out", "a .json file")):
            if not cfg[field]:
                raise ValueError(f"{field} is missing: give {field}={meaning}")
        done = evaluate(
            HydraConfig.get().runtime.choices["suite"],
            instantiate(cfg.suite, _convert_="object"),
            Path(cfg.checkpoint),
            Path(cfg.out),
            cfg.processes,
            " ".join(["python -m train.evaluate", *sys.argv[1:]]),
        )
    except (ValueError, InstantiationException) as error:
        raise SystemExit(f"error: {error}") from error
    print(report.markdown(done))
    print(f"written: {cfg.out} and {Path(cfg.out).with_suffix('.md')}")


if __name__ == "__main__":
    main()
