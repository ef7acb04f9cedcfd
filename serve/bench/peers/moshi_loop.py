"""The package `moshi`'s own streaming loop, as its server runs it: Mimi hears, the model steps,
Mimi speaks. Run by peers.py in the environment of `make parity`, where this project is not.

    NO_TORCH_COMPILE=1 .venv-parity/bin/python serve/bench/peers/moshi_loop.py SPEECH.npy SECONDS
        THREADS CALLERS...

Prints a line of JSON for each number of callers, who are rows of one batch: what the package does
with more than one. Weights are random, sizes those of nano and of the codec that ships.
"""

import json
import sys
import time
from unittest.mock import MagicMock

import numpy as np
import torch

for name in ("sphn", "sounddevice", "bitsandbytes", "sentencepiece", "huggingface_hub"):
    sys.modules[name] = MagicMock()
sys.modules["huggingface_hub.errors"] = MagicMock()

from moshi.models import loaders  # noqa: E402
from moshi.models.lm import LMGen, LMModel  # noqa: E402

FRAME_S = 0.08
COLD_FRAMES = 12
WIDTH = 144  # of Mimi, where the published one has 512
# nano has six layers of 256 that hear and three of 192 that speak: five of 256 here are as many
# parameters, since these keep a head of keys for each of queries.
LANGUAGE_MODEL = loaders._lm_kwargs | {
    "dim": 256, "num_heads": 4, "num_layers": 5, "context": 1756, "text_card": 2048, "card": 1024,
    "depformer_dim": 128, "depformer_dim_feedforward": 384, "depformer_num_heads": 4,
    "depformer_num_layers": 2,
}  # fmt: skip
SEANET = {"dimension": WIDTH, "n_filters": WIDTH // 8}
MIMI = loaders._mimi_config | {
    "seanet": loaders._seanet_kwargs | SEANET,
    "quantizer": loaders._quantizer_kwargs
    | {"dimension": 96, "bins": 1024, "input_dimension": WIDTH, "output_dimension": WIDTH},
    "transformer": loaders._transformer_kwargs
    | {
        "d_model": WIDTH, "dim_feedforward": 4 * WIDTH, "input_dimension": WIDTH,
        "output_dimensions": [WIDTH], "num_layers": 6,
    },
}  # fmt: skip


@torch.no_grad()
def latencies(model: LMModel, mimi, sound: np.ndarray, callers: int, frames: int) -> list[float]:
    """Seconds from each frame's time to its sound; all callers' frames come at once."""
    generator = LMGen(model)
    found = []
    with mimi.streaming(callers), generator.streaming(callers):
        begun_s = time.perf_counter()
        for number in range(frames):
            due_s = begun_s + FRAME_S * number
            time.sleep(max(0.0, due_s - time.perf_counter()))
            rows = [sound[(number + 37 * caller) % len(sound)] for caller in range(callers)]
            pcm = torch.from_numpy(np.stack(rows))[:, None].float() / 2**15  # [B, 1, 1920]
            tokens = generator.step(mimi.encode(pcm))  # [B, 9, 1]
            if tokens is not None:
                mimi.decode(tokens[:, 1:])
            found.append(time.perf_counter() - due_s)
    return found[COLD_FRAMES:]


def main(speech: str, seconds: str, threads: str, *callers: str) -> None:
    """One number of callers after the other."""
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    mimi, model = loaders.get_mimi(None, MIMI), LMModel(**LANGUAGE_MODEL).eval()
    model_m, mimi_m = (sum(p.numel() for p in part.parameters()) / 1e6 for part in (model, mimi))
    about = f"{model_m:.1f} M parameters, Mimi of {mimi_m:.1f} M, all callers' frames at once"
    print(json.dumps({"about": about}), flush=True)
    sound = np.load(speech)
    for count in map(int, callers):
        found = latencies(model, mimi, sound, count, COLD_FRAMES + int(float(seconds) / FRAME_S))
        print(json.dumps({"callers": count, "latency_s": found}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
