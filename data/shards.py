"""Tokenised dialogues on disk: one row a dialogue, in Parquet shards that `datasets` reads."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Array2D, Dataset, Features, Value, disable_progress_bars

from data.dialogue import AGENT, USER, Dialogue
from model.codec import Codec, CodecFrame, encode_file

_ENCODED_TOGETHER = 8  # dialogues at most, of like length
_ENCODED_TOGETHER_S = 1200.0  # and so much of them: recordings may be long
_WORDS = [{"text": Value("string"), "start_s": Value("float64"), "end_s": Value("float64")}]


def features(num_codebooks: int, latent_dim: int = 0) -> Features:
    """The columns of a shard; `latent_dim` is 0 where the user's latents are not stored.

    Times are seconds from the dialogue's start. `agent_unsaid_words` were cut off by the user.
    `floor` numbers `data.dialogue.FLOORS`, one a frame. `arguments` and `known_s` of an action,
    `tools` and `script` are JSON; `revises` is 0 where an action replaces none. `agent_turns` says
    in which style the agent speaks from when on.
    """
    columns = {
        "name": Value("string"),
        "frames": Value("int32"),
        "system": Value("string"),
        "tools": Value("string"),
        "agent_words": _WORDS,
        "agent_unsaid_words": _WORDS,
        "user_words": _WORDS,
        "agent_turns": [
            {"start_s": Value("float64"), "end_s": Value("float64"), "style": Value("string")}
        ],
        "floor": [Value("uint8")],
        "actions": [
            {
                "time_s": Value("float64"),
                "kind": Value("string"),
                "number": Value("int32"),
                "tool": Value("string"),
                "arguments": Value("string"),
                "known_s": Value("string"),
                "revises": Value("int32"),
            }
        ],
        "agent_codes": Array2D((None, num_codebooks), "uint16"),
        "user_codes": Array2D((None, num_codebooks), "uint16"),
        "script": Value("string"),
        "source": Value("string"),
        "licence": Value("string"),
    }
    if latent_dim:
        columns["user_latents"] = Array2D((None, latent_dim), "float16")
    return Features(columns)


def shard_path(folder: Path, shard: int) -> Path:
    """Where a shard is or will be."""
    return folder / f"shard-{shard:05}.parquet"


def rows(dialogues: Sequence[Dialogue], codec: Codec, with_latents: bool) -> Iterator[dict]:
    """Dialogues as rows of a shard, in their order.

    Which ones are encoded together depends on nothing but the dialogues: sums over another batch
    may differ in their last bit, and a code with them.
    """
    by_length = sorted(range(len(dialogues)), key=lambda number: dialogues[number].frames)
    encoded: dict[int, CodecFrame] = {}
    while by_length:
        longest_s = dialogues[by_length[-1]].seconds
        count = min(_ENCODED_TOGETHER, max(1, int(_ENCODED_TOGETHER_S / longest_s)))
        numbers, by_length = by_length[-count:], by_length[:-count]
        frames = _encoded([dialogues[number] for number in numbers], codec)
        encoded |= dict(zip(numbers, frames, strict=True))
    for number, dialogue in enumerate(dialogues):
        yield _row(dialogue, encoded[number], with_latents)


def _encoded(dialogues: Sequence[Dialogue], codec: Codec) -> list[CodecFrame]:
    """Codes [2, frames, K] and latents [2, frames, D] of each."""
    samples = max(dialogue.audio.shape[1] for dialogue in dialogues)
    pcm = np.zeros((len(dialogues), 2, samples), np.float32)
    for place, dialogue in zip(pcm, dialogues, strict=True):
        place[:, : dialogue.audio.shape[1]] = dialogue.audio
    whole = encode_file(codec, torch.from_numpy(pcm).flatten(0, 1))  # [2 * dialogues, frames, ...]
    return [
        CodecFrame(*(part[2 * n : 2 * n + 2, : dialogue.frames] for part in whole))
        for n, dialogue in enumerate(dialogues)
    ]


def _row(dialogue: Dialogue, encoded: CodecFrame, with_latents: bool) -> dict[str, Any]:
    codes = encoded.codes.numpy().astype(np.uint16)
    row = {
        "name": dialogue.name,
        "frames": dialogue.frames,
        "system": dialogue.system,
        "tools": dialogue.tools,
        "agent_words": [word._asdict() for word in dialogue.words[AGENT]],
        "agent_unsaid_words": [word._asdict() for word in dialogue.unsaid],
        "user_words": [word._asdict() for word in dialogue.words[USER]],
        "agent_turns": [
            {"start_s": spell.start_s, "end_s": spell.end_s, "style": spell.style}
            for spell in dialogue.spells
            if spell.side == AGENT
        ],
        "floor": dialogue.floor(),
        "actions": [
            {
                **action._asdict(),
                "arguments": _compact(action.arguments),
                "known_s": _compact(action.known_s),
            }
            for action in dialogue.actions
        ],
        "agent_codes": codes[AGENT],
        "user_codes": codes[USER],
        "script": dialogue.script,
        "source": dialogue.source,
        "licence": dialogue.licence,
    }
    if with_latents:
        row["user_latents"] = encoded.latent[USER].numpy().astype(np.float16)
    return row


def _compact(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))


def write_shard(
    path: Path, dialogues: Sequence[Dialogue], codec: Codec, with_latents: bool
) -> None:
    """Writes one shard; it is there whole or not at all."""
    columns = features(codec.num_codebooks, codec.latent_dim if with_latents else 0)
    table = Dataset.from_list(list(rows(dialogues, codec, with_latents)), columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    disable_progress_bars()  # a shard is one step of a longer one
    table.to_parquet(partial)
    partial.rename(path)
