"""The fused operators of kernels/ and when they are used; each module's own code is the reference.

They run in inference mode on float32 tensors of the CPU, where the library has been built (`make
setup` does) and the environment's DUOLOGUE_KERNELS is not 0. Everywhere else, and for training, a
module does the same in PyTorch; `use_kernels` is the switch. docs/kernels.md says what each does.

What an operator makes of a row is the same to the bit in any batch and on any number of threads.
"""

import logging
import math
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import operator_shapes

LIBRARY = Path(__file__).parents[1] / "build" / "kernels" / "libduologue_kernels.so"
SWITCH = "DUOLOGUE_KERNELS"
CUDA = "cuda"  # a device's type; tests put CPU in its place
PANEL = 64  # outputs that lie side by side in a packed matrix

Mode = Literal["off", "exact", "int8"]

_CUDA_CAPABILITIES = (8, 9, 10, 12)  # of kernels/CMakeLists.txt, whatever follows the point
_CUDA_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_log = logging.getLogger(__name__)
_mode: Mode = "exact"


@cache
def library() -> Any | None:
    """The operators (`torch.ops.duologue`), or None, the reason for which is logged once."""
    if os.environ.get(SWITCH, "1") == "0":
        _log.info("no kernels: %s is 0", SWITCH)
        return None
    if not LIBRARY.exists():
        _log.warning("no kernels, PyTorch does their work: %s is missing, run make setup", LIBRARY)
        return None
    try:
        torch.ops.load_library(LIBRARY)
    except OSError as error:
        _log.warning("no kernels, PyTorch does their work: %s", error)
        return None
    from model import cuda_ops  # which uses modules, which use this

    operator_shapes.register()
    cuda_ops.register()
    return torch.ops.duologue


class use_kernels:
    """`with use_kernels("off"):` PyTorch does the work, in this process. With "exact", as without
    it, operators do; with "int8" the large layers' weights, and what goes into them, are rounded to
    8 bits, keys and values of new states to bfloat16, which is faster and not the same."""

    def __init__(self, mode: Mode) -> None:
        """Raises ValueError where there is no such mode."""
        if mode not in get_args(Mode):
            raise ValueError(f"kernels is {mode!r}: must be one of {', '.join(get_args(Mode))}")
        self.mode: Mode = mode
        self.before: Mode = _mode

    def __enter__(self) -> None:
        global _mode
        self.before, _mode = _mode, self.mode

    def __exit__(self, *_: object) -> None:
        global _mode
        _mode = self.before


@contextmanager
def unrounded() -> Iterator[None]:
    """`with unrounded():` for what is decided; "int8" is "exact" meanwhile."""
    with use_kernels("exact" if _mode == "int8" else _mode):
        yield


def kernels_for(*tensors: Tensor) -> Any | None:
    """The operators, where they can be used on these: None sends a module to its own code."""
    if _mode == "off" or not torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu"):
        return None
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            return None
    return library()


def cuda_kernels_for(*tensors: Tensor) -> Any | None:
    """The operators that have CUDA kernels, where they can be used on these, which are of one type:
    `model/cuda_ops.py` says what each does."""
    device, dtype = tensors[0].device.type, tensors[0].dtype
    if _mode == "off" or device != CUDA or not torch.is_inference_mode_enabled():
        return None
    if torch.is_autocast_enabled(CUDA) or dtype not in _CUDA_TYPES:
        return None
    if any(tensor.dtype != dtype or tensor.device.type != CUDA for tensor in tensors):
        return None
    return library() if _has_cuda_kernels() else None


@cache
def _has_cuda_kernels() -> bool:
    """The reason why not is logged once."""
    if library() is None:
        return False
    why, has = "", torch._C._dispatch_has_kernel_for_dispatch_key
    if not has("duologue::ring_attention", "CUDA"):
        why = f"{LIBRARY} was built without nvcc"
    elif (capability := torch.cuda.get_device_capability())[0] not in _CUDA_CAPABILITIES:
        why = f"none is compiled for compute capability {capability}"
    if why:
        _log.warning("no CUDA kernels, PyTorch does their work: %s", why)
    return not why


class _Kept:
    """What was made of modules' tensors, and how to tell that they are no longer the same."""

    def __init__(self, modules: Sequence[nn.Module], made: Any) -> None:
        self.made = made
        self.seen = [
            (owner, name, tensor, tensor.data_ptr(), _version(tensor))
            for module in modules
            for part in module.modules()
            for owner in (part._parameters, part._buffers)
            for name, tensor in owner.items()
            if tensor is not None
        ]

    def is_current(self) -> bool:
        for owner, name, tensor, address, version in self.seen:
            if owner.get(name) is not tensor or tensor.data_ptr() != address:
                return False
            if version is not None and tensor._version != version:
                return False
        return True


