"""Lhotse's manifests of cuts (JSON lines), as NeMo's duplex speech-to-speech models train on them.

A cut's recording is the user's and its `target_audio` the agent's; a cut of two channels has the
agent on channel 0 and the user on channel 1. A supervision is one side's turn: its speaker says
whose (agent or assistant, user), or else its channel. Its words come from its word alignment; where
it has none, its text is aligned between its start and its end.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from lhotse import MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.audio import AudioLoadingError, DurationMismatchError
from lhotse.serialization import deserialize_item

from data.dialogue import AGENT, USER, Dialogue
from data.ingest.align import align, without_notes
from data.ingest.dropped import Dropped
from data.ingest.recording import SPEAKERS, Audio, check_sound, make_dialogue, read_lines
from data.voices.utterance import SAMPLE_RATE_HZ, Word, at_24khz

_SLACK_S = 0.1  # by which a turn may overhang its cut, or a word its turn: aligners round
_NO_CUT = (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError)
Cut = MonoCut | MultiCut


def read_lhotse(manifest: Path, licence: str) -> Iterator[Dialogue | Dropped]:
    """Each cut of a `.jsonl` or `.jsonl.gz` manifest in turn, or why it was dropped.

    Paths in it count, as Lhotse has it, from the working folder, or else from the manifest's.
    Raises FileNotFoundError where there is no manifest.
    """
    return read_lines(manifest, _cut, partial(_read, manifest, licence))


def _cut(line: str) -> tuple[str, Cut]:
    """A line's id and cut."""
    entry = json.loads(line)
    try:
        cut = deserialize_item(entry)
    except _NO_CUT as error:
        raise ValueError(f"the line is no cut: {error!r}") from error
    if not isinstance(cut, Cut):
        raise ValueError(f"the line is a {type(cut).__name__}: must be a MonoCut or a MultiCut")
    return cut.id, cut


def _read(manifest: Path, licence: str, name: str, cut: Cut) -> Dialogue:
    if cut.recording is None:
        raise ValueError("it has no recording")
    cut.recording = _found(cut.recording, manifest.parent)
    channels = _channels(cut, manifest.parent)  # [2, T]
    sides: tuple[list[Word], list[Word]] = ([], [])
    for supervision in cut.supervisions:
        side = _side(supervision, is_stereo=cut.num_channels == 2)
        sides[side].extend(_words(supervision, cut.start, channels[side]))
    return make_dialogue(name, channels, sides, f"lhotse:{manifest}", licence)


def _channels(cut: Cut, folder: Path) -> Audio:
    """Agent and user [2, T] at 24 kHz, the shorter one filled up with silence."""
    audio = _load(cut)
    if not cut.has_custom("target_audio"):
        if len(audio) != 2:
            raise ValueError(f"it has {len(audio)} channels and no target_audio: must have 2")
        agent, user = (at_24khz(channel, cut.sampling_rate) for channel in audio)
    else:
        cut.target_audio = _found(cut.target_audio, folder)
        target = _load(cut, "target_audio")
        if (len(audio), len(target)) != (1, 1):
            raise ValueError(
                f"it has {len(audio)} channels and {len(target)} in target_audio: must be 1 and 1"
            )
        user = at_24khz(audio[0], cut.sampling_rate)
        agent = at_24khz(target[0], cut.target_audio.sampling_rate)
    channels = np.zeros((2, max(len(agent), len(user))), np.float32)
    channels[AGENT, : len(agent)] = agent
    channels[USER, : len(user)] = user
    return channels


def _load(cut: Cut, field: str | None = None) -> Audio:
    """A cut's own audio, or that of a field, as float32 [channels, T]."""
    try:
        audio = cut.load_custom(field) if field else cut.load_audio()
        return np.asarray(audio, np.float32)
    except (AssertionError, AudioLoadingError, DurationMismatchError) as error:
        raise OSError(str(error)) from error


def _found(recording: object, folder: Path) -> Recording:
    """A recording whose files were found and are whole."""
    if not isinstance(recording, Recording):
        raise ValueError(f"{recording!r} is no recording")
    if kinds := {source.type for source in recording.sources} - {"file"}:
        # "command" would run whatever somebody else's manifest says.
        raise ValueError(f"its audio is of type {sorted(kinds)}: must be files")
    if not all(Path(str(source.source)).exists() for source in recording.sources):
        recording = recording.with_path_prefix(folder)
    for source in recording.sources:
        check_sound(Path(str(source.source)))
    return recording


def _side(supervision: SupervisionSegment, is_stereo: bool) -> int:
    """The channel of the side that speaks: as its speaker says, or else its channel."""
    side = SPEAKERS.get(str(supervision.speaker).lower())
    if side is None and is_stereo and supervision.channel in (AGENT, USER):
        return int(supervision.channel)
    if side is None:
        raise ValueError(
            f"supervision {supervision.id}: speaker {supervision.speaker!r} must be agent, "
            "assistant or user"
        )
    # The other way about cannot be told: channel 0 is also what stands where none was given.
    if is_stereo and side == AGENT and supervision.channel == USER:
        raise ValueError(f"supervision {supervision.id}: the agent is on channel 1, must be on 0")
    return side


def _words(supervision: SupervisionSegment, cut_start_s: float, audio: Audio) -> list[Word]:
    """One turn's words, in seconds of its cut, whose channel is audio [T] at 24 kHz."""
    begin_s, end_s = supervision.start, supervision.end
    if begin_s < -_SLACK_S or end_s > len(audio) / SAMPLE_RATE_HZ + _SLACK_S:
        raise ValueError(
            f"supervision {supervision.id} lasts from {begin_s} to {end_s} s: "
            "must lie within its cut"
        )
    items = [
        item
        for item in (supervision.alignment or {}).get("word", ())
        if without_notes(item.symbol)  # silence is "", <eps> or [SIL]
    ]
    if not items:
        return list(align(supervision.text or "", audio, max(0.0, begin_s), end_s))
    # Lhotse leaves alignments in the recording's time when it cuts out a part.
    for offset_s in (0.0, cut_start_s):
        words = [
            Word(item.symbol, item.start - offset_s, item.end - offset_s)
            for item in sorted(items, key=lambda item: item.start)
        ]
        if begin_s - _SLACK_S <= words[0].start_s and words[-1].end_s <= end_s + _SLACK_S:
            return words
    raise ValueError(
        f"supervision {supervision.id} lasts from {begin_s} to {end_s} s, its words from "
        f"{items[0].start} to {items[-1].end} s: must lie within it"
    )
