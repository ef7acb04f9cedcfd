"""CUDA kernels that are wrong on purpose: each must be caught by a check.

As a script it prints which are, as JSON: `python tests/cuda_mutants.py`.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import yaml
from cuda_checks import CHECKS
from cuda_emulator import CUDA, KernelError, Kernels, build
from tqdm import tqdm

MUTANTS: dict[str, dict[str, str]] = yaml.safe_load(
    Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
)


def what_catches(name: str) -> str:
    """What the check says of a mutant; empty where it says nothing. One that can't be compiled, or
    is no longer a change of one place, raises RuntimeError."""
    mutant = MUTANTS[name]
    text = (CUDA / mutant["file"]).read_text(encoding="utf-8")
    if text.count(mutant["from"]) != 1:
        raise RuntimeError(f"{name}: `from` stands {text.count(mutant['from'])} times in its file")
    kernel = mutant.get("kernel", Path(mutant["file"]).stem)
    changed = {mutant["file"]: text.replace(mutant["from"], mutant["to"])}
    kernels = Kernels({kernel: build(kernel, changed)}, seeds=(0, 1, 2))
    try:
        CHECKS[mutant.get("check", kernel)](kernels)
    except (AssertionError, KernelError) as error:
        return str(error) or repr(error)
    return ""


def caught(names: Iterable[str] = MUTANTS) -> dict[str, bool]:
    """Which of them are."""
    return {name: bool(what_catches(name)) for name in tqdm(list(names), "mutants")}


if __name__ == "__main__":
    print(json.dumps(caught(), indent=1))
