"""Other people's recordings, read as dialogues. What cannot be read is dropped and named."""

from data.ingest.dropped import Dropped
from data.ingest.moshi import read_moshi

__all__ = ["Dropped", "read_moshi"]
