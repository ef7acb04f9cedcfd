"""What every reader does alike: sound files to two channels, lines to dialogues, who is who."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from data.dialogue import AGENT, USER, Dialogue
from data.ingest.dropped import DAMAGE, Dropped, reason_of
from data.voices.utterance import Word, at_24khz

Audio = NDArray[np.float32]
Words = tuple[tuple[Word, ...], tuple[Word, ...]]
Entry = TypeVar("Entry")

# The channel of a speaker, by his name in small letters.
SPEAKERS = {"agent": AGENT, "assistant": AGENT, "speaker_main": AGENT, "user": USER}
# A writer that could not know the length (a pipe) puts in a header about 2**31 or 2**32 bytes.
_UNKNOWN_BYTES = 0x7FFF0000


def read_sound(file: Path | BinaryIO) -> tuple[Audio, int]:
    """A sound file as float32 [T, channels] and its rate in Hz.

    Raises EOFError where a WAV is cut short, and soundfile's errors where it is no sound.
    """
    with soundfile.SoundFile(file) as sound:
        _check_whole(sound)
        audio = np.asarray(sound.read(dtype="float32", always_2d=True), np.float32)
        return audio, sound.samplerate


def check_sound(path: Path) -> None:
    """Raises as `read_sound` does, from the file's header alone."""
    with soundfile.SoundFile(path) as sound:
        _check_whole(sound)


def _check_whole(sound: soundfile.SoundFile) -> None:
    # libsndfile reads what is left of a WAV without a word; only its log tells.
    told = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if told and int(told[2]) < int(told[1]) < _UNKNOWN_BYTES:
        raise EOFError(f"it is cut short: it holds {told[2]} of {told[1]} bytes of sound")


def two_channels(audio: Audio, rate_hz: int) -> Audio:
    """Stereo float32 [T, 2] at any rate -> [2, T] at 24 kHz; ValueError if it isn't stereo."""
    if audio.shape[1] != 2:
        raise ValueError(f"it has {audio.shape[1]} channels, must have 2 (agent, user)")
    return np.stack([at_24khz(np.ascontiguousarray(channel), rate_hz) for channel in audio.T])


def make_dialogue(
    name: str, audio: Audio, sides: tuple[Iterable[Word], Iterable[Word]], source: str, licence: str
) -> Dialogue:
    """A dialogue of float32 [2, T] at 24 kHz and each side's words, which are put in order.

    Raises ValueError where nobody says a word, and as `Dialogue` does.
    """
    agent, user = (tuple(sorted(words, key=lambda word: word.start_s)) for words in sides)
    if not agent and not user:
        raise ValueError("its transcript is empty: must hold a word")
    return Dialogue(name, audio, (agent, user), source, licence)


def read_lines(
    manifest: Path,
    parse: Callable[[str], tuple[str, Entry]],
    read: Callable[[str, Entry], Dialogue],
) -> Iterator[Dialogue | Dropped]:
    """Each line of a manifest (may be gzipped) in turn, or why it was dropped.

    `parse` gives a line's name and entry, `read` the dialogue. Raises FileNotFoundError where there
    is no manifest.
    """
    number = 0
    try:
        opened = gzip.open if manifest.suffix == ".gz" else open
        with opened(manifest, "rt", encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                name = f"{manifest.name}:{number}"
                try:
                    name, entry = parse(line)
                    yield read(name, entry)
                except DAMAGE as error:
                    yield Dropped(name, reason_of(error))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        name = f"{manifest.name}:{number + 1}"
        yield Dropped(name, f"cannot be read: {error}, and so is what follows")
