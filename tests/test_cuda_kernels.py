"""The CUDA kernels' own source, run on a CPU: right at awkward shapes, and wrong ones are caught.

Not what a GPU does with it: see docs/kernels.md for what this shows and what it does not.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cuda_checks import CHECKS, SANITIZED
from cuda_emulator import CUDA, KernelError, Kernels, missing, signatures
from cuda_mutants import MUTANTS, what_catches

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

# One of each kernel; `make bench` has all of them.
SAMPLE = (
    "norm_thread_gone_before_barrier",
    "ring_that_does_not_wrap",
    "attention_part_overwritten",
    "block_sum_overwritten",
    "conv_without_barrier",
    "transpose_window_one_too_long",
    "rvq_last_of_equals",
    "embedding_stops_at_nothing",
)


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels()


@pytest.mark.parametrize("name", CHECKS)
def test_kernel(name: str, kernels: Kernels) -> None:
    CHECKS[name](kernels)


@pytest.mark.parametrize("name", SAMPLE)
def test_mutant_is_caught(name: str) -> None:
    said = what_catches(name)
    assert said, f"{name} passes"
    assert MUTANTS[name].get("says", "") in said


def test_every_kernel_has_checks_and_mutants() -> None:
    sources = {source.stem for source in CUDA.glob("*.cu")}
    assert sources <= set(CHECKS)
    assert sources <= {Path(mutant["file"]).stem for mutant in MUTANTS.values()}
    assert all(any(name.startswith(source) for source in sources) for name in signatures())


def test_sanitizer_finds_nothing() -> None:
    library = subprocess.check_output(["g++", "-print-file-name=libasan.so"], text=True).strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    script = Path(__file__).with_name("cuda_checks.py")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == SANITIZED
    assert "heap-buffer-overflow" in done.stderr  # of the kernel that is wrong on purpose


def test_bad_sizes_and_types_are_refused(kernels: Kernels) -> None:
    x = torch.zeros(2, 8)
    with pytest.raises(KernelError, match="error 1 "):
        kernels("residual_rms_norm", x, None, x[0], None, x.clone(), 2, 8, 1e-5, 7)  # no such type
    with pytest.raises(KernelError, match="error 1 "):
        kernels("residual_rms_norm", x, x.clone(), x[0], None, x.clone(), 2, 8, 1e-5, 0)  # no sum
    position, keys = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4, 1, 512)
    for head_dim, splits in ((3, 1), (8, 2), (512, 1)):  # odd, more than parts, too wide
        with pytest.raises(KernelError, match="error 1 "):
            kernels("ring_attention", x, None, keys, keys, None, None, position, None, None, x,
                    None, 1, 1, 1, head_dim, 4, 0, splits, 0, 0)  # fmt: skip
    tokens = torch.zeros(2, dtype=torch.int64)
    for temperature, top_k, top_p in ((-1.0, 0, 1.0), (1.0, -1, 1.0), (1.0, 0, 0.0)):
        with pytest.raises(KernelError, match="error 1 "):
            kernels("sample", x, torch.zeros(2).double(), None, None, 0, None, tokens,
                    torch.zeros(2, 8, dtype=torch.int64), 2, 8, temperature, top_k, top_p,
                    0)  # fmt: skip
