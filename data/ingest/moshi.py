"""Recordings in the format of moshi-finetune (github.com/kyutai-labs/moshi-finetune).

A manifest holds one JSON object a line, `{"path": "a.wav", "duration": 12.3}`; paths are relative
to it. A stereo file has the agent left and the user right. Beside `a.wav` lies `a.json`:
`{"alignments": [["hello", [0.3, 0.6], "SPEAKER_MAIN"], ...]}`. SPEAKER_MAIN is the agent; words of
any other speaker, which moshi-finetune's own annotation does not have, are the user's.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from data.dialogue import Dialogue
from data.ingest.dropped import Dropped
from data.voices.utterance import SAMPLE_RATE_HZ, Word

_AGENT = "SPEAKER_MAIN"
_DURATION_SLACK_S = 0.1


def read_moshi(manifest: Path, licence: str) -> Iterator[Dialogue | Dropped]:
    """Each recording of a manifest in turn, or why it was dropped.

    Raises FileNotFoundError where there is no manifest.
    """
    with manifest.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            name = f"{manifest.name}:{number}"
            try:
                entry = json.loads(line)
                name = str(entry["path"])
                yield _read(manifest, name, float(entry["duration"]), licence)
            except (KeyError, TypeError, AttributeError) as error:
                yield Dropped(name, f"bad line: {line.strip()[:80]!r} ({error})")
            except (OSError, soundfile.LibsndfileError) as error:
                yield Dropped(name, f"cannot be read: {error}")
            except ValueError as error:  # json's too
                yield Dropped(name, f"does not fit: {error}")


def _read(manifest: Path, name: str, duration_s: float, licence: str) -> Dialogue:
    path = manifest.parent / name
    audio, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    if audio.shape[1] != 2:
        raise ValueError(f"it has {audio.shape[1]} channels, must have 2 (agent, user)")
    seconds = len(audio) / rate_hz
    if not abs(seconds - duration_s) <= _DURATION_SLACK_S:  # NaN too
        raise ValueError(f"it lasts {seconds:.2f} s, but its duration is given as {duration_s} s")
    if rate_hz != SAMPLE_RATE_HZ:
        audio = soxr.resample(audio, rate_hz, SAMPLE_RATE_HZ)
    beside = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    alignments = beside.get("alignments") if isinstance(beside, dict) else None
    if not isinstance(alignments, list):
        raise ValueError(f"{path.stem}.json must be an object with a list of alignments")
    sides: tuple[list[Word], list[Word]] = ([], [])
    for number, alignment in enumerate(alignments):
        is_user, word = _word(number, alignment)
        sides[is_user].append(word)
    agent, user = (tuple(sorted(words, key=lambda word: word.start_s)) for words in sides)
    channels = np.ascontiguousarray(audio.T.astype(np.float32))  # [2, T]
    return Dialogue(name, channels, (agent, user), f"moshi-finetune:{manifest}", licence)


def _word(number: int, alignment: Any) -> tuple[bool, Word]:
    """(is it the user's, the word)."""
    try:
        text, (start_s, end_s), speaker = alignment
        return speaker != _AGENT, Word(str(text), float(start_s), float(end_s))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"alignment {number} is {alignment!r}: must be [word, [start, end], speaker]"
        ) from error
