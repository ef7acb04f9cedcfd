"""What the agent says in shards of dialogues, as the speech transformer says it: frame by frame.

Text is laid as an agent's text stream has it, `lead` frames ahead of each word's sound; the frames
that the reader would speak at are kept, one spell of speech behind the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional as F
from torch.utils import data
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.sentences import split_of
from model.frame import FRAME_S
from model.reading import Reader
from model.speech import SpeechTransformer
from model.spelling import PHONES, letters_of
from model.tokens import PAD, DialogueTokenizer

_CUT_FRAMES = 12  # behind where a turn is cut off, in which its text still has words to say
_READ_TOGETHER = 128  # rows
_USUAL_S = 0.08  # of a phone
_PAUSES = ".,?!;:"
_PULL = 20.0  # as much as so many words with the phone
_COLUMNS = ["name", "frames", "agent_words", "agent_unsaid_words", "agent_turns", "agent_codes"]

Row = Mapping[str, Any]  # of a shard: data.shards.features


class SpokenFrames(NamedTuple):
    """Spoken frames: `features` int16 [n, columns] as the reader tells them, `codes` and `previous`
    int16 [n, K] of the frame and of the one before it, `row` int32 [n]: whose frames they are.

    Of a batch: tensors int64 [B, T, ...].
    """

    features: Any
    codes: Any
    previous: Any
    row: Any


def lay_text(row: Row, tokenizer: DialogueTokenizer, lead: int) -> NDArray[np.int64]:
    """The agent's text [frames]: each word `lead` frames before its sound, or as soon as the word
    before it is done; a style a frame before its turn's first word."""
    text = np.full(row["frames"], tokenizer.id_of(PAD))
    turns = sorted(row["agent_turns"], key=lambda turn: turn["start_s"])
    starts = np.array([turn["start_s"] for turn in turns])
    free, spoken_in = 0, -1
    for word in sorted(row["agent_words"], key=lambda word: word["start_s"]):
        first = max(int(word["start_s"] / FRAME_S) - lead, free)
        turn = int(np.searchsorted(starts, word["start_s"], side="right")) - 1
        if turn > spoken_in:
            spoken_in = turn
            if turns[turn]["style"] != "neutral" and first:
                text[first - 1] = tokenizer.id_of(f"<{turns[turn]['style']}>")
        tokens = tokenizer.encode(f" {word['text']}")
        room = text[first : first + len(tokens)]
        room[:] = tokens[: len(room)]
        free = first + len(tokens)
    return text


def _fits(row: Row) -> NDArray[np.bool_]:
    """Whether the text of each frame is what is said [frames]: not where a turn is cut off."""
    fits = np.ones(row["frames"], bool)
    unsaid = np.array([word["start_s"] for word in row["agent_unsaid_words"]])
    for turn in row["agent_turns"]:
        later = unsaid - turn["end_s"]
        if np.any((later > -FRAME_S) & (later < 1.0)):
            within = [w["start_s"] for w in row["agent_words"] if w["start_s"] <= turn["end_s"]]
            last = int(max(within, default=turn["end_s"]) / FRAME_S)
            fits[max(0, last - 1) : int(turn["end_s"] / FRAME_S) + _CUT_FRAMES] = False
    return fits


def phone_seconds(rows: Iterable[Row], reader: Reader) -> Tensor:
    """How long each phone lasts, float32 [phones + 1], as the lengths of words tell it.

    Least squares over the words behind which no pause is written, drawn towards 80 ms where a phone
    is rare.
    """
    words = [
        word for row in rows for word in row["agent_words"] if word["text"][-1] not in ".,?!;:"
    ]
    letters = torch.zeros(len(words), reader.config.spelling.letters, dtype=torch.int64)
    for place, word in zip(letters, words, strict=True):
        spelled = letters_of(word["text"])[: len(place)]
        place[: len(spelled)] = torch.tensor(spelled)
    phones = reader.spelling(letters)  # [words, phones]
    counts = F.one_hot(phones, len(PHONES) + 1).sum(1)[:, 1:].numpy().astype(np.float64)
    lengths_s = np.array([word["end_s"] - word["start_s"] for word in words])
    usual = np.full(len(PHONES), _USUAL_S)
    pull = np.sqrt(_PULL) * np.eye(len(PHONES))
    found, _ = nnls(np.concatenate([counts, pull]), np.concatenate([lengths_s, pull @ usual]))
    return torch.tensor([0.0, *found], dtype=torch.float32)


