"""Training of the duplex model: a tiny one learns a few dialogues by heart."""

from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
from small_dialogues import CODEBOOKS, LATENT_DIM, write_small_dialogues
from torch import Tensor

from model.checkpoint import load_duplex
from model.depth import DepthConfig
from model.duplex import DuplexConfig
from model.tokens import load_tokenizer, train_tokenizer
from model.transformer import TransformerConfig
from train.assemble import joined
from train.dialogue_data import DialogueData, DialogueDataConfig
from train.duplex import DuplexTraining, DuplexTrainingConfig
from train.optimization import OptimizationConfig
from train.positions import PositionsConfig
from train.text_dialogues import TextDialoguesConfig

TOKENIZER = str(Path(__file__).resolve().parents[1] / "model" / "tokenizers" / "front_desk.json")
TRUNK = TransformerConfig(64, 2, 4, 2, 128, window=256, pinned=64)
SPLIT = DuplexConfig(2048, TRUNK, latent_dim=LATENT_DIM, pointer_dim=16)
JOINT = DuplexConfig(
    2048,
    TRUNK,
    arrangement="joint",
    codebooks=CODEBOOKS,
    codebook=1024,
    depth=DepthConfig(64, 32, 1, 2, 64, CODEBOOKS, 1024, text_vocabulary=2049),
    tied=False,
    pointer_dim=16,
)


class Watch(lightning.Callback):
    """Keeps the figures of each step."""

    def __init__(self) -> None:
        self.figures: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        self.figures.append({name: float(v) for name, v in trainer.callback_metrics.items()})


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six of them, about two minutes."""
    folder = tmp_path_factory.mktemp("dialogues")
    write_small_dialogues(folder, shards=1, dialogues=6)
    return folder


def train(model: DuplexConfig, dialogues: Path, steps: int) -> list[dict[str, float]]:
    torch.manual_seed(0)
    watch = Watch()
    data = DialogueDataConfig(
        [dialogues], TOKENIZER, sequence_length=512, batch_size=4, steps_per_epoch=steps,
        positions=PositionsConfig(plain_user_text=True, describe_tools=False),
    )  # fmt: skip
    module = DuplexTraining(
        model, DuplexTrainingConfig(), OptimizationConfig(steps, 5e-3, warmup_steps=10), TOKENIZER
    )
    lightning.Trainer(
        accelerator="cpu", devices=1, max_steps=steps, gradient_clip_val=1.0, callbacks=[watch],
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, DialogueData(data))  # fmt: skip
    return watch.figures


def test_a_tiny_model_learns_two_minutes_by_heart(dialogues: Path) -> None:
    figures = train(SPLIT, dialogues, steps=250)
    actions = [step["train/action"] for step in figures[-12:]]  # of all of the dialogues
    assert sum(actions) / len(actions) <= 0.05
    assert figures[0]["train/action"] > 3


def test_a_joint_model_learns_its_codes_too(dialogues: Path) -> None:
    figures = train(JOINT, dialogues, steps=12)
    for name in ("action", "agent_text", "first_code", "acoustic_codes"):
        assert figures[-1][f"train/{name}"] < figures[0][f"train/{name}"], name


def test_training_goes_on_from_a_models_directory() -> None:
    shipped = load_duplex("nano").model
    config = DuplexTrainingConfig(init_from="nano")
    begun = DuplexTraining(shipped.config, config, OptimizationConfig(9, 1e-3, 1), TOKENIZER)
    for name, weight in shipped.state_dict().items():
        assert torch.equal(weight, begun.model.state_dict()[name]), name
    with pytest.raises(RuntimeError, match="size mismatch"):
        DuplexTraining(SPLIT, config, OptimizationConfig(9, 1e-3, 1), TOKENIZER)


@pytest.mark.parametrize(("init_from", "is_kept"), [(None, False), ("nano", True)])
def test_who_goes_on_hears_latents_as_before(
    dialogues: Path, init_from: str | None, is_kept: bool
) -> None:
    shipped = load_duplex("nano").model
    data = DialogueData(DialogueDataConfig([dialogues], TOKENIZER, 512, 1, 1))
    data.setup("fit")
    config = DuplexTrainingConfig(init_from=init_from)
    module = DuplexTraining(shipped.config, config, OptimizationConfig(9, 1e-3, 1), TOKENIZER)
    module._trainer = SimpleNamespace(datamodule=data)  # pyright: ignore
    module.setup("fit")
    for name in ("latent_mean", "latent_deviation"):
        assert torch.equal(getattr(module.model, name), getattr(shipped, name)) == is_kept


def test_a_model_lends_its_speech() -> None:
    shipped = load_duplex("nano")
    made = joined(shipped.model, load_tokenizer(TOKENIZER), False, Path("nano"))
    assert made.speech is not None
    assert shipped.speech is not None
    for name, weight in shipped.speech.state_dict().items():
        assert torch.equal(weight, made.speech.state_dict()[name]), name
    other = train_tokenizer(["other words"], 400)
    with pytest.raises(ValueError, match="speech: nano has another tokenizer"):
        joined(shipped.model, other, False, Path("nano"))
    with pytest.raises(FileNotFoundError, match=r"runs/none has no hydra/config\.yaml: train it"):
        joined(shipped.model, other, False, Path("runs/none"))


def disturbed(noise: float, hidden_share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, what training makes of them, and the mean that stands for hidden ones."""
    torch.manual_seed(0)
    config = DuplexTrainingConfig(latent_noise=noise, hidden_share=hidden_share)
    module = DuplexTraining(SPLIT, config, OptimizationConfig(2, 1e-3, warmup_steps=1), TOKENIZER)
    module.model.latent_mean.fill_(3.0)
    module.model.latent_deviation[:] = torch.linspace(0.1, 2.0, LATENT_DIM)
    latents = torch.randn(4, 2000, LATENT_DIM)
    return latents, module.disturbed(latents), module.model.latent_mean


