"""Recordings in the format of moshi-finetune (github.com/kyutai-labs/moshi-finetune).

A manifest holds one JSON object a line, `{"path": "a.wav", "duration": 12.3}`; paths are relative
to it. A stereo file has the agent left and the user right. Beside `a.wav` lies `a.json`:
`{"alignments": [["hello", [0.3, 0.6], "SPEAKER_MAIN"], ...]}`. SPEAKER_MAIN is the agent; words of
any other speaker, which moshi-finetune's own annotation does not have, are the user's.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data.dialogue import Dialogue
from data.ingest.dropped import Dropped
from data.ingest.recording import make_dialogue, read_lines, read_sound, two_channels
from data.voices.utterance import Word

_AGENT = "SPEAKER_MAIN"
_DURATION_SLACK_S = 0.1


def read_moshi(manifest: Path, licence: str) -> Iterator[Dialogue | Dropped]:
    """Each recording of a manifest in turn, or why it was dropped.

    Raises FileNotFoundError where there is no manifest.
    """
    return read_lines(manifest, _entry, partial(_read, manifest, licence))


def aligned_words(path: Path) -> tuple[list[Word], list[Word]]:
    """The agent's and the user's words of a JSON file of alignments.

    Raises ValueError where it isn't one, and OSError where it cannot be read.
    """
    beside = json.loads(path.read_text(encoding="utf-8"))
    alignments = beside.get("alignments") if isinstance(beside, dict) else None
    if not isinstance(alignments, list):
        raise ValueError(f"{path.name} must be an object with a list of alignments")
    sides: tuple[list[Word], list[Word]] = ([], [])
    for number, alignment in enumerate(alignments):
        is_user, word = _word(number, alignment)
        sides[is_user].append(word)
    return sides


def _entry(line: str) -> tuple[str, float]:
    """A line's path and its duration in seconds."""
    entry = json.loads(line)
    try:
        return str(entry["path"]), float(entry["duration"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'the line is {line.strip()[:80]!r}: must be {{"path": ..., "duration": SECONDS}}'
        ) from error


def _read(manifest: Path, licence: str, name: str, duration_s: float) -> Dialogue:
    path = manifest.parent / name
    audio, rate_hz = read_sound(path)
    channels = two_channels(audio, rate_hz)
    seconds = len(audio) / rate_hz
    if not abs(seconds - duration_s) <= _DURATION_SLACK_S:  # NaN too
        raise ValueError(f"it lasts {seconds:.2f} s, but its duration is given as {duration_s} s")
    words = aligned_words(path.with_suffix(".json"))
    return make_dialogue(name, channels, words, f"moshi-finetune:{manifest}", licence)


def _word(number: int, alignment: Any) -> tuple[bool, Word]:
    """(is it the user's, the word)."""
    try:
        text, (start_s, end_s), speaker = alignment
        return speaker != _AGENT, Word(str(text), float(start_s), float(end_s))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"alignment {number} is {alignment!r}: must be [word, [start, end], speaker]"
        ) from error
