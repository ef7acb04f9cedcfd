"""What training's configuration comes to: schedules, decay, averages, sizes of the models."""

import itertools
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from model.duplex import DuplexModel
from model.speech import SpeechTransformer
from train.callbacks import SeedSteps, WeightAverage
from train.optimization import OptimizationConfig, optimizer_of
from train.strategies import FullySharded, Zero, mean_over_processes

CONF = Path(__file__).resolve().parents[1] / "conf"


def test_cosine_warms_up_and_falls_to_its_share() -> None:
    config = OptimizationConfig(1000, 1.0, warmup_steps=100, final_share=0.1)
    shares = [config.share_at(step) for step in range(1001)]
    assert shares[0] == pytest.approx(0.01)
    assert shares[99] == shares[100] == 1
    assert shares[550] == pytest.approx(0.55)
    assert shares[1000] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(shares[99:]))


def test_wsd_stays_and_then_falls_in_a_straight_line() -> None:
    config = OptimizationConfig(
        1000, 1.0, warmup_steps=100, schedule="wsd", decay_share=0.2, final_share=0
    )
    assert [config.share_at(step) for step in (100, 500, 800)] == [1, 1, 1]
    assert [config.share_at(step) for step in (850, 900, 1000)] == pytest.approx([0.75, 0.5, 0])


def test_matrices_alone_are_decayed_and_frozen_weights_left_out() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3, bias=False))
    module[2].requires_grad_(False)
    optimizer = optimizer_of(module, OptimizationConfig(10, 0.1, warmup_steps=1))["optimizer"]
    decayed, others = optimizer.param_groups
    assert [p.shape for p in decayed["params"]] == [(3, 3)]
    assert [p.shape for p in others["params"]] == [(3,)] * 3
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0


@pytest.mark.parametrize(
    "wrong",
    [{"warmup_steps": 10}, {"learning_rate": 0}, {"schedule": "linear"}, {"decay_share": 0}],
)
def test_wrong_optimisation_is_refused(wrong: dict) -> None:
    with pytest.raises(AssertionError, match=next(iter(wrong))):
        OptimizationConfig(**{"steps": 10, "learning_rate": 0.1, "warmup_steps": 1} | wrong)


def test_one_process_is_its_own_mean() -> None:
    assert mean_over_processes(torch.tensor(3)) == 3


class Counter(lightning.LightningModule):
    """One weight, moved by 1 in each step, and what validation saw of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("step", torch.zeros(1, dtype=torch.int64))
        self.seen: list[float] = []
        self.drawn: list[float] = []

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        self.step += 1
        self.drawn.append(torch.rand(()).item())
        return -self.weight.sum()

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        self.seen.append(self.weight.item())

    def configure_optimizers(self) -> torch.optim.SGD:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit(module: Counter, callbacks: list, steps: int = 4, **trainer: Any) -> None:
    options: dict[str, Any] = {"devices": 1} | trainer
    rows: list[Any] = [torch.zeros(4, 1), torch.zeros(1, 1)]
    train, validation = (DataLoader(values) for values in rows)
    lightning.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=callbacks, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, val_check_interval=4, **options,
    ).fit(module, train, validation)  # fmt: skip


def test_the_average_is_validated_and_left_in_the_module() -> None:
    module = Counter()
    fit(module, [WeightAverage(decay=0.999)])
    average = 1.0  # after the first step it is the weight
    for weight, count in ((2.0, 1), (3.0, 2), (4.0, 3)):
        average += (weight - average) * (1 - (1 + count) / (10 + count))
    assert module.seen == [pytest.approx(average)]
    assert module.weight.item() == pytest.approx(average)
    assert module.step == 4, "a counter is no average"


@pytest.mark.parametrize("strategy", [FullySharded(), "zero"])
def test_the_average_refuses_sharded_weights(strategy) -> None:
    if strategy == "zero":
        pytest.importorskip("deepspeed")
        strategy = Zero(2)
    trainer = lightning.Trainer(accelerator="cpu", devices=1, strategy=strategy, logger=False)
    with pytest.raises(ValueError, match=r"callbacks\.average"):
        WeightAverage().setup(trainer, Counter(), "fit")


def test_a_step_draws_the_same_whatever_was_drawn_before() -> None:
    one, other, third = Counter(), Counter(), Counter()
    fit(one, [SeedSteps(1)])
    torch.rand(7)
    fit(other, [SeedSteps(1)])
    fit(third, [SeedSteps(2)])
    assert one.drawn == other.drawn
    assert len({*one.drawn, *third.drawn}) == 8


def composed(experiment: str, *overrides: str):
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("train", overrides=[f"experiment={experiment}", *overrides])


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("tiny", 0, 5e5), ("nano", 4e6, 8e6), ("small", 1.2e8, 1.8e8), ("7b", 7e9, 9e9)],
)
def test_models_have_the_size_of_their_name(name: str, least: float, most: float) -> None:
    with torch.device("meta"):
        model = DuplexModel(instantiate(composed(name).model, _convert_="object"))
    assert least < sum(p.numel() for p in model.parameters()) < most


def test_nano_with_its_speech_is_small() -> None:
    with torch.device("meta"):
        duplex = DuplexModel(instantiate(composed("nano").model, _convert_="object"))
        speech = SpeechTransformer(instantiate(composed("speech").model, _convert_="object"))
    assert sum(p.numel() for part in (duplex, speech) for p in part.parameters()) <= 16e6


def test_strategy_and_trainer_are_chosen_by_name() -> None:
    trainer = instantiate(composed("tiny", "strategy=ddp", "trainer=cpu").trainer)
    assert isinstance(trainer["strategy"], DDPStrategy)
    assert trainer["devices"] == 2
    alone = instantiate(composed("tiny").trainer)
    assert (alone["strategy"], alone["devices"]) == ("auto", 1)
