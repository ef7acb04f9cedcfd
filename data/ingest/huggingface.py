"""A Hugging Face dataset with a stereo `audio` column, the agent left and the user right.

Words at their times are a column of lists of `{"text", "start", "end", "speaker"}` (in seconds;
the speaker is agent, assistant or user). Where there is none, or a row's is null, what each side
says is a column of text, which is then aligned.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
from datasets.utils.file_utils import xopen

from data.dialogue import Dialogue
from data.ingest.align import align
from data.ingest.dropped import DAMAGE, Dropped, reason_of
from data.ingest.recording import SPEAKERS, Audio, Words, make_dialogue, read_sound, two_channels
from data.voices.utterance import Word


@dataclass(frozen=True)
class Columns:
    """What a dataset's columns are called. Of `words` and the two texts, one is enough."""

    audio: str = "audio"
    words: str = "words"
    agent_text: str = "agent_text"
    user_text: str = "user_text"

    def check(self, names: list[str]) -> None:
        """Raises ValueError where a dataset's columns aren't enough."""
        has_words = self.words in names or {self.agent_text, self.user_text} <= {*names}
        if self.audio not in names or not has_words:
            raise ValueError(
                f"the columns are {names}: must hold {self.audio!r}, and {self.words!r} or both "
                f"{self.agent_text!r} and {self.user_text!r}"
            )


def read_huggingface(
    dataset: str, licence: str, split: str = "train", columns: Columns | None = None
) -> Iterator[Dialogue | Dropped]:
    """Each row of a dataset, by its name on the hub or its folder, or why it was dropped.

    Nothing is downloaded that isn't read. A row is named after its sound file, or else numbered.
    A shard that cannot be read is dropped, the others are read on.
    Raises what `load_dataset` does where there is no such dataset or split, and ValueError where
    columns are missing.
    """
    columns = columns or Columns()
    rows = _load(dataset, split)
    columns.check(rows.column_names or [])
    # Decoding is left to soundfile: torchcodec must fit torch's build, as torchaudio must.
    rows = rows.cast_column(columns.audio, datasets.Audio(decode=False))
    number = 0
    for shard in range(rows.num_shards):
        try:
            for row in rows.shard(rows.num_shards, shard):
                number += 1
                name = (row[columns.audio] or {}).get("path") or f"row {number}"
                try:
                    yield _read(name, row, columns, f"huggingface:{dataset}", licence)
                except DAMAGE as error:
                    yield Dropped(name, reason_of(error))
        except DAMAGE as error:
            reason = reason_of(OSError(f"{error} (what follows in it is lost)"))
            yield Dropped(f"{split}: shard {shard + 1} of {rows.num_shards}", reason)


def _load(dataset: str, split: str) -> datasets.IterableDataset:
    try:
        return datasets.load_dataset(dataset, split=split, streaming=True)
    except ValueError:
        # Perhaps the first Parquet file is damaged, which is asked for the columns: ask another.
        asked = datasets.load_dataset(dataset, split=split, streaming=True, on_bad_files="skip")
        return datasets.load_dataset(dataset, split=split, streaming=True, features=asked.features)


def _read(
    name: str, row: Mapping[str, Any], columns: Columns, source: str, licence: str
) -> Dialogue:
    sound = row[columns.audio]
    if not sound:
        raise ValueError(f"{columns.audio} is null: must be a sound")
    if sound["bytes"] is None:
        with xopen(sound["path"], "rb") as file:
            content = file.read()
    else:
        content = sound["bytes"]
    channels = two_channels(*read_sound(io.BytesIO(content)))
    words = _words(row, columns, channels)
    return make_dialogue(name, channels, words, source, licence)


def _words(row: Mapping[str, Any], columns: Columns, channels: Audio) -> Words | tuple[list, list]:
    """Both sides' words, as the row has them or else aligned on its channels [2, T]."""
    told = row.get(columns.words)
    if told is None:
        texts = (row.get(columns.agent_text), row.get(columns.user_text))
        agent, user = (
            align(text or "", channel) for text, channel in zip(texts, channels, strict=True)
        )
        return agent, user
    sides: tuple[list[Word], list[Word]] = ([], [])
    for number, word in enumerate(told):
        try:
            side = SPEAKERS[str(word["speaker"]).lower()]
            sides[side].append(Word(str(word["text"]), float(word["start"]), float(word["end"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{columns.words}[{number}] is {word!r}: must have text, start and end in seconds, "
                "and speaker (agent, assistant or user)"
            ) from error
    return sides
