"""Readers by the name of their format."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from data.dialogue import Dialogue
from data.ingest.dropped import Dropped

FORMATS = ("moshi", "directory", "lhotse", "huggingface")


def read(
    format: str,
    manifest: str,
    licence: str,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
) -> Iterator[Dialogue | Dropped]:
    """Each recording of a manifest, a folder or a dataset in turn, or why it was dropped.

    `split` and `columns` (fields of `Columns`) are a Hugging Face dataset's. Raises ValueError
    where something else is given than the format wants, and ModuleNotFoundError without the
    `ingest` extra (moshi does without).
    """
    path = Path(manifest)
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}: must be one of {FORMATS}")
    if format in ("moshi", "lhotse") and not path.is_file():
        raise ValueError(f"manifest is {manifest!r}: must be a file, one recording a line")
    if format == "directory" and not path.is_dir():
        raise ValueError(f"manifest is {manifest!r}: must be a folder of stereo sound files")
    try:
        return _read(format, manifest, licence, split, columns or {})
    except ModuleNotFoundError as error:
        needs = f"format {format!r} needs {error.name}: pip install -e '.[ingest]'"
        raise ModuleNotFoundError(needs, name=error.name) from error


def _read(
    format: str, manifest: str, licence: str, split: str, columns: Mapping[str, str]
) -> Iterator[Dialogue | Dropped]:
    # Imported here, since each brings libraries that the others do without.
    if format == "moshi":
        from data.ingest.moshi import read_moshi

        return read_moshi(Path(manifest), licence)
    if format == "directory":
        from data.ingest.directory import read_directory

        return read_directory(Path(manifest), licence)
    if format == "lhotse":
        from data.ingest.cuts import read_lhotse

        return read_lhotse(Path(manifest), licence)
    from data.ingest.huggingface import Columns, read_huggingface

    return read_huggingface(manifest, licence, split, Columns(**columns))
