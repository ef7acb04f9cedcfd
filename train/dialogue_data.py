"""Dialogues for training: shards and texts as endless streams, laid out, packed and batched.

Training is counted in steps: an epoch is `steps_per_epoch` batches of every rank, whatever the
number of rows, so that no rank ever waits for one that has come to its end. Each epoch draws the
rows anew. Every worker of every rank reads shards of its own (every rank its share of the rows,
where the number of shards is no multiple of the ranks). The same seed and epoch give the same
batches for the same number of ranks and workers, and a resumed run goes on where it was.
"""

import dataclasses
import functools
import itertools
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import lightning
import numpy as np
import torch
from datasets import config as dataset_settings
from datasets.distributed import split_dataset_by_node
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from model.tokens import PAD, DialogueTokenizer, load_tokenizer
from train.copying import copy_targets
from train.packing import DialogueBatch, pack
from train.positions import Positions, PositionsConfig, positions_of
from train.text_dialogues import TextDialogues, TextDialoguesConfig, vocabulary_words

__all__ = ["DialogueBatch", "DialogueData", "DialogueDataConfig", "pack"]

# datasets sleeps this long (5 s, unless told otherwise) after each reading of shards, for pyarrow's
# threads to end; a few recordings are read several times a step.
dataset_settings.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.1

_log = logging.getLogger(__name__)
_LAPS = 1_000_000  # over the rows within an epoch, at most


@dataclass(frozen=True)
class DialogueDataConfig:
    """A batch is `batch_size` sequences of `sequence_length` positions out of the shards in
    `folders`, then `text_batch_size` of dialogues without sound, made on the fly as `text` says.

    The first `validation_shards` of the first folder are not trained on; validation has all of
    their dialogues, and `validation_text_batches` of texts of the test split. `shuffle_rows` is how
    many rows each worker holds to draw the next one from.
    """

    folders: Sequence[Path | str]
    tokenizer: Path | str
    sequence_length: int
    batch_size: int
    steps_per_epoch: int
    text_batch_size: int = 0
    text: TextDialoguesConfig | None = None
    validation_shards: int = 0
    validation_text_batches: int = 0
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    shuffle_rows: int = 256
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.folders, str | Path):
            raise ValueError(f"folders is {str(self.folders)!r}: must be a list of folders")
        if min(self.sequence_length, self.steps_per_epoch, self.shuffle_rows) < 1:
            raise ValueError("sequence_length, steps_per_epoch and shuffle_rows must be 1 or more")
        counts = (self.batch_size, self.text_batch_size, self.workers, self.seed)
        if min(*counts, self.validation_shards, self.validation_text_batches) < 0:
            raise ValueError("batch sizes, validation, workers and seed must be at least 0")
        if not self.batch_size + self.text_batch_size:
            raise ValueError("batch_size and text_batch_size are 0: one must be more")
        if (self.text_batch_size or self.validation_text_batches) and self.text is None:
            raise ValueError("text: must say how the dialogues of text_batch_size are made")


@dataclass(frozen=True)
class Part:
    """Which share of the training data it is: of `epoch`, for one rank of several."""

    epoch: int = 0
    rank: int = 0
    ranks: int = 1


class DialogueStream(IterableDataset[DialogueBatch]):
    """Batches without end; each worker makes its own from its share of the shards."""

    def __init__(
        self,
        shards: list[str],
        tokenizer: DialogueTokenizer,
        config: DialogueDataConfig,
        part: Part,
    ) -> None:
        self.shards, self.tokenizer, self.config, self.part = shards, tokenizer, config, part

    def __iter__(self) -> Iterator[DialogueBatch]:
        config = self.config
        length, pad = config.sequence_length, self.tokenizer.id_of(PAD)
        heard = pack(self.heard(), length, pad)
        texts = pack(self.texts(), length, pad)
        while True:
            sequences = [
                *itertools.islice(heard, config.batch_size),
                *itertools.islice(texts, config.text_batch_size),
            ]
            yield stacked(sequences)

    def heard(self) -> Iterator[Positions]:
        """The shards' dialogues, lap after lap, each in an order of its own.

        Raises ValueError where there are fewer shards than workers.
        """
        for lap in itertools.count(self.part.epoch * _LAPS):
            count = 0
            for row in self.rows(lap):
                count += 1
                yield laid_out(row, self.tokenizer, self.config, lap)
            if not count:
                raise ValueError(
                    f"{len(self.shards)} shards are too few for {self.config.workers} workers"
                )

    def rows(self, lap: int) -> Iterable[dict[str, Any]]:
        """This worker's rows of a lap, each row once in all workers of all ranks."""
        # Not load_dataset: it reports each use to Hugging Face, and waits where it cannot.
        rows = datasets.IterableDataset.from_parquet(list(self.shards))
        seed = int(np.random.default_rng((self.config.seed, lap)).integers(2**31))
        rows = rows.shuffle(seed=seed, buffer_size=self.config.shuffle_rows)
        return split_dataset_by_node(rows, self.part.rank, self.part.ranks)

    def texts(self) -> Iterator[Positions]:
        """Dialogues without sound, none of them twice."""
        worker = get_worker_info()
        number = worker.id if worker else 0
        place = f"{self.config.seed} {self.part.epoch} {self.part.rank} {number}"
        return text_positions("train", place, self.tokenizer, self.config)


def laid_out(
    row: dict[str, Any], tokenizer: DialogueTokenizer, config: DialogueDataConfig, lap: int = 0
) -> Positions:
    """A row is split alike wherever and whenever in a lap it is read."""
    name = zlib.crc32(row["name"].encode())
    rng = np.random.default_rng((config.seed, lap, name))
    positions = positions_of(row, tokenizer, config.positions, rng)
    if len(positions.kind) > config.sequence_length:
        _log.warning(
            "%s has %d positions: cut to %d",
            row["name"], len(positions.kind), config.sequence_length,
        )  # fmt: skip
    return positions


