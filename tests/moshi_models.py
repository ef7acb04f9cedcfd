"""The tiny models of moshi_reference.py in our classes, and what the package `moshi` made of them.

tests/moshi_values keeps that; `make parity` computes it anew and names the place.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from model.duplex import DuplexConfig, DuplexModel
from model.moshi_config import MOSHI_7B, config_from_moshi
from model.moshi_weights import from_moshi

KINDS = ["moshi", "personaplex"]
ARGUMENTS: dict[str, Any] = {
    **MOSHI_7B,
    **{"dim": 32, "num_heads": 4, "num_layers": 2, "context": 48, "card": 12, "text_card": 20},
    **{"depformer_dim": 16, "depformer_num_heads": 2, "depformer_num_layers": 2},
    "depformer_dim_feedforward": 66,
}
CONFIGS = {
    "moshi": config_from_moshi(ARGUMENTS),
    "personaplex": config_from_moshi({**ARGUMENTS, "dep_q": 16}),
}


@dataclasses.dataclass
class Reference:
    """Weights under their names, and inputs, logits and tokens of one call in two rows."""

    config: DuplexConfig
    weights: dict[str, Tensor]
    values: dict[str, Tensor]

    def model(self) -> DuplexModel:
        """Ours, with these weights."""
        model = DuplexModel(self.config)
        model.load_state_dict(from_moshi(self.weights, self.config))
        return model.eval()


def load_reference(kind: str) -> Reference:
    """`kind` is one of KINDS."""
    directory = os.environ.get("MOSHI_REFERENCE", Path(__file__).parent / "moshi_values")
    tensors = load_file(Path(directory) / f"{kind}.safetensors")
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("weights.")}
    return Reference(
        CONFIGS[kind],
        {name.removeprefix("weights."): tensor for name, tensor in weights.items()},
        {name: tensor for name, tensor in tensors.items() if name not in weights},
    )
