"""A model is a directory: config.json, model.safetensors, metrics.json and a card.

A duplex model also has its tokenizer.json, and its configuration names its codec.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import dacite
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.codec import Codec
from model.duplex import DuplexConfig, DuplexModel
from model.native_codec import NativeCodec, NativeCodecConfig
from model.speech import SpeechConfig, SpeechTransformer
from model.tokens import DialogueTokenizer, load_tokenizer

CHECKPOINTS = Path(__file__).parent / "checkpoints"  # of those that ship, by name
DEFAULT_CODEC = CHECKPOINTS / "codec"

ConfigT = TypeVar("ConfigT")


@dataclasses.dataclass(frozen=True)
class DuplexDirectoryConfig:
    """What a duplex model's config.json holds.

    `codec` is a codec's directory, or the name of one that ships. `describe_tools` says how tools
    are given to it (model.tokens.serialize_context). `speech` is null where it is joint.
    """

    duplex: DuplexConfig
    speech: SpeechConfig | None
    codec: str = DEFAULT_CODEC.name
    describe_tools: bool = True

    def __post_init__(self) -> None:
        is_split = self.duplex.arrangement == "split"
        assert is_split == (self.speech is not None), (
            f"speech: must be {'given' if is_split else 'null'} in {self.duplex.arrangement}"
        )


class Duplex(NamedTuple):
    """A duplex model with all that it needs; modules are in evaluation mode and float32."""

    config: DuplexDirectoryConfig
    model: DuplexModel
    speech: SpeechTransformer | None
    tokenizer: DialogueTokenizer
    codec: Codec[Any]


def save_duplex(duplex: Duplex, directory: Path) -> None:
    """Writes configuration, weights (as float16) and tokenizer.

    The figures of a shipped checkpoint are measured on what is loaded again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = json.dumps(dataclasses.asdict(duplex.config), indent=2)
    (directory / "config.json").write_text(config + "\n")
    save_file(_halved(_parts(duplex.model, duplex.speech)), directory / "model.safetensors")
    duplex.tokenizer.save(directory / "tokenizer.json")


def load_duplex(path_or_name: Path | str) -> Duplex:
    """Reads a duplex model: a directory, or the name of one that ships.

    Raises FileNotFoundError where there is none or a file of it is missing, and ValueError where
    one is damaged or does not fit the others, naming what differs.
    """
    directory = Path(path_or_name)
    if not directory.exists() and (CHECKPOINTS / path_or_name).is_dir():
        directory = CHECKPOINTS / path_or_name
    _check_files(directory, "a duplex", "config.json", "model.safetensors", "tokenizer.json")
    config = _read_config(directory / "config.json", DuplexDirectoryConfig)
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    if len(tokenizer) > config.duplex.vocabulary:
        raise ValueError(
            f"{directory}: tokenizer.json has {len(tokenizer)} tokens, config.json a vocabulary of "
            f"{config.duplex.vocabulary}: must hold them all"
        )
    codec = load_codec(_codec_directory(directory, config.codec))
    model = DuplexModel(config.duplex)
    speech = None if config.speech is None else SpeechTransformer(config.speech)
    _load_weights(_parts(model, speech), directory / "model.safetensors")
    parts = (part.eval().requires_grad_(False) for part in (model, speech) if part is not None)
    _inputs_first(*parts)
    return Duplex(config, model, speech, tokenizer, codec)


def save_codec(codec: NativeCodec, directory: Path) -> None:
    """Writes configuration and weights; weights as float16, which halves the file.

    The figures of a shipped checkpoint are measured on what is loaded again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = {"codec": "native", **dataclasses.asdict(codec.config)}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(_halved(codec.state_dict()), directory / "model.safetensors")


def load_codec(directory: Path | str = DEFAULT_CODEC) -> NativeCodec:
    """Reads a codec, in evaluation mode and float32.

    Raises FileNotFoundError where the directory is no checkpoint and ValueError where the
    configuration is not this codec's.
    """
    directory = Path(directory)
    _check_files(directory, "a codec", "config.json", "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    if (kind := config.pop("codec", None)) != "native":
        raise ValueError(f"{directory}/config.json: codec is {kind!r}, must be 'native'")
    codec = NativeCodec(NativeCodecConfig(**config))
    weights = load_file(directory / "model.safetensors")
    codec.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    _inputs_first(codec)
    return codec.eval().requires_grad_(False)


def _codec_directory(directory: Path, codec: str) -> Path:
    """A subdirectory of the model's own, or a codec that ships."""
    inside = directory / codec
    return inside if inside.is_dir() else CHECKPOINTS / codec


def _check_files(directory: Path, what: str, *names: str) -> None:
    for name in names:
        if not (directory / name).exists():
            raise FileNotFoundError(f"checkpoint {directory} has no {name}: not {what} checkpoint")


def _read_config(path: Path, kind: type[ConfigT]) -> ConfigT:
    strict = dacite.Config(strict=True, cast=[tuple])
    try:
        return dacite.from_dict(kind, json.loads(path.read_text()), strict)
    except (json.JSONDecodeError, dacite.DaciteError, AssertionError) as error:
        raise ValueError(f"{path}: {error}") from error


def _parts(model: DuplexModel, speech: SpeechTransformer | None) -> dict[str, Tensor]:
    """All tensors by the names that they have in a file."""
    parts: dict[str, nn.Module] = {"duplex": model}
    if speech is not None:
        parts["speech"] = speech
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def _load_weights(own: Mapping[str, Tensor], path: Path) -> None:
    """Copies a file's tensors into the ones of that name."""
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    differences = [
        *(f"{name} is missing" for name in sorted({*own} - {*found})),
        *(f"{name} is unknown" for name in sorted({*found} - {*own})),
        *(
            f"{name} is {list(found[name].shape)}, must be {list(own[name].shape)}"
            for name in sorted({*own} & {*found})
            if found[name].shape != own[name].shape
        ),
    ]
    if differences:
        more = f" and {len(differences) - 8} more" if len(differences) > 8 else ""
        raise ValueError(f"{path} does not fit its config.json: {'; '.join(differences[:8])}{more}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(found[name])


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in weights.items()
    }


def _inputs_first(*roots: nn.Module) -> None:
    """Lays products out so that those with the few rows of a frame are up to twice as fast."""
    for root in roots:
        for module in root.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.T.contiguous().T
