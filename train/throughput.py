"""`python -m train.throughput out=FILE.json`: frames a second that training gets through.

Forward and backward of the temporal model with all that it predicts, and of its layers alone, each
beside the same made of torch's own encoder layers, as large, which know nothing of dialogues: no
packing, rotary positions, streams or pointers. They take turns, so that all share the machine's ups
and downs.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from model.duplex import FRAME, DuplexConfig, DuplexModel, Inputs, Stream
from model.frame import FLOORS
from model.transformer import TransformerConfig
from train import report
from train.intervals import Metric, exact, median
from train.report import Outcome, Report, Table


@dataclass(frozen=True)
class Load:
    """What each step is given: `dialogues` of equal length in each of `batch_size` sequences."""

    batch_size: int
    length: int
    dialogues: int
    bfloat16: bool

    @property
    def frames(self) -> int:
        """Of one step."""
        return self.batch_size * self.length

    def tokens(self, count: int) -> Tensor:
        """Any of `count` int64 [B, L]."""
        return torch.randint(count, (self.batch_size, self.length))

    def segment(self) -> Tensor:
        """The dialogues' numbers int64 [B, L], from 1."""
        number = torch.arange(self.length) * self.dialogues // self.length + 1
        return number.expand(self.batch_size, -1)


class PlainLayers(nn.Module):
    """torch's own causal encoder layers, each with as many weights as one of ours."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.dim
        queries_and_more = dim * (dim + 2 * dim * config.kv_heads // config.heads)
        ours = queries_and_more + dim * dim + 3 * dim * config.hidden
        layer = nn.TransformerEncoderLayer(
            dim, config.heads, (ours - 4 * dim * dim) // (2 * dim), config.dropout,
            activation="gelu", batch_first=True, norm_first=True, bias=False,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.layers(x, mask, is_causal=True)


class PlainModel(nn.Module):
    """Tokens of every stream and latents in, the next tokens and the floor out."""

    def __init__(self, config: DuplexConfig) -> None:
        super().__init__()
        dim, streams = config.temporal.dim, len(config.streams)
        self.embedding = nn.Embedding(config.vocabulary, dim)
        self.latent_input = nn.Linear(config.latent_dim, dim)
        self.layers = PlainLayers(config.temporal)
        self.norm = nn.LayerNorm(dim)
        self.heads = nn.ModuleList(nn.Linear(dim, config.vocabulary) for _ in range(streams))
        self.floor = nn.Linear(dim, len(FLOORS))

    def forward(self, tokens: list[Tensor], latents: Tensor) -> list[Tensor]:
        x = self.latent_input(latents) + torch.stack([self.embedding(t) for t in tokens]).sum(0)
        hidden = self.norm(self.layers(x))
        return [head(hidden) for head in (*self.heads, self.floor)]


def measure(config: DuplexConfig, load: Load, rounds: int) -> Outcome:
    """Times everything once in each round, after one that does not count."""
    torch.manual_seed(0)
    model = DuplexModel(config)
    steps = {
        "model": _step(model, _our_loss(model, load), load),
        "model_plain": _step(plain := PlainModel(config), _plain_loss(plain, config, load), load),
        "layers": _layers_step(model.temporal, config, load, segment=load.segment()),
        "layers_plain": _layers_step(PlainLayers(config.temporal), config, load),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    metrics = _figures(seconds, load)
    for name, part in (("model", model), ("model_plain", plain)):
        metrics[f"parameters_{name}"] = exact(_size(part), 1, "weights")
    return Outcome(metrics, (_table(),), (_note(load),))


def _figures(seconds: dict[str, list[float]], load: Load) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for name, times in seconds.items():
        rates = [load.frames / each for each in times]
        metrics[f"frames_per_s_{name}"] = median(rates, "frames/s")
    for name in ("model", "layers"):
        pairs = zip(seconds[f"{name}_plain"], seconds[name], strict=True)
        metrics[f"ratio_{name}"] = median([plain / ours for plain, ours in pairs], "ratio")
    return metrics


def _table() -> Table:
    names = [
        (name, (f"frames_per_s_{name}", f"frames_per_s_{name}_plain", f"ratio_{name}"))
        for name in ("model", "layers")
    ]
    return Table("Forward and backward", ("ours", "plain PyTorch", "ratio"), tuple(names))


def _note(load: Load) -> str:
    precision = "bfloat16" if load.bfloat16 else "float32"
    return (
        f"{load.batch_size} sequences of {load.length} frames, {load.dialogues} dialogues packed "
        f"in each of ours; {precision}, {torch.get_num_threads()} threads; no optimiser. Other "
        "work on the machine lowers both rates; the ratio is of neighbours in time."
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _step(module: nn.Module, loss: Callable[[], Tensor], load: Load) -> Callable[[], None]:
    """One forward and backward pass in training mode."""
    module.train()

    def step() -> None:
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=load.bfloat16):
            value = loss()
        value.backward()

    return step


def _layers_step(layers: nn.Module, config: DuplexConfig, load: Load, **more) -> Callable[[], None]:
    x = torch.randn(load.batch_size, load.length, config.temporal.dim)
    return _step(layers, lambda: layers(x, **more).float().square().mean(), load)


def _our_loss(model: DuplexModel, load: Load) -> Callable[[], Tensor]:
    config = model.config
    inputs, segment = _inputs(config, load), load.segment()
    targets: dict[Stream, Tensor] = {s: load.tokens(config.vocabulary) for s in config.streams}
    floor = load.tokens(len(FLOORS)).flatten()

    def loss() -> Tensor:
        outputs = model(inputs, segment=segment)
        logs = [model.log_probability(outputs, s, target).mean() for s, target in targets.items()]
        heard = nn.functional.cross_entropy(model.floor(outputs.hidden).flatten(0, 1), floor)
        return heard - torch.stack(logs).sum()

    return loss


def _plain_loss(model: PlainModel, config: DuplexConfig, load: Load) -> Callable[[], Tensor]:
    tokens = [load.tokens(config.vocabulary) for _ in config.streams]
    latents = _inputs(config, load).latents
    targets = [load.tokens(config.vocabulary) for _ in config.streams]
    targets.append(load.tokens(len(FLOORS)))

    def loss() -> Tensor:
        pairs = zip(model(tokens, latents), targets, strict=True)
        losses = [
            nn.functional.cross_entropy(logits.flatten(0, 1).float(), target.flatten())
            for logits, target in pairs
        ]
        return torch.stack(losses).sum()

    return loss


def _inputs(config: DuplexConfig, load: Load) -> Inputs:
    """Frames alone, with something in every stream."""
    truth = torch.ones(load.batch_size, load.length, dtype=torch.bool)
    codes = torch.zeros(load.batch_size, load.length, config.codebooks, dtype=torch.int64)
    return Inputs(
        kind=torch.full_like(load.tokens(1), FRAME),
        action=load.tokens(config.vocabulary),
        is_new=truth,
        agent_text=load.tokens(config.vocabulary),
        user_text=load.tokens(config.vocabulary),
        latents=torch.randn(load.batch_size, load.length, config.latent_dim),
        is_heard=truth,
        is_speaking=truth,
        agent_codes=codes,
        user_codes=codes,
    )


@hydra.main(version_base=None, config_path="../conf", config_name="throughput")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    try:
        if not cfg.out:
            raise ValueError("out is missing: give out=a .json file")
        report.check_out(Path(cfg.out))
        model = instantiate(cfg.model, _convert_="object")
        if not isinstance(model, DuplexConfig) or model.arrangement != "split":
            raise ValueError("model: must be a duplex model in the split arrangement")
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    torch.set_num_threads(cfg.threads)
    load, start = os.getloadavg(), time.monotonic()
    given = Load(cfg.batch_size, cfg.length, cfg.dialogues, cfg.bfloat16)
    outcome = measure(model, given, cfg.rounds)
    command = " ".join(["python -m train.throughput", *sys.argv[1:]])
    done = Report("throughput", command, time.monotonic() - start, load, outcome)
    report.write(done, Path(cfg.out))
    print(report.markdown(done))


if __name__ == "__main__":
    main()
