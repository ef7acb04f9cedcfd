"""The gate of the CUDA kernels passes, and what it is there to find it finds."""

import json
import re
from pathlib import Path

import pytest
from cuda_gate import (
    BUDGET,
    Budget,
    all_kernels,
    budget_of,
    compiled,
    kernels_in,
    problems,
    toolkit,
)

TOOLS = toolkit()
needs_nvcc = pytest.mark.skipif(TOOLS is None, reason="needs nvcc of .venv-cuda: make cuda")

# What ptxas and nvdisasm print.
PTXAS = """
ptxas info    : Compiling entry function '_ZN8duologue4addsIfLi4EEEvPKfPf' for 'sm_90'
ptxas info    : Function properties for _ZN8duologue4addsIfLi4EEEvPKfPf
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 272 bytes smem, 392 bytes cmem[0]
"""
SASS = """
.text._ZN8duologue4addsIfLi4EEEvPKfPf:
        /*0010*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/                   STL [R1], R4 ;
        /*0030*/                   LDL.64 R6, [R1+0x8] ;
        /*0040*/                   LDG.E R5, desc[UR4][R2.64] ;
"""


def test_what_is_read_of_a_kernel() -> None:
    (kernel,) = kernels_in(PTXAS, SASS, "90")
    assert kernel.name == "adds<float, 4>"
    assert (kernel.registers, kernel.shared, kernel.stack, kernel.spilled) == (40, 272, 8, 28)
    assert (kernel.local, kernel.wide_loads) == (2, 1)


def test_each_bar_is_held() -> None:
    (kernel,) = kernels_in(PTXAS, SASS.replace(".128", ""), "90")
    budget: Budget = {"adds<float, 4>": {"registers": 32, "shared": 256, "wide": 1}, "gone": {}}
    where = "adds<float, 4> for sm_90: "
    assert list(problems([kernel], budget)) == [
        where + "40 registers, at most 32",
        where + "272 bytes of shared memory, at most 256",
        where + "8 bytes of stack, at most 0",
        where + "28 bytes spilled, at most 0",
        where + "2 instructions on local memory, at most 0",
        where + "reads no 128 bits at once, must",
        "gone: is in budget.json, but there is no such kernel",
    ]
    (unknown,) = problems([kernel], {})
    assert unknown == where + "is not in budget.json; look at it, then --write"


@needs_nvcc
def test_the_kernels_pass() -> None:
    """For one architecture: all four take minutes, `make cuda` has them."""
    assert TOOLS is not None
    kernels = all_kernels(TOOLS, ["90"])
    assert not list(problems(kernels, json.loads(BUDGET.read_text())))


# Needs a register for each of 64 numbers. (With launch bounds a limit on registers is ignored.)
HUNGRY = """
__global__ void hungry(const float* x, float* y) {
  float v[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) v[i] = x[i * 128 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) y[i * 128 + threadIdx.x] = v[i] * v[(i + 17) % 64];
}
"""


@needs_nvcc
def test_a_forced_spill_fails(tmp_path: Path) -> None:
    assert TOOLS is not None
    source = tmp_path / "hungry.cu"
    source.write_text(HUNGRY)
    as_it_is = compiled(TOOLS, source, "90")
    assert not list(problems(as_it_is, budget_of(as_it_is)))
    spilled = compiled(TOOLS, source, "90", ["-maxrregcount=32"])
    found = " ".join(problems(spilled, budget_of(as_it_is)))
    for what in ("stack", "spilled", "instructions on local memory"):
        assert re.search(rf"hungry for sm_90: \d+ .*{what}, at most 0", found)


@needs_nvcc
def test_a_warning_and_an_unknown_kernel_fail(tmp_path: Path) -> None:
    assert TOOLS is not None
    source = tmp_path / "more.cu"
    source.write_text("__global__ void more(int* x) { x[threadIdx.x] += 1; }")
    (kernel,) = compiled(TOOLS, source, "120")
    assert budget_of([kernel]) == {"more": {"registers": 8, "shared": 0, "wide": 0}}
    assert next(problems([kernel], {})).startswith("more for sm_120: is not in budget.json")
    source.write_text("__global__ void more(int* x) { int unused; x[threadIdx.x] += 1; }")
    with pytest.raises(ValueError, match=r"more\.cu for sm_120: .*unused"):
        compiled(TOOLS, source, "120")
