"""CUDA kernels that are wrong on purpose, under the emulator: the share that its checks catch."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from train.intervals import exact
from train.report import Outcome


@dataclass(frozen=True)
class Mutants:
    """`script` prints, as JSON, of each whether it is caught."""

    script: str

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """Raises RuntimeError where the script fails: one of them cannot be compiled, say."""
        ran = subprocess.run(
            [sys.executable, self.script],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": "."},
        )
        if ran.returncode:
            raise RuntimeError(f"{self.script} failed: {ran.returncode}")
        caught: dict[str, bool] = json.loads(ran.stdout)
        share = sum(caught.values()) / len(caught)
        notes = tuple(f"mutant {name} is not caught" for name, is_so in caught.items() if not is_so)
        return Outcome({"mutants_caught": exact(share, len(caught), "share")}, notes=notes)
