"""Dialogues for training: shards read as a stream, laid out as positions and packed.

Every worker of every rank reads shards of its own (every rank its share of the rows, where the
number of shards is no multiple of the ranks), so that each row is seen once an epoch. The same seed
and epoch give the same batches for the same number of ranks and workers.
"""

import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import lightning
import numpy as np
import torch
from datasets.distributed import split_dataset_by_node
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from model.tokens import PAD, DialogueTokenizer, load_tokenizer
from train.positions import FRAME, Positions, PositionsConfig, cut, positions_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DialogueDataConfig:
    """`folder` holds the shards; `batch_size` sequences of `sequence_length` positions a batch.

    `shuffle_rows` is how many rows each worker holds to draw the next one from.
    """

    folder: Path | str
    tokenizer: Path | str
    sequence_length: int
    batch_size: int
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    shuffle_rows: int = 256
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.sequence_length, self.batch_size, self.shuffle_rows) < 1:
            raise ValueError("sequence_length, batch_size and shuffle_rows must be at least 1")
        if min(self.workers, self.seed) < 0:
            raise ValueError("workers and seed must be at least 0")


class DialogueBatch(NamedTuple):
    """Packed dialogues [B, L]; integers are int64, masks bool.

    `kind`: 0 padding, 1 a frame, 2 an action position. `segment` numbers a sequence's dialogues
    from 1 (0: padding), `position` counts from 0 in each. `action`, `agent_text` and `user_text`
    are tokens, `floor` is one of `data.dialogue.FLOORS`, codes are [B, L, K] and `user_latents`
    float32 [B, L, D], D = 0 where the shards hold none. What is no frame has `<pad>`, 0 in them.

    `learn_action`: this position's `action` is to be predicted (frames and the model's own
    actions, not what it is given). `learn_frame`: so are its text, floor and codes.
    One sequence is a DialogueBatch without the dimension B.
    """

    kind: Tensor
    segment: Tensor
    position: Tensor
    action: Tensor
    agent_text: Tensor
    user_text: Tensor
    floor: Tensor
    agent_codes: Tensor
    user_codes: Tensor
    user_latents: Tensor
    learn_action: Tensor
    learn_frame: Tensor


def pack(dialogues: Iterable[Positions], length: int, pad: int) -> Iterator[DialogueBatch]:
    """Fills sequences of `length` positions in the order of the stream.

    A dialogue that does not fit what is left begins the next sequence; one that is longer than a
    sequence is cut at its end.
    """
    waiting: list[Positions] = []
    room = length
    for dialogue in dialogues:
        dialogue = cut(dialogue, length)
        if len(dialogue.kind) > room:
            yield _join(waiting, length, pad)
            waiting, room = [], length
        waiting.append(dialogue)
        room -= len(dialogue.kind)
    if waiting:
        yield _join(waiting, length, pad)


def _join(dialogues: Sequence[Positions], length: int, pad: int) -> DialogueBatch:
    sizes = [len(dialogue.kind) for dialogue in dialogues]

    def filled(parts: Iterable[np.ndarray], fill: int = 0) -> Tensor:
        joined = np.concatenate(list(parts))
        tail = np.full((length - len(joined), *joined.shape[1:]), fill, joined.dtype)
        return torch.from_numpy(np.concatenate([joined, tail]))

    fills = {"action": pad, "agent_text": pad, "user_text": pad}
    streams = {
        name: filled((getattr(dialogue, name) for dialogue in dialogues), fills.get(name, 0))
        for name in Positions._fields
        if name != "burst"
    }
    return DialogueBatch(
        segment=filled(np.full(size, number) for number, size in enumerate(sizes, 1)),
        position=filled(np.arange(size) for size in sizes),
        learn_frame=streams["kind"] == FRAME,
        **streams,
    )


class PackedDialogues(IterableDataset[DialogueBatch]):
    """One epoch of one rank's rows as sequences; several workers share the rows' shards."""

    def __init__(
        self,
        rows: datasets.IterableDataset,
        tokenizer: DialogueTokenizer,
        config: DialogueDataConfig,
        epoch: int,
    ) -> None:
        self.rows, self.tokenizer, self.config, self.epoch = rows, tokenizer, config, epoch

    def __iter__(self) -> Iterator[DialogueBatch]:
        pad = self.tokenizer.id_of(PAD)
        return pack(map(self._positions, self.rows), self.config.sequence_length, pad)

    def _positions(self, row: dict[str, Any]) -> Positions:
        """A row is split alike wherever and whenever in the epoch it is read."""
        name = zlib.crc32(row["name"].encode())
        rng = np.random.default_rng((self.config.seed, self.epoch, name))
        positions = positions_of(row, self.tokenizer, self.config.positions, rng)
        if len(positions.kind) > self.config.sequence_length:
            _log.warning(
                "%s has %d positions: cut to %d",
                row["name"], len(positions.kind), self.config.sequence_length,
            )  # fmt: skip
        return positions


class DialogueData(lightning.LightningDataModule):
    """Streams `folder/*.parquet`, whose rows follow `data.shards.features`.

    Ranks may come to the end of an epoch after different numbers of batches: with more than one,
    set the trainer's `limit_train_batches` to what each of them surely has.
    """

    def __init__(self, config: DialogueDataConfig) -> None:
        super().__init__()
        self.config = config

    def setup(self, stage: str) -> None:
        """Finds the shards; raises FileNotFoundError where there are none, and as `load_tokenizer`
        does."""
        shards: list[Any] = [
            str(path) for path in sorted(Path(self.config.folder).glob("*.parquet"))
        ]
        if not shards:
            raise FileNotFoundError(f"no shards: {self.config.folder} holds no *.parquet")
        self.tokenizer = load_tokenizer(self.config.tokenizer)
        # Not load_dataset: it reports each use to Hugging Face, and waits where it cannot.
        self.rows = datasets.IterableDataset.from_parquet(shards)

    def train_dataloader(self) -> DataLoader[DialogueBatch]:
        """Called anew each epoch (the trainer reloads it)."""
        if self.trainer is None:
            return self.loader(epoch=0, rank=0, ranks=1)
        trainer = self.trainer
        return self.loader(trainer.current_epoch, trainer.global_rank, trainer.world_size)

    def loader(self, epoch: int, rank: int, ranks: int) -> DataLoader[DialogueBatch]:
        """What one rank of several reads in an epoch; the last batch of a worker may be smaller."""
        config = self.config
        rows = self.rows.shuffle(seed=config.seed, buffer_size=config.shuffle_rows)
        rows = split_dataset_by_node(rows, rank, ranks)
        rows.set_epoch(epoch)
        dataset = PackedDialogues(rows, self.tokenizer, config, epoch)
        return DataLoader(dataset, config.batch_size, num_workers=config.workers)
