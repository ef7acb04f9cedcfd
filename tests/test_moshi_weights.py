"""Moshi's and PersonaPlex's state dicts to ours and back, and configurations from theirs."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from moshi_models import ARGUMENTS, CONFIGS, KINDS, load_reference
from torch import Tensor

from model.duplex import DuplexModel
from model.moshi_config import MOSHI_7B, PERSONAPLEX_7B, config_from_moshi
from model.moshi_weights import Layout, from_moshi, to_moshi

CONFIG = CONFIGS["moshi"]


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return dict(load_reference("moshi").weights)


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


# There and back


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back_is_exact(kind: str, dtype: torch.dtype) -> None:
    config = CONFIGS[kind]
    theirs = {name: w.to(dtype) for name, w in load_reference(kind).weights.items()}
    ours = from_moshi(theirs, config)
    assert ours.keys() == DuplexModel(config).state_dict().keys()
    assert _same(to_moshi(ours, config, "moshi"), theirs)
    fused = to_moshi(ours, config, "personaplex")
    assert _same(from_moshi(fused, config), ours)
    assert _same(to_moshi(from_moshi(fused, config), config, "personaplex"), fused)


def test_fused_weights_are_the_steps_one_behind_the_other() -> None:
    theirs = load_reference("personaplex").weights
    config = CONFIGS["personaplex"]
    fused = to_moshi(from_moshi(theirs, config), config, "personaplex")
    attention = "depformer.layers.1.self_attn."
    assert fused[f"{attention}in_proj_weight"].shape == (16 * 3 * 16, 16)
    assert torch.equal(
        fused[f"{attention}out_proj.weight"][16 * 9 : 16 * 10],
        theirs[f"{attention}out_projs.9.weight"],
    )
    assert fused["transformer.layers.0.self_attn.in_proj_weight"].shape == (96, 32)


def test_other_name_of_the_fused_weights(weights: dict[str, Tensor]) -> None:
    ours = from_moshi(weights, CONFIG)
    fused = to_moshi(ours, CONFIG, "personaplex")
    dotted = {name.replace("in_proj_weight", "in_proj.weight"): w for name, w in fused.items()}
    assert dotted.keys() != fused.keys()
    assert _same(from_moshi(dotted, CONFIG), ours)


def test_what_moshi_has_not_keeps_its_initialisation(weights: dict[str, Tensor]) -> None:
    config = dataclasses.replace(CONFIG, streams=("agent_text", "user_text", "action"))
    model = DuplexModel(config)
    loaded = model.load_state_dict(from_moshi(weights, config), strict=False)
    assert not loaded.unexpected_keys
    assert {name.split(".")[1] for name in loaded.missing_keys if name.startswith("heads.")} == {
        "user_text",
        "action",
    }
    assert _same(to_moshi(model.state_dict(), config, "moshi"), weights)


# Weights that are not right


def test_missing_weights_are_named(weights: dict[str, Tensor]) -> None:
    del weights["depformer.layers.1.gating.3.linear_in.weight"]
    del weights["out_norm.alpha"]
    with pytest.raises(ValueError, match=r"out_norm\.alpha is missing") as error:
        from_moshi(weights, CONFIG)
    assert "depformer.layers.1.gating.3.linear_in.weight is missing" in str(error.value)


def test_unknown_weights_are_named(weights: dict[str, Tensor]) -> None:
    weights["extra_heads.0.weight"] = torch.zeros(6, 32)
    with pytest.raises(ValueError, match=r"extra_heads\.0\.weight is unknown"):
        from_moshi(weights, CONFIG)


def test_weights_of_another_size_are_named(weights: dict[str, Tensor]) -> None:
    config = config_from_moshi({**ARGUMENTS, "text_card": 21})
    with pytest.raises(ValueError, match=r"text_linear\.weight is \[20, 32\], must be \[21, 32\]"):
        from_moshi(weights, config)


def test_weights_of_another_depth_are_counted(weights: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"linears\.15\.weight is missing|and \d+ more"):
        from_moshi(weights, CONFIGS["personaplex"])


def test_fused_weights_of_another_depth_are_named(weights: dict[str, Tensor]) -> None:
    fused = to_moshi(from_moshi(weights, CONFIG), CONFIG, "personaplex")
    name = "depformer.layers.0.self_attn.in_proj_weight"
    fused[name] = fused[name][:-1]
    with pytest.raises(ValueError, match=r"in_proj_weight has 383 rows: not those of 8 steps"):
        from_moshi(fused, CONFIG)


def test_weights_under_two_names_are_named(weights: dict[str, Tensor]) -> None:
    name = "transformer.layers.0.self_attn.in_proj"
    weights[f"{name}_weight"] = weights[f"{name}s.0.weight"]
    with pytest.raises(ValueError, match=r"in_projs\.0\.weight is there twice"):
        from_moshi(weights, CONFIG)


@pytest.mark.parametrize("layout", ["moshi", "personaplex"])
def test_partial_weights_of_ours_are_not_saved(weights: dict[str, Tensor], layout: Layout) -> None:
    ours = from_moshi(weights, CONFIG)
    del ours["depth.heads"]
    with pytest.raises(ValueError, match=r"depth\.heads is missing"):
        to_moshi(ours, CONFIG, layout)


# Configurations


@pytest.mark.parametrize(("arguments", "billions"), [(MOSHI_7B, 7.69), (PERSONAPLEX_7B, 8.37)])
def test_published_models_have_their_size(arguments: dict[str, Any], billions: float) -> None:
    config = config_from_moshi(arguments)
    assert config.temporal.hidden == 11264
    assert config.depth is not None
    assert config.depth.hidden == 2816
    # Too small for the tiny models' logits to show.
    assert config.temporal.norm_eps == config.depth.norm_eps == 1e-8
    with torch.device("meta"):
        model = DuplexModel(config)
    count = sum(math.prod(weight.shape) for weight in model.state_dict().values())
    assert round(count / 1e9, 2) == billions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "layer_norm"}, "norm is 'layer_norm', must be 'rms_norm_f32'"),
        ({"depformer_low_rank_embeddings": 128}, "depformer_low_rank_embeddings 128 is not"),
        ({"depformer_weights_per_step_schedule": [0] * 8}, "schedule .* is not supported"),
        ({"extra_heads_num_heads": 4}, "extra_heads_num_heads 4 is not supported"),
        ({"dep_q": 4}, "dep_q 4: dep_q must be n_q or half of it"),
        ({"delays": [0] * 17}, "delays .*: must be"),
        ({"kv_repeat": 2}, "kv_repeat 2 is not supported"),
        ({"depformer_dim_feedforward": [66] * 8}, "depformer_dim_feedforward must be the same"),
    ],
)
def test_other_models_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_moshi({**ARGUMENTS, **changes})


def test_what_changes_nothing_is_accepted() -> None:
    unset = {"layer_scale": None, "kv_repeat": 1, "cross_attention": False, "conditioners": {}}
    file = {"moshi_name": "model.safetensors", "model_type": "moshi", "depformer_context": 8}
    assert config_from_moshi({**ARGUMENTS, **unset, **file}) == CONFIG


def test_missing_argument_is_named() -> None:
    arguments = {name: value for name, value in ARGUMENTS.items() if name != "context"}
    with pytest.raises(ValueError, match="context is missing"):
        config_from_moshi(arguments)