def test_some_latents_are_hidden_in_short_stretches() -> None:
    latents, heard, mean = disturbed(noise=0.0, hidden_share=0.1)
    hidden = (heard == mean).all(-1)
    assert torch.equal(heard[~hidden], latents[~hidden])
    assert 0.07 < hidden.float().mean() < 0.11
    lengths = [
        len(run) for row in hidden.int().tolist() for run in "".join(map(str, row)).split("0")
    ]
    assert sorted({length for length in lengths if length})[:3] == [1, 2, 3]
    assert max(lengths) < 9


def test_noise_is_a_share_of_each_latents_deviation() -> None:
    latents, heard, _ = disturbed(noise=0.1, hidden_share=0.0)
    deviation = torch.linspace(0.1, 2.0, LATENT_DIM)
    torch.testing.assert_close((heard - latents).std((0, 1)), 0.1 * deviation, rtol=0.05, atol=0)


def test_what_only_sound_tells_is_validated_on_sound_alone(tmp_path: Path) -> None:
    """Texts must not make the figures of the caller's words better."""
    text = TextDialoguesConfig({"front_desk": 1.0}, CODEBOOKS, LATENT_DIM, any_values=0.0)
    write_small_dialogues(tmp_path, shards=2, dialogues=3)
    figures = []
    for batches in (0, 3):
        data = DialogueData(
            DialogueDataConfig(
                [tmp_path], TOKENIZER, sequence_length=512, batch_size=8, steps_per_epoch=1,
                text=text, validation_shards=1, validation_text_batches=batches,
                positions=PositionsConfig(plain_user_text=True, describe_tools=False),
            )
        )  # fmt: skip
        torch.manual_seed(0)
        module = DuplexTraining(
            SPLIT, DuplexTrainingConfig(), OptimizationConfig(2, 1e-3, warmup_steps=1), TOKENIZER
        )
        trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
        )
        figures.append(trainer.validate(module, data, verbose=False)[0])
    alone, beside = figures
    for name in ("user_text", "user_text_accuracy", "floor"):
        assert beside[f"validation/{name}"] == alone[f"validation/{name}"]
    assert beside["validation/agent_text"] != alone["validation/agent_text"]
