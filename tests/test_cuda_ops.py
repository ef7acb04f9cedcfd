"""Operators that have CUDA kernels on a CPU, where PyTorch does their work: they are what torch
expects, and modules that use them say the same. tests/test_gpu.py has the kernels themselves."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_cases import assert_same, cases, copied
from cuda_emulator import CUDA, ROOT, build, missing
from torch import Tensor, nn

from model import ops
from model.cuda_ops import OPERATORS, philox
from model.ops import use_kernels
from model.quantizer import SplitQuantizer
from model.seanet_streaming import StreamedConv, StreamedConvTranspose
from model.streaming import CausalConv1d, CausalConvTranspose1d
from model.transformer import Transformer, TransformerConfig

pytestmark = pytest.mark.skipif(ops.library() is None, reason="the kernels are not built")


def is_float8(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float8_e4m3fn


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_what_torch_expects(name: str) -> None:
    """`opcheck` of a few calls of each, of different types; its own sums don't know float8."""
    operator = getattr(torch.ops.duologue, name).default
    found = [case for case in cases(name) if not any(map(is_float8, case))]
    for case in (found[0], found[len(found) // 2], found[-1]):
        torch.library.opcheck(operator, tuple(map(copied, case)))


@pytest.mark.parametrize("name", OPERATORS)
def test_nothing_is_read_that_must_not_be(name: str) -> None:
    """Cases have NaN there."""
    for case in cases(name):
        found = getattr(torch.ops.duologue, name)(*map(copied, case))
        for tensor in found if isinstance(found, tuple) else (found,):
            assert not tensor.isnan().any()


def test_philox_is_what_others_have() -> None:
    """Known answers of Random123 (kat_vectors, philox4x32, 10 rounds): their first two words."""
    zero, ones = torch.zeros(1, dtype=torch.int64), -torch.ones(1, dtype=torch.int64)
    for seed, draw, stream, first, second in (
        (zero, zero, 0, 0x6627E8D5, 0xE169C58D),
        (ones, ones, -1, 0x408F276D, 0x41C83B0E),
    ):
        assert philox(seed, draw, stream).item() == ((first << 21) | (second >> 11)) / 2**53


# The binding of the kernels, which the emulator runs

NO_STREAM = """
#include <cstdint>
extern "C" int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
"""


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The operators as kernels/torch/cuda.cpp binds them, on the emulator's kernels."""
    if missing():
        pytest.skip(missing())
    folder, torch_folder = tmp_path_factory.mktemp("emulated"), Path(torch.__file__).parent
    (folder / "no_stream.cpp").write_text(NO_STREAM)
    command = [
        "g++", "-shared", "-fPIC", "-std=c++20", "-o", folder / "emulated.so",
        "-DDUOLOGUE_CUDA", "-DDUOLOGUE_NAMESPACE=duologue_emulated", "-DDUOLOGUE_DEVICE=CPU",
        "-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{torch_folder / 'include'}",
        f"-I{ROOT / 'kernels' / 'cpu'}", ROOT / "kernels" / "torch" / "cuda.cpp",
        folder / "no_stream.cpp", *(build(source.stem) for source in sorted(CUDA.glob("*.cu"))),
        f"-L{torch_folder / 'lib'}", "-ltorch_cpu",
    ]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True)
    schema = str(torch.ops.duologue.sample.default._schema).removeprefix("duologue::sample")
    torch.library.define("duologue_emulated::sample", schema)
    torch.ops.load_library(folder / "emulated.so")
    return torch.ops.duologue_emulated


@pytest.mark.parametrize("name", [*OPERATORS, "sample"])
def test_a_kernel_as_it_is_bound(name: str, emulated: Any) -> None:
    for case in cases(name):
        here, there = tuple(map(copied, case)), tuple(map(copied, case))
        expected = getattr(torch.ops.duologue, name)(*here)
        assert_same(getattr(emulated, name)(*there), expected)
        assert_same(there, here)  # what it writes to


def test_what_does_not_fit_is_refused(emulated: Any) -> None:
    x, update, weight, eps = cases("residual_rms_norm")[2]
    with pytest.raises(RuntimeError, match="update has size 2 in dimension 1, must have 64"):
        emulated.residual_rms_norm(x, update[:, :2].contiguous(), weight, eps)
    with pytest.raises(RuntimeError, match="weight must be a contiguous tensor of the type"):
        emulated.residual_rms_norm(x, update, weight.double(), eps)
    with pytest.raises(RuntimeError, match="x is of a type that the kernels don't take"):
        emulated.residual_rms_norm(x.double(), None, weight.double(), eps)
    windows, overlap, *_ = cases("conv_input")[4]
    with pytest.raises(RuntimeError, match="pad_mode 'zeros': must be constant, replicate or"):
        emulated.conv_input(windows, overlap, None, None, False, "zeros")
    with pytest.raises(RuntimeError, match="conv_input: sizes that its kernel does not take"):
        emulated.conv_input(windows, overlap, None, None, False, "reflect")  # without `started`


# What modules do with them, on a CPU in a GPU's place


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The names of the operators that modules call meanwhile."""
    names: set[str] = set()

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            names.add(name)
            return getattr(torch.ops.duologue, name)

    monkeypatch.setattr(ops, "CUDA", "cpu")
    monkeypatch.setattr(ops, "_has_cuda_kernels", lambda: True)
    monkeypatch.setattr(ops, "library", Recorder)
    with torch.inference_mode():
        yield names


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("pinned", [0, 3])
def test_a_transformer(pinned: int, held: bool, used: set[str]) -> None:
    torch.manual_seed(0)
    config = TransformerConfig(24, 2, 3, 1, 20, window=7, pinned=pinned)
    stack = Transformer(config).eval()
    ours, reference = stack.init_state(4), stack.init_state(4)
    for turn in range(3 * config.attention.reach):
        x, active = torch.randn(4, 1, 24), torch.rand(4) < 0.6 if turn % 3 else None
        rows = torch.randperm(4) if held else torch.arange(4)
        parts = [s.gather(rows) for s in (ours, reference)] if held else [ours, reference]
        y = stack(x, parts[0], active)
        with use_kernels("off"):
            expected = stack(x, parts[1], active)
        if held:
            ours.scatter(rows, parts[0])
            reference.scatter(rows, parts[1])
        which = slice(None) if active is None else active
        torch.testing.assert_close(y[which], expected[which], atol=2e-5, rtol=1e-4)
    for mine, theirs in zip(ours.tensors(), reference.tensors(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)
    assert {"residual_rms_norm", "rope_append", "ring_attention"} <= used


STREAMED = {
    "conv": lambda: CausalConv1d(6, 5, 7, stride=2),
    "conv_transpose": lambda: CausalConvTranspose1d(6, 5, 5, 2),
    "constant": lambda: StreamedConv(nn.Conv1d(6, 5, 4, dilation=2)),
    "replicate": lambda: StreamedConv(nn.Conv1d(6, 5, 4, stride=2), "replicate"),
    "reflect": lambda: StreamedConv(nn.Conv1d(6, 5, 7), "reflect"),
    "seanet_transpose": lambda: StreamedConvTranspose(nn.ConvTranspose1d(6, 5, 4, stride=2)),
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_streamed_layer(name: str, used: set[str]) -> None:
    torch.manual_seed(0)
    layer: Any = STREAMED[name]()
    ours, reference = layer.init_state(3), layer.init_state(3)
    for turn, steps in enumerate((2, 8, 4, 2, 2)):
        x, active = torch.randn(3, steps, 6), torch.arange(3) != turn % 4
        y = layer(x, ours, active)
        with use_kernels("off"):
            expected = layer(x, reference, active)
        torch.testing.assert_close(y[active], expected[active])
    for mine, theirs in zip(ours.tensors(), reference.tensors(), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert used == {"conv_transpose_output" if "transpose" in name else "conv_input"}


def test_a_quantizer(used: set[str]) -> None:
    torch.manual_seed(0)
    quantizer = SplitQuantizer(8, 6, 40, 5)
    latent = torch.randn(3, 2, 14)
    codes = quantizer.encode(latent)
    assert used == {"rvq_encode"}
    assert torch.equal(codes, quantizer(latent).codes)
    with use_kernels("off"):
        expected = quantizer.lookup(codes)
    for found, wanted in zip(quantizer.lookup(codes), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    quantizer.get_buffer("semantic_codebook").neg_()  # which must be noticed
    assert torch.equal(quantizer.encode(latent), quantizer(latent).codes)


# When they are used


def test_only_where_they_can_be(used: set[str]) -> None:
    x = torch.zeros(1)
    assert ops.cuda_kernels_for(x, x.clone())
    assert not ops.cuda_kernels_for(x, x.half())
    assert not ops.cuda_kernels_for(x.double())
    with use_kernels("off"):
        assert not ops.cuda_kernels_for(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not ops.cuda_kernels_for(x)
    with torch.inference_mode(False):
        assert not ops.cuda_kernels_for(torch.zeros(1))


@pytest.mark.parametrize(
    ("built", "capability", "reason"),
    [
        (False, (9, 0), "was built without nvcc"),
        (True, (7, 5), "none is compiled for compute capability (7, 5)"),
        (True, (12, 1), None),
    ],
)
def test_where_there_are_none_the_reason_is_logged_once(
    built: bool,
    capability: tuple[int, int],
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda *_: built)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    ops._has_cuda_kernels.cache_clear()
    try:
        assert [ops._has_cuda_kernels() for _ in range(2)] == [reason is None] * 2
    finally:
        ops._has_cuda_kernels.cache_clear()
    assert [record.getMessage().endswith(reason or "") for record in caplog.records] == (
        [True] if reason else []
    )
