"""The CUDA kernels on a CPU: builds kernels/cuda/*.cu under kernels/emulator and calls them.

Each source becomes a library of its own in build/emulator, named by what it was made of.
"""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
CUDA, EMULATOR, BUILD = ROOT / "kernels" / "cuda", ROOT / "kernels" / "emulator", ROOT / "build"
FLAGS = "-std=c++20 -O1 -fPIC -ffp-contract=off -fno-gnu-unique -Wall -Wextra -Werror".split()
FLAGS += ["-Wno-unknown-pragmas", f"-I{CUDA}"]
SANITIZED = "-fsanitize=address -fno-omit-frame-pointer -g1".split()
GUARD = 64  # elements around each tensor that a kernel is given

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
KV_DTYPES = {**DTYPES, torch.int8: 3, torch.float8_e4m3fn: 4}

_CTYPES = {
    "int": ctypes.c_int,
    "int64_t": ctypes.c_int64,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}


class KernelError(Exception):
    """A launcher's error, with what the emulator says about it."""


def missing() -> str:
    """Why the emulator does not run here; empty where it does."""
    if platform.machine() != "x86_64":
        return f"the emulator's fibres are for x86-64, not {platform.machine()}"
    return "" if shutil.which("g++") else "there is no g++"


def build(name: str, changed: Mapping[str, str] | None = None, sanitize: bool = False) -> Path:
    """The library of kernels/cuda/NAME.cu, with other text in place of some files (by name)."""
    flags = [*FLAGS, *(SANITIZED if sanitize else []), *(["-Wno-error"] if changed else [])]
    sources = [CUDA / f"{name}.cu", *sorted(CUDA.glob("*.h")), *sorted(EMULATOR.glob("*"))]
    texts = {source.name: source.read_text() for source in sources if source.is_file()}
    library = _place(f"{name}.so", repr((flags, {**texts, **(changed or {})})))
    if not library.exists():
        fibers = _fibers([*FLAGS, *(SANITIZED if sanitize else [])])
        with tempfile.TemporaryDirectory() as folder:
            for file, text in {f"{name}.cu": texts[f"{name}.cu"], **(changed or {})}.items():
                Path(folder, file).write_text(text)
            source = Path(folder, f"{name}.cu")
            _compile([*flags, "-shared", "-x", "c++", source, "-x", "none", fibers], library)
    return library


def _fibers(flags: list[str]) -> Path:
    texts = [(EMULATOR / name).read_text() for name in ("fibers.cpp", "fibers.h", "types.h")]
    fibers = _place("fibers.o", repr((flags, texts)))
    if not fibers.exists():
        _compile([*flags, "-O2", "-c", EMULATOR / "fibers.cpp"], fibers)
    return fibers


def _place(name: str, made_of: str) -> Path:
    folder = BUILD / "emulator"
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = name.split(".")
    return folder / f"{stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.{suffix}"


def _compile(arguments: list[Any], output: Path) -> None:
    """Raises RuntimeError with what the compiler says."""
    unfinished = output.with_suffix(f".{os.getpid()}")
    command = ["g++", *map(str, arguments), "-o", str(unfinished)]
    environment = {**os.environ, "LD_PRELOAD": ""}  # the sanitizer is not for the compiler
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[:4000]}")
    unfinished.rename(output)


@cache
def signatures() -> dict[str, tuple[Any, list[Any]]]:
    """Result and arguments of each launcher of kernels.h, for ctypes; names without `duologue_`."""
    text = (CUDA / "kernels.h").read_text()
    found = re.findall(r"^(\w+) duologue_(\w+)\((.*?)\);", text, re.MULTILINE | re.DOTALL)

    def of(argument: str) -> Any:
        return ctypes.c_void_p if "*" in argument else _CTYPES[argument.split()[-2]]

    return {
        name: (_CTYPES[result], [of(argument) for argument in arguments.split(",")])
        for result, name, arguments in found
    }


class Kernels:
    """`kernels("NAME", ...)` runs duologue_NAME, without its last argument, the stream.

    A tensor is handed over as a copy between guards, which nothing may write to, and copied back;
    AddressSanitizer has guards of its own. `libraries` by source may stand in for those built here.
    """

    def __init__(
        self,
        libraries: Mapping[str, Path] | None = None,
        sanitize: bool = False,
        seeds: tuple[int, ...] = (0, 1, 2),
    ) -> None:
        self.guard = 0 if sanitize else GUARD
        self.sanitize, self.seeds, self.seed = sanitize, seeds, 0
        self._libraries = {name: self._load(path) for name, path in (libraries or {}).items()}

    def orders(self) -> Iterator[int]:
        """Has threads and blocks run in one order after the other."""
        for seed in self.seeds:
            self.seed = seed
            yield seed

    def __call__(self, name: str, *arguments: Any) -> int:
        library = self._library(name)
        result, types = signatures()[name]
        function = getattr(library, f"duologue_{name}")
        function.restype, function.argtypes = result, types
        guarded = {
            (each.data_ptr(), each.numel()): (each, *self._guarded(each))
            for each in arguments
            if isinstance(each, Tensor)
        }

        def handed_over(value: Any) -> Any:
            if isinstance(value, list):
                return (ctypes.c_void_p * len(value))(*[table.data_ptr() for table in value])
            if isinstance(value, Tensor):
                return guarded[value.data_ptr(), value.numel()][2]
            return value

        library.emulator_seed(ctypes.c_uint64(self.seed))
        values = [handed_over(value) for value in arguments]
        code = function(*values, *[None] * (len(types) - len(values)))
        if result is ctypes.c_int64:
            return code
        library.emulator_error.restype = ctypes.c_char_p
        if code:
            raise KernelError(f"{name}: error {code} {library.emulator_error().decode()}")
        for each, memory, address in guarded.values():
            start = address - memory.data_ptr()
            end = start + each.numel() * each.element_size()
            assert (memory[:start] == 0xFF).all(), f"{name} wrote before a tensor {each.shape}"
            assert (memory[end:] == 0xFF).all(), f"{name} wrote behind a tensor {each.shape}"
            _bytes(each).copy_(memory[start:end])
        return code

    def _guarded(self, tensor: Tensor) -> tuple[Tensor, int]:
        """A copy's memory and address, as much beside a multiple of 16 as the tensor's."""
        size, beside = tensor.numel() * tensor.element_size(), tensor.data_ptr() % 16
        guard = self.guard * tensor.element_size()
        memory = torch.full((beside + size + 2 * guard,), 0xFF, dtype=torch.uint8)
        assert memory.data_ptr() % 16 == 0
        start = guard + beside
        memory[start : start + size] = _bytes(tensor)
        return memory, memory.data_ptr() + start

    def _library(self, function: str) -> Any:
        source = next(
            source.stem for source in CUDA.glob("*.cu") if function.startswith(source.stem)
        )
        if source not in self._libraries:
            self._libraries[source] = self._load(build(source, sanitize=self.sanitize))
        return self._libraries[source]

    @staticmethod
    def _load(path: Path) -> Any:
        return ctypes.CDLL(str(path))


def _bytes(tensor: Tensor) -> Tensor:
    assert tensor.is_contiguous(), "kernels take contiguous tensors"
    return tensor.detach().view(-1).view(torch.uint8)
