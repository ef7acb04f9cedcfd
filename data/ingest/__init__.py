"""Other people's recordings, read as dialogues. What cannot be read is dropped and named."""

from data.ingest.dropped import Dropped
from data.ingest.readers import read

__all__ = ["Dropped", "read"]
