"""Two processes train as one does, under every strategy; a run that was cut off goes on exactly."""

import csv
import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from small_dialogues import write_small_dialogues

ROOT = Path(__file__).resolve().parents[1]
STEPS = 20
TINY = [
    "experiment=tiny", "~loggers.wandb", f"tokenizer={ROOT}/model/tokenizers/front_desk.json",
    "data._target_=small_dialogues.SharedDialogues", "data.config.sequence_length=256",
    "data.config.batch_size=2", "data.config.text_batch_size=0", "data.config.validation_shards=0",
    "data.config.validation_text_batches=0", f"optim.steps={STEPS}", "optim.warmup_steps=3",
    "+trainer.enable_progress_bar=false", "trainer.gradient_clip_val=0.5",
]  # fmt: skip
EXACTLY = (
    "++module.config.bfloat16=false ++module.config.latent_noise=0 ++module.config.hidden_share=0"
)
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dialogues")
    write_small_dialogues(folder)
    return folder


# `train.run` as often as there are options that differ, without importing all of it again.
TRAIN = """
import sys
from train.run import main
options, *starts = (argument.split() for argument in sys.argv[1:])
for more in starts:
    sys.argv[1:] = [*options, *more]
    main()
"""


def train(
    folder: Path, dialogues: Path, starts: list[str], processes: int = 1, ends: int = 0
) -> None:
    """Trains in `folder` once for each of `starts`, as a launcher does it: a process a rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = " ".join([*TINY, f"data.config.folders=[{dialogues}]"])
    running = []
    for rank in range(processes):
        environment = {
            **os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank),
            "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
        }  # fmt: skip
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", TRAIN, options, *starts],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=300)[0] for process in running]
    for process, output in zip(running, outputs, strict=True):
        assert process.returncode == ends, output[-4000:]


def losses(folder: Path, start: int = 0) -> dict[int, str]:
    """The logged loss of each step, as it stands in a start's log."""
    log = folder / "runs" / "tiny" / "csv" / f"version_{start}" / "metrics.csv"
    with log.open() as lines:
        return {int(row["step"]): row["loss"] for row in csv.DictReader(lines) if row["loss"]}


@pytest.fixture(scope="module")
def alone(dialogues: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The losses of one process."""
    folder = tmp_path_factory.mktemp("alone")
    train(folder, dialogues, [EXACTLY])
    found = losses(folder)
    assert len(found) == STEPS
    assert float(found[STEPS - 1]) < 0.9 * float(found[0]), "nothing was learned"
    return found


@pytest.mark.parametrize(
    "strategy",
    [
        "ddp",
        "fsdp2",
        pytest.param("deepspeed_zero2", marks=needs_deepspeed),
        pytest.param("deepspeed_zero3 trainer.strategy.whole_size=0", marks=needs_deepspeed),
    ],
)
def test_two_processes_train_as_one_and_go_on_from_a_checkpoint(
    strategy: str, dialogues: Path, alone: dict[int, str], tmp_path: Path
) -> None:
    options = f"{EXACTLY} strategy={strategy} trainer.devices=2"
    starts = [f"{options} trainer.max_steps={STEPS // 2}", f"{options} resume=true"]
    train(tmp_path, dialogues, starts, processes=2)
    first, second = losses(tmp_path), losses(tmp_path, 1)
    assert [*first, *second] == [*range(STEPS)]
    for step, loss in (first | second).items():
        assert abs(float(loss) - float(alone[step])) < 1e-4, f"step {step}"


def test_a_killed_run_goes_on_to_the_last_digit(dialogues: Path, tmp_path: Path) -> None:
    options = (
        "data.config.text_batch_size=1 data.config.workers=1 "
        "data.config.steps_per_epoch=5 model.temporal.dropout=0.1 "
        "callbacks.average={_target_:train.callbacks.WeightAverage} "
        "++callbacks.checkpoint.every_n_train_steps=3"
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    train(whole, dialogues, [options])
    kill = "+callbacks.kill={_target_:small_dialogues.KillAfter,steps:8}"
    train(killed, dialogues, [f"{options} {kill}"], ends=-signal.SIGKILL)
    train(killed, dialogues, [f"{options} resume=true"])
    expected, resumed = losses(whole), losses(killed, 1)
    assert [*resumed] == [*range(6, STEPS)], "the newest checkpoint is that after 6 steps"
    assert resumed == {step: expected[step] for step in resumed}
    one, other = (torch.load(f / "runs/tiny/checkpoints/last.ckpt") for f in (whole, killed))
    for part in ("state_dict", "current_model_state"):
        assert one[part].keys() == other[part].keys()
        assert all(torch.equal(weight, other[part][name]) for name, weight in one[part].items())
    average, last = (
        one[part]["model.floor_head.weight"] for part in ("state_dict", "current_model_state")
    )
    assert not torch.equal(average, last), "what is saved must be the average"
