"""This project's engine with as much to do as vLLM's: the temporal transformer alone, a token in
and a token out. Run by peers.py in this project's environment.

    python serve/bench/peers/temporal_loop.py SPEECH.npy SECONDS THREADS CALLERS...

Callers come over the engine's socket, from another process, with sound that nobody hears. Weights
are random. Prints a line of JSON for each number of callers.
"""

import gc
import json
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.action_session import SavedActions
from model.agent import AgentFrame, SavedCaller
from model.frame import FRAME_S
from model.ops import linear, use_kernels
from model.sampling import SamplingConfig, sample, uniforms
from model.snapshot import save
from model.streaming import State
from model.transformer import Transformer, TransformerConfig, TransformerState
from serve.bench.callers import Callers
from serve.bench.ramp import COLD_FRAMES, waited_s
from serve.engine.endpoint import Endpoint
from serve.engine.engine import Engine, EngineConfig

WORDS = 2048
_BLOCK = TransformerConfig(256, 6, 4, 2, 704, window=1500, pinned=256)
_SAMPLING = SamplingConfig(temperature=0.8)


@dataclass
class BlockState(State):
    """`heard` frames of each slot, and its number: int64 [B]."""

    block: TransformerState
    heard: Tensor
    slot: Tensor


class Tokens:
    """Without any text."""

    def __len__(self) -> int:
        return WORDS

    def decode(self, tokens: Sequence[int]) -> str:
        """Nothing."""
        return ""

    def id_of(self, token: str) -> int:
        """The same for all."""
        return 0


class Block:
    """What an engine needs of an agent that neither hears, speaks nor acts."""

    def __init__(self) -> None:
        self.embedding = nn.Embedding(WORDS, _BLOCK.dim)
        self.transformer = Transformer(_BLOCK).eval()
        self.head = nn.Linear(_BLOCK.dim, WORDS, bias=False)
        self.tokenizer: Any = Tokens()
        self.sessions: dict[int, Any] = {}

    def init_state(self, batch: int) -> BlockState:
        """Of so many slots."""
        zeros = torch.zeros(batch, dtype=torch.int64)
        return BlockState(self.transformer.init_state(batch), zeros, torch.arange(batch))

    def begin(self, state: BlockState, row: int, system: str, tools: Any, seed: int) -> None:
        """A caller, without a role."""
        state.row(row).reset(torch.ones(1, dtype=torch.bool))
        state.slot[row] = row
        self.sessions[row] = SimpleNamespace(is_waiting=False, is_open=False, calls=0)

    def save(self, state: BlockState, row: int, known: Sequence[int]) -> SavedCaller:
        """What has come since it was last saved."""
        return SavedCaller(save(state.row(row), known), SavedActions(0, {}, [], [], []))

    @torch.inference_mode()
    def hear(self, state: BlockState, pcm: Tensor, active: Tensor) -> AgentFrame:
        """A token of each caller; one that is drawn is the answer."""
        token = 3 + state.heard % (WORDS - 3)
        x = self.transformer(self.embedding(token)[:, None], state.block, active)
        uniform = uniforms(state.slot, state.heard, 0)
        text = sample(linear(self.head, x[:, 0]), _SAMPLING, uniform)
        state.heard += active
        return AgentFrame(torch.zeros_like(pcm), text, text, torch.zeros_like(text), [])


def serve(address: str, threads: int, slots: int) -> None:
    """An engine, until it is killed."""
    torch.set_num_threads(threads)
    block: Any = Block()
    with use_kernels("int8"):
        endpoint = Endpoint(Engine(block, EngineConfig(slots=slots, most_share=1000)), address)
        gc.collect()
        gc.freeze()
        endpoint.run(lambda: False)


def main(speech: str, seconds: str, threads: str, *callers: str) -> None:
    """All numbers of callers, one after the other."""
    counts, sound = [*map(int, callers)], np.load(speech)
    about = "this engine with a temporal transformer alone, int8: no codec, no codes, no sound"
    print(json.dumps({"about": about}), flush=True)
    frames = COLD_FRAMES + int(float(seconds) / FRAME_S)
    with TemporaryDirectory() as folder:
        address = f"ipc://{folder}/engine"
        spawn = multiprocessing.get_context("spawn")
        spawn.Process(target=serve, args=(address, int(threads), max(counts)), daemon=True).start()
        for count in counts:
            group = Callers(address, sound, [f"{number} of {count}" for number in range(count)])
            group.come()
            latency_s = waited_s(group.talk(frames))
            group.go()
            print(json.dumps({"callers": count, "latency_s": latency_s}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
