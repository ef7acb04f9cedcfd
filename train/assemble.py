"""`python -m train.assemble out=DIR`: a model's directory out of a temporal and a speech run.

`speech=nano` takes the speech transformer of a model instead: of one that ships or of a directory.
"""

from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from model.checkpoint import (
    CHECKPOINTS,
    Duplex,
    DuplexDirectoryConfig,
    load_codec,
    load_duplex,
    save_duplex,
)
from model.duplex import DuplexModel
from model.speech import SpeechTransformer
from model.tokens import DialogueTokenizer, load_tokenizer
from train.run import NEWEST


def assemble(temporal: Path, speech: Path) -> Duplex:
    """The newest weights (their average, where the run has one) of two runs of `train.run`.

    Raises FileNotFoundError where a run has left none, and ValueError where the two have been
    trained with different vocabularies.
    """
    hears = _configuration(temporal)
    model = DuplexModel(_made(hears.module.model))
    _load(model, temporal, "model.")
    describe_tools = _made(hears.data.config.positions).describe_tools
    return joined(model, load_tokenizer(hears.tokenizer), describe_tools, speech)


def joined(
    model: DuplexModel, tokenizer: DialogueTokenizer, describe_tools: bool, speech: Path
) -> Duplex:
    """A temporal transformer with the speech transformer of a run or of a model.

    Raises FileNotFoundError where a run has left no weights, and ValueError where the two have been
    trained with different vocabularies.
    """
    speaker, its_tokenizer = _speaker(speech)
    if its_tokenizer.to_json() != tokenizer.to_json():
        raise ValueError(f"speech: {speech} has another tokenizer: must be the temporal's")
    config = DuplexDirectoryConfig(model.config, speaker.config, describe_tools=describe_tools)
    return Duplex(config, model, speaker.eval().requires_grad_(False), tokenizer, load_codec())


def _speaker(speech: Path) -> tuple[SpeechTransformer, DialogueTokenizer]:
    if any((folder / speech / "config.json").exists() for folder in (Path(), CHECKPOINTS)):
        model = load_duplex(speech)
        if model.speech is None:
            raise ValueError(f"speech: {speech} is joint: must be a split model, or a run")
        return model.speech, model.tokenizer
    cfg = _configuration(speech)
    speaker = SpeechTransformer(_made(cfg.module.speech))
    _load(speaker, speech, "speech.")
    return speaker, load_tokenizer(cfg.tokenizer)


def _configuration(run: Path) -> Any:
    """That with which a run was started, as Hydra has left it there."""
    path = run / "hydra" / "config.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{run} has no hydra/config.yaml: train it (docs/training.md)")
    return OmegaConf.load(path)


def _made(node: DictConfig) -> Any:
    return instantiate(node, _convert_="object")


def _load(module: nn.Module, run: Path, prefix: str) -> None:
    path = run / "checkpoints" / NEWEST
    weights = torch.load(path, weights_only=False, map_location="cpu")
    found = weights["state_dict"].items()
    own = {name.removeprefix(prefix): w for name, w in found if name.startswith(prefix)}
    module.load_state_dict(own)


@hydra.main(version_base=None, config_path="../conf", config_name="assemble")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    if not cfg.out:
        raise SystemExit("error: out is missing: give out=a directory")
    try:
        save_duplex(assemble(Path(cfg.temporal), Path(cfg.speech)), Path(cfg.out))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{cfg.out}: a model's directory, without figures yet")


if __name__ == "__main__":
    main()
