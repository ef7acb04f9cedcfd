"""How long a step of a temporal transformer of 25 M parameters takes, and what rounding changes."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from model.ops import Mode, library, use_kernels
from model.transformer import Transformer, TransformerConfig, TransformerState
from train.intervals import Metric, mean, median, ratio
from train.report import Outcome, Table

_SIZE = TransformerConfig(512, 8, 8, 8, 1408, window=250)
_WAYS: dict[str, Mode] = {"": "int8", "_exact": "exact", "_eager": "off"}
_COLUMNS = ("int8", "exact", "PyTorch", "PyTorch / int8", "PyTorch / exact", "int8's error")


@dataclass(frozen=True)
class Temporal:
    """`steps` of each number of rows in `batches`, once the window is full; all ways take turns."""

    batches: tuple[int, ...]
    steps: int

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or self.steps < 1:
            raise ValueError(f"batches {self.batches}, steps {self.steps}: must be above 0")

    def measure(self, _checkpoint: str, threads: int, _speech: str) -> Outcome:
        """Nothing is measured where there are no kernels."""
        if library() is None:
            return Outcome({}, (), ("temporal: there are no kernels to time, run make setup",))
        before, metrics = torch.get_num_threads(), {}
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        stack = Transformer(_SIZE).eval()
        for batch in tqdm(self.batches, unit="batch", desc="temporal"):
            metrics |= self._figures(stack, batch)
        torch.set_num_threads(before)
        rows = tuple((f"{batch} rows", _names(batch)) for batch in self.batches)
        return Outcome(metrics, (Table("CPU ms of a temporal step", _COLUMNS, rows),), (_NOTE,))

    @torch.inference_mode()
    def _figures(self, stack: Transformer, batch: int) -> dict[str, Metric]:
        states: dict[str, TransformerState] = {}
        for way, mode in _WAYS.items():
            with use_kernels(mode):
                states[way] = stack.init_state(batch)
        seconds: dict[str, list[float]] = {way: [] for way in _WAYS}
        errors: list[float] = []
        for step in range(_SIZE.window + self.steps):
            x, y = torch.randn(batch, 1, _SIZE.dim), dict[str, Tensor]()
            for way, state in states.items():
                y[way], took_s = _timed(stack, x, state, _WAYS[way])
                if step >= _SIZE.window:
                    seconds[way].append(took_s)
            errors.append(float((y[""] - y["_eager"]).norm() / y["_eager"].norm()))
        times = [median([1000 * s for s in seconds[way]], "ms") for way in _WAYS]
        faster = [ratio(seconds["_eager"], seconds[way], "ratio") for way in ("", "_exact")]
        return dict(zip(_names(batch), [*times, *faster, mean(errors, "ratio")], strict=True))


def _timed(
    stack: Transformer, x: Tensor, state: TransformerState, mode: Mode
) -> tuple[Tensor, float]:
    with use_kernels(mode):
        begun_s = time.process_time()
        y = stack(x, state)
        return y, time.process_time() - begun_s


def _names(batch: int) -> tuple[str, ...]:
    ways = [f"temporal_ms_b{batch}{way}" for way in _WAYS]
    return (*ways, *(f"temporal_speedup_b{batch}{way}" for way in ("", "_exact")),
            f"temporal_error_b{batch}")  # fmt: skip


_NOTE = (
    "temporal: random weights, 25.7 M parameters (512 wide, 8 layers, window 250 and full). The "
    "error is the norm of what int8 makes different, by the norm of what PyTorch makes in float32."
)