def read_rows(
    rows: Sequence[Row], tokenizer: DialogueTokenizer, reader: Reader, silence: NDArray[np.int16]
) -> Iterator[SpokenFrames]:
    """The spoken frames of each row; `silence` [K] comes before the first frame of a spell."""
    length = max(row["frames"] for row in rows)
    texts = np.full((len(rows), length), tokenizer.id_of(PAD))
    for text, row in zip(texts, rows, strict=True):
        text[: row["frames"]] = lay_text(row, tokenizer, reader.config.lead)
    reading = reader(torch.from_numpy(texts))
    for number, row in enumerate(rows):
        kept = reading.is_spoken[number, : row["frames"]].numpy() & _fits(row)
        codes = np.asarray(row["agent_codes"]).astype(np.int16)
        previous = np.concatenate([silence[None], codes[:-1]])
        is_first = kept & ~np.concatenate([[False], kept[:-1]])
        previous[is_first] = silence
        features = reading.features[number, : row["frames"]].numpy().astype(np.int16)
        count = int(kept.sum())
        yield SpokenFrames(features[kept], codes[kept], previous[kept], np.full(count, 0, np.int32))


def joined(parts: Iterable[SpokenFrames]) -> SpokenFrames:
    """Rows one behind the other, numbered from 1."""
    numbered = [
        part._replace(row=np.full(len(part.row), number, np.int32))
        for number, part in enumerate(parts, 1)
    ]
    return SpokenFrames(*(np.concatenate(column) for column in zip(*numbered, strict=True)))


@dataclass(frozen=True)
class SpeechDataConfig:
    """`folders` of shards; `batch_size` sequences of `sequence_frames` spoken frames a batch.

    One row in a hundred or so, by its name's hash, is held out.
    """

    folders: tuple[str, ...]
    sequence_frames: int
    batch_size: int
    steps_per_epoch: int
    heldout_share: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.sequence_frames, self.batch_size, self.steps_per_epoch) < 1:
            raise ValueError("sequence_frames, batch_size, steps_per_epoch must be at least 1")


class SpeechSequences(data.Dataset[SpokenFrames]):
    """Stretches of spoken frames; item i of an epoch is always the same."""

    def __init__(self, frames: SpokenFrames, config: SpeechDataConfig, epoch: int | None) -> None:
        self.frames, self.config, self.epoch = frames, config, epoch
        self.bounds = np.flatnonzero(np.diff(frames.row, prepend=0))  # where each row begins

    def __len__(self) -> int:
        if self.epoch is None:  # held-out rows, all of them once
            return len(self.frames.row) // self.config.sequence_frames
        return self.config.batch_size * self.config.steps_per_epoch

    def __getitem__(self, index: int) -> SpokenFrames:
        length = self.config.sequence_frames
        if self.epoch is None:
            place = np.arange(index * length, (index + 1) * length)
        else:
            rng = np.random.default_rng((self.config.seed, self.epoch, index))
            first = rng.integers(len(self.frames.row))
            place = np.arange(first, first + length) % len(self.frames.row)
        return SpokenFrames(
            *(torch.from_numpy(part[place].astype(np.int64)) for part in self.frames)
        )


class SpeechData(lightning.LightningDataModule):
    """Reads every shard at the start and keeps what is spoken in memory.

    Whose module trains tells how text is read: `setup` wants its `reader` and `silence`.
    """

    def __init__(self, config: SpeechDataConfig) -> None:
        super().__init__()
        self.config = config
        self.training: SpokenFrames | None = None
        self.heldout: SpokenFrames | None = None

    def setup(self, stage: str) -> None:
        """Raises FileNotFoundError where a folder holds no shard."""
        if self.training is not None:
            return
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        speech: SpeechTransformer = module.speech
        disable_progress_bars()  # of each shard
        silence = speech.silence.numpy().astype(np.int16)
        rows = sorted(self._rows(), key=lambda row: row["frames"])
        speech.reader.phone_s.copy_(phone_seconds(rows, speech.reader))
        groups: dict[str, list[SpokenFrames]] = {"train": [], "test": []}
        for first in tqdm(range(0, len(rows), _READ_TOGETHER), desc="speech"):
            some = rows[first : first + _READ_TOGETHER]
            found = read_rows(some, module.tokenizer, speech.reader, silence)
            for row, frames in zip(some, found, strict=True):
                groups[split_of(row["name"], self.config.heldout_share)].append(frames)
        self.training, self.heldout = joined(groups["train"]), joined(groups["test"])

    def _rows(self) -> Iterator[Row]:
        for folder in self.config.folders:
            shards = sorted(Path(folder).glob("*.parquet"))
            if not shards:
                raise FileNotFoundError(f"no shards: {folder} holds no *.parquet")
            for shard in shards:
                rows = Dataset.from_parquet(str(shard), columns=_COLUMNS, keep_in_memory=True)
                assert isinstance(rows, Dataset)
                yield from (row for row in rows.to_list() if row["agent_words"])

    def train_dataloader(self) -> DataLoader[SpokenFrames]:
        """Called anew each epoch (the trainer reloads it)."""
        assert self.training is not None
        epoch = self.trainer.current_epoch if self.trainer else 0
        return self._loader(SpeechSequences(self.training, self.config, epoch))

    def val_dataloader(self) -> DataLoader[SpokenFrames]:
        """The held-out rows."""
        assert self.heldout is not None
        return self._loader(SpeechSequences(self.heldout, self.config, None))

    def _loader(self, sequences: SpeechSequences) -> DataLoader[SpokenFrames]:
        return DataLoader(sequences, self.config.batch_size)
