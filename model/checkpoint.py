"""A model is a directory: config.json, model.safetensors, metrics.json and a card."""

import dataclasses
import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from model.native_codec import NativeCodec, NativeCodecConfig

DEFAULT_CODEC = Path(__file__).parent / "checkpoints" / "codec"


def save_codec(codec: NativeCodec, directory: Path) -> None:
    """Writes configuration and weights; weights as float16, which halves the file.

    The figures of a shipped checkpoint are measured on what is loaded again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = {"codec": "native", **dataclasses.asdict(codec.config)}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: tensor.half().contiguous() for name, tensor in codec.state_dict().items()}
    save_file(weights, directory / "model.safetensors")


def load_codec(directory: Path | str = DEFAULT_CODEC) -> NativeCodec:
    """Reads a codec, in evaluation mode and float32.

    Raises FileNotFoundError where the directory is no checkpoint and ValueError where the
    configuration is not this codec's.
    """
    directory = Path(directory)
    for name in ("config.json", "model.safetensors"):
        if not (directory / name).exists():
            raise FileNotFoundError(f"checkpoint {directory} has no {name}: not a codec checkpoint")
    config = json.loads((directory / "config.json").read_text())
    if (kind := config.pop("codec", None)) != "native":
        raise ValueError(f"{directory}/config.json: codec is {kind!r}, must be 'native'")
    codec = NativeCodec(NativeCodecConfig(**config))
    weights = load_file(directory / "model.safetensors")
    codec.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    for module in codec.modules():
        if isinstance(module, nn.Linear):
            # Inputs first in memory: products with the few rows of a frame are up to twice as fast.
            module.weight.data = module.weight.data.T.contiguous().T
    return codec.eval().requires_grad_(False)
