"""What the package `moshi` computes, for test_moshi_parity.py: weights, inputs, logits and tokens.

    NO_TORCH_COMPILE=1 .venv-parity/bin/python tests/moshi_reference.py DIRECTORY

Runs in an environment of its own (`make parity`). Two tiny random models, in float32 and greedy:
`moshi` is stepped by the package's own `LMGen`. `personaplex` has its 16 depth steps and starts
with a prompt of voice, role and silence. NVIDIA's package is no release: `Table` does with the
package's `LMModel` what its generator does, but for a ring that forgets its oldest step one too
early (its context of 3000 is a window of 2999).
"""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import torch
from safetensors.torch import save_file
from torch import Tensor

# What the language model never uses: audio files and devices, quantised weights, downloads.
for name in ("sphn", "sounddevice", "bitsandbytes", "sentencepiece", "huggingface_hub"):
    sys.modules[name] = MagicMock()
sys.modules["huggingface_hub.errors"] = MagicMock()

from moshi.models.lm import LMGen, LMModel  # noqa: E402 # pyright: ignore[reportMissingImports]

FRAMES = 200  # of the caller's speech
BATCH, AGENT, USER = 2, 8, 8
CODES, WORDS, PADDING = 12, 20, 3
DELAYS = [0, *[0, *[1] * 7] * 2]
CONFIG = {
    "dim": 32,
    "text_card": WORDS,
    "existing_text_padding_id": PADDING,
    "n_q": AGENT + USER,
    "dep_q": AGENT,
    "card": CODES,
    "num_heads": 4,
    "num_layers": 2,
    "hidden_scale": 4.125,
    "causal": True,
    "layer_scale": None,
    "context": 48,  # far below the number of frames: old ones drop out
    "max_period": 10_000,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "positional_embedding": "rope",
    "depformer_dim": 16,
    "depformer_dim_feedforward": int(4.125 * 16),
    "depformer_num_heads": 2,
    "depformer_num_layers": 2,
    "depformer_layer_scale": None,
    "depformer_multi_linear": True,
    "depformer_context": 8,
    "depformer_max_period": 10_000,
    "depformer_gating": "silu",
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
    "delays": DELAYS,
}


def random_model(seed: int, **changes: object) -> LMModel:
    """Weights large enough that the greedy tokens do not settle, norms that are not all 1."""
    torch.manual_seed(seed)
    model = LMModel(**(CONFIG | changes)).eval()
    for name, weight in model.named_parameters():
        scale = 1.0 if "emb" in name else 1.5 * weight.shape[-1] ** -0.5
        weight.data.normal_(0, scale)
        if name.endswith("alpha"):
            weight.data.mul_(0.2).add_(1)
    return model


def random_codes(frames: int, codebooks: int, seed: int) -> Tensor:
    """int64 [B, codebooks, frames]"""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(CODES, (BATCH, codebooks, frames), generator=generator)


class Log:
    """Everything that a model says: one entry a frame."""

    def __init__(self, model: LMModel) -> None:
        self.logits: dict[str, list[Tensor]] = {"text": [], "depth": []}
        self.tokens: list[Tensor] = []
        self.forward_depformer = model.forward_depformer
        model.forward_depformer = self.depth_step

    def depth_step(self, index: int, *inputs: Tensor) -> Tensor:
        logits = self.forward_depformer(index, *inputs)
        self.logits["depth"].append(logits[:, 0, 0])
        return logits

    def tensors(self, steps: int) -> dict[str, Tensor]:
        """Text logits [B, T, V], depth logits [B, T, steps, V], tokens int64 [B, 1 + steps, T]."""
        depth = torch.stack(self.logits["depth"], 1)
        return {
            "text_logits": torch.stack(self.logits["text"], 1),
            "depth_logits": depth.unflatten(1, (-1, steps)),
            "tokens": torch.stack(self.tokens, 2),
        }


