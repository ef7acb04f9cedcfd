"""What is written down of calls before anything comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

NOT_WRITTEN = (OSError, ValueError, TypeError)  # no room, or what no journal can hold


@dataclass(frozen=True)
class Entry:
    """One thing that happened: a call's change of state, an approval, a mode, a hand-off, a kill.

    `actor` is who brought it about (`agent`, `caller`, `client`, `operator:NAME`, `policy`,
    `system`); `details` may be anything that JSON can hold, without what policy redacts.
    """

    tenant: str
    session: str
    call_id: str
    kind: str
    actor: str
    before: str = ""
    after: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class Journal(Protocol):
    """The audit log, or a stand-in."""

    async def append(self, entry: Entry) -> int:
        """The entry's place in the log, once it is on disk: no effect may come before that. Raises
        OSError where it can't be written, and then nothing may run."""
        ...