_kept: weakref.WeakKeyDictionary[nn.Module, dict[Mode, _Kept]] = weakref.WeakKeyDictionary()


def kept(module: nn.Module, make: Callable[[], Any], *others: nn.Module) -> Any:
    """What `make` makes of the weights of a module (and of `others`), such as packed ones: made
    again where one of them was replaced or written to. As with autograd, nobody notices what is
    written through `.data`."""
    of_module = _kept.setdefault(module, {})
    found = of_module.get(_mode)
    if found is None or not found.is_current():
        with torch.inference_mode():
            found = of_module[_mode] = _Kept((module, *others), make())
    return found.made


def packed(layer: nn.Linear | nn.Embedding) -> Tensor:
    """The layer's packed weight, as it is."""
    return kept(layer, lambda: pack(layer.weight))


def _version(tensor: Tensor) -> int | None:
    """How often it was written to; tensors of inference mode don't count."""
    return None if tensor.is_inference() else tensor._version


def pack(weight: Tensor) -> Tensor:
    """A matrix [..., outputs, inputs] as the operators read it, [..., panels, inputs, 64]: what
    lies side by side belongs to neighbouring outputs, the last panel is filled up with 0.

    At the few rows of a frame it is reading weights that takes the time. Those of a checkpoint come
    out of a file of half precision: where that holds all of them, they are packed so, and are
    exactly as before once they are read. Others stay float32.
    """
    padded = F.pad(weight, (0, 0, 0, -weight.shape[-2] % PANEL))
    panels = padded.unflatten(-2, (-1, PANEL)).transpose(-1, -2).contiguous()
    half = panels.half()
    return half if torch.equal(half.float(), panels) else panels


def pack_large(weight: Tensor) -> Tensor:
    """As `pack`, of a layer that holds much of a model: with `use_kernels("int8")` rounded.

    Then each output has its own step, so that its largest weight is 127 of them. int8 [..., panels,
    rows, 64] is first the numbers, [inputs / 4, 64, 4], and then two float32 of each output: its
    step, and the sum of its numbers.
    """
    if _mode != "int8":
        return pack(weight)
    padded = F.pad(weight, (0, -weight.shape[-1] % 4, 0, -weight.shape[-2] % PANEL))
    steps = padded.abs().amax(-1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    numbers = (padded / steps[..., None]).round()  # [..., outputs, inputs]
    about = torch.stack([steps, numbers.sum(-1)], dim=-1)  # [..., outputs, 2]
    about = about.unflatten(-2, (-1, PANEL)).transpose(-1, -2).contiguous()  # [..., panels, 2, 64]
    quads = numbers.to(torch.int8).unflatten(-1, (-1, 4)).unflatten(-3, (-1, PANEL))
    parts = [quads.transpose(-2, -3).flatten(-3), about.view(torch.int8).flatten(-2)]
    return torch.cat(parts, dim=-1).unflatten(-1, (-1, PANEL))


def held_dtype(weight: Tensor) -> torch.dtype:
    """That of the keys and values of an attention with such weights, in a new state: bfloat16 with
    `use_kernels("int8")` where there are kernels for it, else as the weights."""
    is_ours = weight.dtype == torch.float32 and weight.device.type == "cpu"
    return torch.bfloat16 if _mode == "int8" and is_ours and library() else weight.dtype


def linear(layer: nn.Linear, x: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
    """`layer(norm(x))`: [..., inputs] -> [..., outputs]."""
    ops = kernels_for(x)
    if ops is None:
        return layer(x if norm is None else norm(x))
    about_norm = (None, None, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)
    rows = x.reshape(-1, layer.in_features).contiguous()
    weight = kept(layer, lambda: pack_large(layer.weight))
    y = ops.linear(rows, weight, layer.bias, *about_norm, layer.out_features)
    return y.view(*x.shape[:-1], layer.out_features)


def gather_rows(tensors: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """Copies of some rows (int64 [n]) of each tensor, of any type; with kernels contiguous ones."""
    ops = kernels_for() if rows.device.type == "cpu" else None
    return ops.gather_rows(tensors, rows) if ops else [tensor[rows] for tensor in tensors]


def scatter_rows(tensors: Sequence[Tensor], rows: Tensor, parts: Sequence[Tensor]) -> None:
    """Puts parts [n, ...] back into those rows."""
    if rows.device.type == "cpu" and (ops := kernels_for()):
        ops.scatter_rows(tensors, rows, parts)
        return
    for tensor, part in zip(tensors, parts, strict=True):
        tensor[rows] = part


def roots_of(size: int) -> Tensor:
    """Cosine and sine of every multiple of a turn / size, float32 [2, size]."""
    angles = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
    return torch.stack([angles.cos(), angles.sin()]).float()
