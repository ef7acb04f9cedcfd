"""How long a frame takes with rounded and with exact kernels and without any, stage by stage."""

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from model.agent import Agent
from model.agent_state import AgentState
from model.checkpoint import Duplex, load_duplex
from model.duplex import Outputs
from model.ops import Mode, library, use_kernels
from model.tokens import PAD
from serve.bench.callers import SYSTEM, read_speech
from train.intervals import Metric, median, ratio
from train.report import Outcome, Table

_COLD_FRAMES = 12  # which do not count
_APART = 37  # frames of the recording between two callers
_SAYS = " Your order was shipped on Tuesday and should be with you by the end of the week."
_WORD_EACH = 3  # frames
_STAGES = ("hear", "think", "speak", "sound", "rest")
_WAYS: dict[str, Mode] = {"": "int8", "_exact": "exact", "_eager": "off"}
_COLUMNS = ("int8", "exact", "PyTorch", "PyTorch / int8", "PyTorch / exact")


class Talker(Agent):
    """Has something to say at every frame, whatever it would have said itself."""

    def __init__(self, duplex: Duplex) -> None:
        super().__init__(duplex)
        self.pad = self.tokenizer.id_of(PAD)
        self.words = torch.tensor(self.tokenizer.encode(_SAYS))

    def _draw_text(self, state: AgentState, outputs: Outputs) -> Tensor:
        text = super()._draw_text(state, outputs)
        turn = state.positions + state.slot
        word = self.words[turn // _WORD_EACH % len(self.words)]
        return torch.where(turn % _WORD_EACH == 0, word, torch.full_like(text, self.pad))


class Stopwatch:
    """CPU seconds of each stage, of one frame after the other."""

    def __init__(self, agent: Agent) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._watch(agent.codec, "hear", "hear")
        self._watch(agent.model, "forward", "think")
        self._watch(agent.model, "log_probabilities", "think")
        self._watch(agent.speech, "step", "speak")
        self._watch(agent.codec, "decode", "sound")

    def _watch(self, owner: Any, name: str, stage: str) -> None:
        run = getattr(owner, name)

        def timed(*given: Any, **named: Any) -> Any:
            with self.of(stage):
                return run(*given, **named)

        setattr(owner, name, timed)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Adds what is done inside to a stage."""
        begun_s = time.process_time()
        yield
        self.seconds[stage] += time.process_time() - begun_s

    def frame(self, run: Callable[[], Any]) -> dict[str, float]:
        """The stages of what `run` does; `frame` is all of it."""
        self.seconds.clear()
        with self.of("frame"):
            run()
        found = dict(self.seconds)
        return found | {"rest": 2 * found["frame"] - sum(found.values())}


@dataclass(frozen=True)
class Frame:
    """So many `frames` of each number of callers in `batches`; all three ways take turns."""

    batches: tuple[int, ...]
    frames: int

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or self.frames < 1:
            raise ValueError(f"batches {self.batches}, frames {self.frames}: must be above 0")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """`frame_speedup_b*` is by how much a frame of so many callers is faster than in PyTorch,
        with kernels as engines have them; nothing is measured where there are none."""
        if library() is None:
            return Outcome({}, (), ("frame: there are no kernels to time, run make setup",))
        before, metrics = torch.get_num_threads(), {}
        torch.set_num_threads(threads)
        agent = Talker(load_duplex(checkpoint))
        watch = Stopwatch(agent)
        sound = torch.from_numpy(read_speech(speech)).float() / 2**15  # [n, 1920]
        gc.collect()
        gc.freeze()  # as an engine does
        for batch in tqdm(self.batches, unit="batch", desc="frame"):
            metrics |= self._figures(agent, watch, sound, batch)
        gc.unfreeze()
        torch.set_num_threads(before)
        return Outcome(metrics, tuple(map(_table, self.batches)), (_NOTE,))

    @torch.inference_mode()
    def _figures(
        self, agent: Agent, watch: Stopwatch, sound: Tensor, batch: int
    ) -> dict[str, Metric]:
        states = {way: _callers(agent, batch, mode) for way, mode in _WAYS.items()}
        rows, active = torch.arange(batch), torch.ones(batch, dtype=torch.bool)
        found: dict[str, list[dict[str, float]]] = {way: [] for way in _WAYS}
        for number in range(_COLD_FRAMES + self.frames):
            pcm = sound[(number + _APART * rows) % len(sound)]
            for way, mode in _WAYS.items():
                with use_kernels(mode):
                    took = watch.frame(lambda: _step(agent, states[way], rows, pcm, active))  # noqa: B023
                found[way].append(took)
        return _metrics({way: each[_COLD_FRAMES:] for way, each in found.items()}, batch)


def _callers(agent: Agent, batch: int, mode: Mode) -> AgentState:
    with use_kernels(mode):
        state = agent.init_state(batch + 1)  # as an engine has it
    for row in range(batch):
        agent.begin(state, row, SYSTEM, [], seed=row)
    return state


def _step(agent: Agent, state: AgentState, rows: Tensor, pcm: Tensor, active: Tensor) -> None:
    part = state.gather(rows)
    agent.hear(part, pcm, active)
    state.scatter(rows, part)


def _name(stage: str) -> str:
    return "frame" if stage == "frame" else f"frame_{stage}"


def _metrics(found: dict[str, list[dict[str, float]]], batch: int) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for stage in ("frame", *_STAGES):
        name, seconds = _name(stage), {}
        for way, frames in found.items():
            seconds[way] = [each[stage] for each in frames]
            metrics[f"{name}_ms_b{batch}{way}"] = median([1000 * s for s in seconds[way]], "ms")
        for way in ("", "_exact"):
            speedup = ratio(seconds["_eager"], seconds[way], "ratio")
            metrics[f"{name}_speedup_b{batch}{way}"] = speedup
    return metrics


def _table(batch: int) -> Table:
    figures = [f"ms_b{batch}{way}" for way in _WAYS]
    figures += [f"speedup_b{batch}{way}" for way in ("", "_exact")]
    rows = (
        (stage, tuple(f"{_name(stage)}_{figure}" for figure in figures))
        for stage in ("frame", *_STAGES)
    )
    return Table(f"CPU ms of a frame of {batch}", _COLUMNS, tuple(rows))


_NOTE = (
    "Everybody is spoken to and something is said at every frame, so all of a frame is in it: hear "
    "is the codec's encoder, think the temporal transformer with what its streams are told from, "
    "speak the reader, the speech and the depth transformer, sound the codec's decoder. All ways "
    "take turns frame by frame."
)
