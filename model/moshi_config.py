"""Which of our configurations a model of the Moshi family is."""

from collections.abc import Mapping
from typing import Any

from model.depth import DepthConfig
from model.duplex import DuplexConfig
from model.transformer import TransformerConfig

# The arguments of `LMModel` where a checkpoint brings no config.json (moshi's `loaders.py`).
MOSHI_7B: Mapping[str, Any] = {
    "dim": 4096,
    "text_card": 32000,
    "existing_text_padding_id": 3,
    "n_q": 16,
    "dep_q": 8,
    "card": 2048,
    "num_heads": 32,
    "num_layers": 32,
    "hidden_scale": 4.125,
    "causal": True,
    "context": 3000,
    "max_period": 10_000,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "positional_embedding": "rope",
    "depformer_dim": 1024,
    "depformer_dim_feedforward": 4224,
    "depformer_num_heads": 16,
    "depformer_num_layers": 6,
    "depformer_multi_linear": True,
    "depformer_gating": "silu",
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
    "delays": [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1],
}
PERSONAPLEX_7B: Mapping[str, Any] = {**MOSHI_7B, "dep_q": 16}

_REQUIRED = {
    "norm": "rms_norm_f32",
    "gating": "silu",
    "positional_embedding": "rope",
    "depformer_gating": "silu",
    "depformer_pos_emb": "none",
    "depformer_multi_linear": True,
    "depformer_weights_per_step": True,
}
_SIZES = (
    *("dim", "text_card", "n_q", "dep_q", "card", "num_heads", "num_layers", "hidden_scale"),
    *("context", "delays", "depformer_dim", "depformer_num_heads", "depformer_num_layers"),
)
_OPTIONAL = ("max_period", "depformer_dim_feedforward")
# Without effect on the weights, or on what they compute in the reference.
_IGNORED = (
    *("causal", "depformer_causal", "depformer_context", "depformer_max_period"),
    *("existing_text_padding_id", "existing_text_end_padding_id", "gradient_checkpointing"),
    *("moshi_name", "mimi_name", "tokenizer_name", "lm_gen_config", "model_id"),
)
# What else there is must be unset, or this.
_NEUTRAL = {"kv_repeat": 1, "depformer_kv_repeat": 1, "model_type": "moshi"}
_NORM_EPS = 1e-8  # of rms_norm_f32


def config_from_moshi(arguments: Mapping[str, Any]) -> DuplexConfig:
    """The configuration of the model that `LMModel(**arguments)` is in the package `moshi`.

    The whole of a checkpoint's config.json will do. ValueError names what is missing and what our
    classes have not: conditioners, low-rank embeddings, weights shared by depth steps and so on.
    """
    _check_arguments(arguments)
    _check_streams(arguments)
    dim, depth_dim = arguments["dim"], arguments["depformer_dim"]
    scale, heads = arguments["hidden_scale"], arguments["num_heads"]
    depth_feed_forward = arguments.get("depformer_dim_feedforward") or int(scale * depth_dim)
    temporal = TransformerConfig(
        dim=dim,
        layers=arguments["num_layers"],
        heads=heads,
        kv_heads=heads,
        hidden=_hidden(dim, int(scale * dim)),
        window=arguments["context"],
        rope_period=float(arguments.get("max_period", 10_000)),
        norm_eps=_NORM_EPS,
    )
    depth = DepthConfig(
        input_dim=dim,
        dim=depth_dim,
        layers=arguments["depformer_num_layers"],
        heads=arguments["depformer_num_heads"],
        hidden=_hidden(depth_dim, depth_feed_forward),
        steps=arguments["dep_q"],
        codebook=arguments["card"],
        text_vocabulary=arguments["text_card"] + 1,
        norm_eps=_NORM_EPS,
    )
    return DuplexConfig(
        vocabulary=arguments["text_card"],
        temporal=temporal,
        arrangement="joint",
        codebooks=arguments["n_q"] // 2,
        codebook=arguments["card"],
        depth=depth,
        streams=("agent_text",),
        tied=False,
    )


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    known = {*_REQUIRED, *_SIZES, *_OPTIONAL, *_IGNORED}
    wrong = [f"{name} is missing" for name in _SIZES if name not in arguments]
    wrong += [
        f"{name} is {arguments.get(name)!r}, must be {value!r}"
        for name, value in _REQUIRED.items()
        if arguments.get(name) != value
    ]
    wrong += [
        f"{name} {value!r} is not supported"
        for name, value in arguments.items()
        if name not in known and value and value != _NEUTRAL.get(name)
    ]
    if isinstance(arguments.get("depformer_dim_feedforward"), list):
        wrong.append("depformer_dim_feedforward must be the same at all steps")
    if wrong:
        raise ValueError(f"not a model of Moshi's shape: {'; '.join(wrong)}")


def _check_streams(arguments: Mapping[str, Any]) -> None:
    """Both sides have as many codebooks, all but each one's first a frame late."""
    inputs, made, delays = arguments["n_q"], arguments["dep_q"], list(arguments["delays"])
    side = inputs // 2
    if inputs != 2 * side or made not in (side, inputs):
        raise ValueError(f"n_q {inputs}, dep_q {made}: dep_q must be n_q or half of it")
    expected = [0, *[0, *[1] * (side - 1)] * 2]
    if delays != expected:
        raise ValueError(f"delays {delays}: must be {expected}")


def _hidden(dim: int, feed_forward: int) -> int:
    """Width behind the gate, as the reference derives it from that of a layer without one."""
    return 21 * dim // 8 if feed_forward == 4 * dim else 2 * feed_forward // 3
