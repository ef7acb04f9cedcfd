"""A few front-desk dialogues as shards: real words and actions, noise for the caller's latents."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import datasets
import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback

from data.shards import features, shard_path
from train.dialogue_data import DialogueBatch, DialogueData, Part
from train.text_dialogues import TextDialogues, TextDialoguesConfig

CODEBOOKS, LATENT_DIM = 8, 96  # the shipped codec's


def write_small_dialogues(folder: Path, shards: int = 2, dialogues: int = 3) -> None:
    """Writes that many shards of as many dialogues, with tools, text, floor and actions."""
    config = TextDialoguesConfig({"front_desk": 1}, CODEBOOKS, LATENT_DIM, any_values=0)
    texts = TextDialogues(config, "train", ())
    for shard in range(shards):
        rows = []
        for number in range(dialogues):
            row = texts.row(f"{shard} {number}")
            rng = np.random.default_rng((shard, number))
            sound = {
                "user_latents": rng.normal(size=(row["frames"], LATENT_DIM)).astype(np.float16),
                "agent_codes": rng.integers(0, 1024, (row["frames"], CODEBOOKS), np.uint16),
                "user_codes": rng.integers(0, 1024, (row["frames"], CODEBOOKS), np.uint16),
            }
            actions = [{"known_s": "{}", "revises": 0, **action} for action in row["actions"]]
            says = {"script": "{}", "source": "", "licence": ""}
            rows.append({**row, **sound, **says, "actions": actions})
        made = datasets.Dataset.from_list(rows, features=features(CODEBOOKS, LATENT_DIM))
        made.to_parquet(str(shard_path(folder, shard)))


class SharedDialogues(DialogueData):
    """Gives each of several processes its rows of the batches that one process would get."""

    def loader(self, part: Part) -> Iterator[DialogueBatch]:
        for batch in super().loader(Part(part.epoch)):
            yield DialogueBatch._make(stream[part.rank :: part.ranks] for stream in batch)


class KillAfter(Callback):
    """Ends the process after so many steps, so that nothing of it can tidy up."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == self.steps:
            os.kill(os.getpid(), signal.SIGKILL)