@torch.no_grad()
def run_moshi() -> dict[str, Tensor]:
    """The caller is not there for ten frames: its codes are -1."""
    model = random_model(seed=0)
    log = Log(model)
    user = random_codes(FRAMES, USER, seed=1)
    user[:, :, 100:110] = -1
    generator = LMGen(
        model,
        use_sampling=False,
        check=True,
        on_text_logits_hook=lambda logits: log.logits["text"].append(logits[:, 0, 0]),
        on_text_hook=lambda text: log.tokens.append(text[:, None]),
        on_audio_hook=lambda codes: log.tokens.append(torch.cat([log.tokens.pop(), codes], 1)),
    )
    heard = []
    with generator.streaming(BATCH):
        for frame in user.split(1, dim=2):
            out = generator.step(frame)
            heard += [] if out is None else [out[:, :, 0]]
    result = log.tensors(AGENT) | {"user": user, "frames": torch.stack(heard, 2)}
    return result | {f"weights.{name}": weight for name, weight in model.state_dict().items()}


class Table:
    """The tokens of every stream at every position: int64 [B, 1 + AGENT + USER, positions].

    A frame's token stands `DELAYS` positions behind its frame; where it would stand no later than
    that it is the initial one. -2: not there yet, to be made.
    """

    def __init__(self, positions: int) -> None:
        self.tokens = torch.full((BATCH, len(DELAYS), positions + 2), -2)
        for row, delay in enumerate(DELAYS):
            self.tokens[:, row, : delay + 1] = CODES if row else WORDS

    def put(self, frame: int, first_row: int, tokens: Tensor) -> None:
        """Tokens int64 [B, rows] of one frame."""
        for row, token in enumerate(tokens.unbind(1), first_row):
            if frame > 0:
                self.tokens[:, row, frame + DELAYS[row]] = token

    def step(self, position: int, model: LMModel, log: Log) -> None:
        """Makes what the next position lacks; every depth step is fed with what stands there."""
        hidden, logits = model.forward_text(self.tokens[:, :, position : position + 1])
        log.logits["text"].append(logits[:, 0, 0])
        made = [self._make(position + 1, 0, logits)]
        with model.depformer.streaming(BATCH):
            for step in range(model.dep_q):
                token = self.tokens[:, step, position + 1, None, None]
                logits = model.forward_depformer(step, token, hidden)
                made.append(self._make(position + 1, step + 1, logits))
        log.tokens.append(torch.stack(made, 1))

    def _make(self, position: int, row: int, logits: Tensor) -> Tensor:
        cell, greedy = self.tokens[:, row, position], logits[:, 0, 0].argmax(-1)
        cell[:] = torch.where(cell == -2, greedy, cell)
        return cell.clone()


@torch.no_grad()
def run_personaplex() -> dict[str, Tensor]:
    """Frames 0..N-1 are a prompt whose every token is given, the others the caller's."""
    model = random_model(seed=2, dep_q=AGENT + USER)
    log = Log(model)
    silence, sine = random_codes(1, AGENT, seed=3)[:1], random_codes(1, USER, seed=4)[:1]
    voice, role = random_codes(12, AGENT, seed=5), random_codes(9, 1, seed=6)[:, 0]
    quiet = silence.expand(BATCH, -1, 3)
    agent = torch.cat([voice, quiet, silence.expand(BATCH, -1, role.shape[1]), quiet], 2)
    pad = torch.full((BATCH, 15), PADDING)
    text = torch.cat([pad, role, pad[:, :3]], 1)
    prompt, user = agent.shape[2], random_codes(FRAMES, USER, seed=7)
    table = Table(prompt + FRAMES)
    with model.streaming(BATCH):
        for frame in range(prompt + FRAMES):
            given = frame < prompt
            codes = sine.expand(BATCH, -1, -1)[..., 0] if given else user[:, :, frame - prompt]
            table.put(frame, 1 + AGENT, codes)
            if given:
                table.put(frame, 0, text[:, frame, None])
                table.put(frame, 1, agent[:, :, frame])
            if frame > 0:  # one frame behind: the depth steps of the caller are fed with its codes
                table.step(frame - 1, model, log)
    result = log.tensors(AGENT + USER) | {"user": user, "prompt_text": text}
    result |= {"prompt_agent": agent, "prompt_user": sine.expand(BATCH, -1, prompt)}
    return result | {f"weights.{name}": weight for name, weight in model.state_dict().items()}


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, run in (("moshi", run_moshi), ("personaplex", run_personaplex)):
        tensors = {key: tensor.contiguous() for key, tensor in run().items()}
        save_file(tensors, directory / f"{name}.safetensors")


if __name__ == "__main__":
    main()