def text_positions(
    split: Any, place: str, tokenizer: DialogueTokenizer, config: DialogueDataConfig
) -> Iterator[Positions]:
    """Endless texts of a split; `place` tells apart who makes them."""
    assert config.text is not None
    makes = TextDialogues(config.text, split, vocabulary_words(tokenizer))
    for number in itertools.count():
        row = makes.row(f"{place} {number}")
        rng = np.random.default_rng(zlib.crc32(row["name"].encode()))
        yield positions_of(row, tokenizer, config.positions, rng, heard=False)


def stacked(sequences: list[DialogueBatch]) -> DialogueBatch:
    """Sequences [L, ...] as a batch [B, L, ...]."""
    return DialogueBatch._make(map(torch.stack, zip(*sequences, strict=True)))


class Epochs:
    """What Lightning reads: each iteration is the rest of the epoch that it is in.

    Its state is how many batches it has given; Lightning keeps it in its checkpoints. A resumed
    epoch makes again what was given of it before, and drops it: so nothing depends on when a run
    was cut off, and epochs should last minutes rather than hours.
    """

    def __init__(self, data: "DialogueData", rank: int, ranks: int) -> None:
        self.data, self.rank, self.ranks, self.given = data, rank, ranks, 0

    def __len__(self) -> int:
        return self.data.config.steps_per_epoch

    def __iter__(self) -> Iterator[DialogueBatch]:
        epoch, begun = divmod(self.given, len(self))
        batches = self.data.loader(Part(epoch, self.rank, self.ranks))
        for batch in itertools.islice(batches, begun, len(self)):
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches were given."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on behind as many batches."""
        self.given = state["given"]


@dataclass(frozen=True)
class Validation:
    """Batches that are already this rank's: Lightning would share out a DataLoader's or a list's
    once more."""

    batches: list[DialogueBatch]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[DialogueBatch]:
        return iter(self.batches)


class DialogueData(lightning.LightningDataModule):
    """Streams `*.parquet`, whose rows follow `data.shards.features`, and texts."""

    def __init__(self, config: DialogueDataConfig) -> None:
        super().__init__()
        self.config = config

    def setup(self, stage: str) -> None:
        """Finds the shards; raises FileNotFoundError where there are none, and as `load_tokenizer`
        does."""
        config = self.config
        found: list[str] = []
        for number, folder in enumerate(config.folders):
            shards = [str(path) for path in sorted(Path(folder).glob("*.parquet"))]
            wanted = bool(config.batch_size) + (0 if number else config.validation_shards)
            if len(shards) < wanted:
                raise FileNotFoundError(
                    f"{folder} holds {len(shards)} shards (*.parquet): must be {wanted} at least"
                )
            found += shards
        self.validation_shards = found[: config.validation_shards]
        self.shards = found[config.validation_shards :]
        self.tokenizer = load_tokenizer(config.tokenizer)

    def copy_targets(self) -> Tensor:
        """int64 [2, V] of the domains whose texts are made: see train/copying.py."""
        text = self.config.text
        return copy_targets(self.tokenizer, list(text.domains) if text else [])

    def latent_statistics(self) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation, float32 [D], of one shard's latents; None where there are none."""
        rows = datasets.IterableDataset.from_parquet(self.shards[0]) if self.shards else ()
        found = [np.asarray(row["user_latents"]) for row in rows if "user_latents" in row]
        if not found:
            return None
        latents = np.concatenate(found).astype(np.float32)
        return torch.from_numpy(latents.mean(0)), torch.from_numpy(latents.std(0).clip(1e-3))

    @functools.cached_property
    def epochs(self) -> Epochs:
        """The one stream of training batches of this rank."""
        trainer = self.trainer
        return Epochs(self, *((trainer.global_rank, trainer.world_size) if trainer else (0, 1)))

    def train_dataloader(self) -> Epochs:
        """The same whenever it is asked for: it knows how far it has come."""
        return self.epochs

    def loader(self, part: Part) -> DataLoader[DialogueBatch]:
        """An epoch's batches, without end, that one rank of several reads."""
        stream = DialogueStream(self.shards, self.tokenizer, self.config, part)
        return DataLoader(stream, batch_size=None, num_workers=self.config.workers)

    def val_dataloader(self) -> "Validation":
        """Always the same batches, as many for each rank; bursts are not split."""
        trainer = self.trainer
        place = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return Validation(self.validation(*place))

    def validation(self, rank: int, ranks: int) -> list[DialogueBatch]:
        """What one rank of several validates on: heard dialogues, then texts."""
        positions = dataclasses.replace(self.config.positions, split_probability=0.0)
        config = dataclasses.replace(self.config, positions=positions)
        length, pad = config.sequence_length, self.tokenizer.id_of(PAD)
        batches: list[DialogueBatch] = []
        if self.validation_shards:
            rows = datasets.IterableDataset.from_parquet(list(self.validation_shards))
            laid = (laid_out(row, self.tokenizer, config) for row in rows)
            sequences = list(pack(laid, length, pad))
            mine = sequences[rank::ranks][: len(sequences) // ranks]
            size = config.batch_size or config.text_batch_size
            batches += [stacked(mine[at : at + size]) for at in range(0, len(mine), size)]
        if config.validation_text_batches:
            size = config.text_batch_size or config.batch_size
            laid = text_positions("test", f"validation {rank}", self.tokenizer, config)
            texts = pack(laid, length, pad)
            for _ in range(config.validation_text_batches):
                batches.append(stacked(list(itertools.islice(texts, size))))
        return batches
