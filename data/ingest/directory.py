"""A folder of stereo sound files, the agent left and the user right, each with its transcript.

Beside `call.wav` (or `call.flac`) lies either `call.json`, words at their times in moshi-finetune's
form, or `call.agent.txt` and `call.user.txt`, what each side says, which is then aligned. Somebody
who says nothing at all has no text to align: that takes a `call.json`.
"""

from collections.abc import Iterator
from pathlib import Path

from data.dialogue import Dialogue
from data.ingest.align import align
from data.ingest.dropped import DAMAGE, Dropped, reason_of
from data.ingest.moshi import aligned_words
from data.ingest.recording import Audio, Words, make_dialogue, read_sound, two_channels

_SUFFIXES = (".flac", ".wav")
_SIDES = ("agent", "user")


def read_directory(folder: Path, licence: str) -> Iterator[Dialogue | Dropped]:
    """Each sound file in a folder and those under it by name, or why it was dropped.

    Raises ValueError where the folder holds none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise ValueError(f"folder {str(folder)!r}: must hold stereo wav or flac files")
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            channels = two_channels(*read_sound(path))
            words = _words(path, channels)
            yield make_dialogue(name, channels, words, f"directory:{folder}", licence)
        except DAMAGE as error:
            yield Dropped(name, reason_of(error))


def _words(path: Path, channels: Audio) -> Words | tuple[list, list]:
    """Both sides' words, from what lies beside a sound file of these channels [2, T]."""
    alignments = path.with_suffix(".json")
    if alignments.exists():
        return aligned_words(alignments)
    texts = [path.with_suffix(f".{side}.txt") for side in _SIDES]
    if missing := [text.name for text in texts if not text.exists()]:
        raise FileNotFoundError(
            f"{' and '.join(missing)} must lie beside it, or {alignments.name} with alignments"
        )
    agent, user = (
        align(text.read_text(encoding="utf-8"), channel)
        for text, channel in zip(texts, channels, strict=True)
    )
    return agent, user
