"""The gate of the CUDA kernels: `python tests/cuda_gate.py`, which `make cuda` runs; no GPU needed.

Every kernels/cuda/*.cu is compiled for every architecture, warnings as errors, by the nvcc of
.venv-cuda. What ptxas and SASS tell of each kernel must keep to kernels/cuda/budget.json, which
`--write` makes of what is there. Nothing may be kept in local memory: no stack, no spills.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "kernels" / "cuda"
BUDGET = SOURCES / "budget.json"
ARCHITECTURES = ("80", "90", "100", "120")
FLAGS = ("-std=c++17", "-O3", "-Werror", "all-warnings")
GRANULE = 8  # registers of a thread are handed out by so many

_ENTRY = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
    re.S,
)
_SHARED = re.compile(r"(\d+) bytes smem")
_FUNCTION = re.compile(r"^\.text\.(\w+):$", re.M)
_LOCAL = re.compile(r"\b(?:LDL|STL)\b")
_WIDE_LOAD = re.compile(r"\bLDG\.\S*?(?:128|256)\b")

Budget = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Kernel:
    """What was made of one kernel for one architecture; `shared` bytes are the static ones,
    `wide_loads` the instructions that read 128 bits or more of global memory."""

    name: str
    architecture: str
    registers: int
    shared: int
    stack: int
    spilled: int
    local: int
    wide_loads: int


def toolkit() -> Path | None:
    """Where nvcc and nvdisasm of .venv-cuda lie, or None."""
    found = sorted(ROOT.glob(".venv-cuda/lib/python3*/site-packages/nvidia/cu13/bin/nvcc"))
    return found[0].parent if found else None


def compiled(
    tools: Path, source: Path, architecture: str, flags: Sequence[str] = ()
) -> list[Kernel]:
    """The kernels of a file, by nvcc. Raises ValueError with what it says where it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = [tools / "nvcc", *FLAGS, f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v"]
        done = _run([*command, *flags, "-o", cubin, source])
        if done.returncode:
            raise ValueError(f"{source.name} for sm_{architecture}: {done.stderr.strip()}")
        sass = _run([tools / "nvdisasm", "-c", cubin])
        if sass.returncode:
            raise ValueError(f"{source.name} for sm_{architecture}: {sass.stderr.strip()}")
    return list(kernels_in(done.stderr, sass.stdout, architecture))


def kernels_in(ptxas: str, sass: str, architecture: str) -> Iterator[Kernel]:
    """What `ptxas -v` and the instructions say of each kernel."""
    _, *parts = _FUNCTION.split(sass)
    code = dict(zip(parts[::2], parts[1::2], strict=True))
    entries = _ENTRY.findall(ptxas)
    names = _demangled([entry[0] for entry in entries])
    for (mangled, stack, stores, loads, registers, rest), name in zip(entries, names, strict=True):
        shared = _SHARED.search(rest)
        yield Kernel(
            name,
            architecture,
            int(registers),
            int(shared[1]) if shared else 0,
            int(stack),
            int(stores) + int(loads),
            len(_LOCAL.findall(code[mangled])),
            len(_WIDE_LOAD.findall(code[mangled])),
        )


def problems(kernels: Sequence[Kernel], budget: Budget) -> Iterator[str]:
    """What does not keep to the budget, a line each."""
    for kernel in kernels:
        where = f"{kernel.name} for sm_{kernel.architecture}"
        bars = budget.get(kernel.name)
        if bars is None:
            yield f"{where}: is not in {BUDGET.name}; look at it, then --write"
            continue
        for name, value, bar in (
            ("registers", kernel.registers, bars["registers"]),
            ("bytes of shared memory", kernel.shared, bars["shared"]),
            ("bytes of stack", kernel.stack, 0),
            ("bytes spilled", kernel.spilled, 0),
            ("instructions on local memory", kernel.local, 0),
        ):
            if value > bar:
                yield f"{where}: {value} {name}, at most {bar}"
        if bars["wide"] and not kernel.wide_loads:
            yield f"{where}: reads no 128 bits at once, must"
    for name in sorted(set(budget) - {kernel.name for kernel in kernels}):
        yield f"{name}: is in {BUDGET.name}, but there is no such kernel"


def budget_of(kernels: Sequence[Kernel]) -> Budget:
    """Bars for kernels as they are: the worst architecture counts."""
    return {
        name: {
            "registers": math.ceil(max(k.registers for k in same) / GRANULE) * GRANULE,
            "shared": max(k.shared for k in same),
            "wide": int(all(k.wide_loads for k in same)),
        }
        for name in sorted({kernel.name for kernel in kernels})
        if (same := [kernel for kernel in kernels if kernel.name == name])
    }


def all_kernels(tools: Path, architectures: Sequence[str] = ARCHITECTURES) -> list[Kernel]:
    """Those of every file."""
    jobs = list(product(sorted(SOURCES.glob("*.cu")), architectures))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda job: compiled(tools, *job), jobs)
        return [kernel for kernels in found for kernel in kernels]


def main() -> None:
    """Says what is wrong and how many kernels keep to the budget; fails where one does not."""
    tools = toolkit()
    if tools is None:
        raise SystemExit("gate: there is no nvcc in .venv-cuda: make cuda")
    kernels = all_kernels(tools)
    if "--write" in sys.argv[1:]:
        lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in budget_of(kernels).items()]
        BUDGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    found = list(problems(kernels, json.loads(BUDGET.read_text())))
    print(*found, sep="\n", end="\n" if found else "")
    names = {kernel.name for kernel in kernels}
    print(f"{len(names)} kernels for {len(ARCHITECTURES)} architectures, {len(found)} problems")
    sys.exit(bool(found))


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def _demangled(names: Sequence[str]) -> list[str]:
    """Without what they return, their namespaces and their arguments: `attend<float, 64>`."""
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return [_short(name) for name in done.stdout.splitlines()]


def _short(signature: str) -> str:
    depth, end = 0, len(signature)
    for index in range(len(signature) - 1, -1, -1):  # the arguments are the last parentheses
        depth += {")": 1, "(": -1}.get(signature[index], 0)
        if signature[index] == "(" and depth == 0:
            end = index
            break
    name = re.sub(r"\(anonymous namespace\)::|duologue::", "", signature[:end])
    return name.removeprefix("void ")


if __name__ == "__main__":
    main()
