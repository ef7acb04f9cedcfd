"""Every check of a CUDA kernel. As a script it runs them under AddressSanitizer, whose library must
come first: `LD_PRELOAD=$(g++ -print-file-name=libasan.so) python tests/cuda_checks.py`."""

import os
import sys
from collections.abc import Callable

import cuda_checks_attention
import cuda_checks_codec
import cuda_checks_sampling
import cuda_checks_transformer
from cuda_emulator import CUDA, Kernels, build

CHECKS: dict[str, Callable[[Kernels], None]] = {
    name.removeprefix("check_"): check
    for module in (
        cuda_checks_transformer,
        cuda_checks_attention,
        cuda_checks_sampling,
        cuda_checks_codec,
    )
    for name, check in vars(module).items()
    if name.startswith("check_")
}
SANITIZED = [name for name in CHECKS if name != "distribution"]  # which has nothing of its own


def main() -> None:
    """In one order of threads; then that a read beyond a tensor is found."""
    kernels = Kernels(sanitize=True, seeds=(2,))
    for name in SANITIZED:
        CHECKS[name](kernels)
        print(name, flush=True)
    child = os.fork()
    if not child:
        source = (CUDA / "embedding_sum.cu").read_text().replace("if (i >= dim) return;", "")
        library = build("embedding_sum", {"embedding_sum.cu": source}, sanitize=True)
        CHECKS["embedding_sum"](Kernels({"embedding_sum": library}, sanitize=True, seeds=(2,)))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        sys.exit("nothing was said of a read beyond a tensor")


if __name__ == "__main__":
    main()
