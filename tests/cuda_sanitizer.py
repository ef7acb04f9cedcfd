"""`python tests/cuda_sanitizer.py`: tests/test_gpu.py's of operators under compute-sanitizer.

Needs a GPU and the compute-sanitizer of .venv-cuda; `make cuda-check` runs it.
"""

import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("memcheck", "initcheck", "synccheck", "racecheck")


def main() -> None:
    """Each tool in turn; fails where one finds something."""
    if not torch.cuda.is_available():
        print("skipped: no GPU")
        return
    found = sorted(ROOT.glob(".venv-cuda/**/compute-sanitizer"))
    if not found:
        raise SystemExit("there is no compute-sanitizer in .venv-cuda: make cuda")
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "tests/test_gpu.py",
        "-k",
        "operator",
    ]
    for tool in TOOLS:
        print(f"compute-sanitizer --tool {tool}", flush=True)
        command = [found[0], "--tool", tool, "--error-exitcode", "1", *tests]
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
