"""One call of a session's, and all that its desk has noted of it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.tools.approvals import Approval
from serve.tools.call import Call, State
from serve.tools.policy import Rule
from serve.tools.source import Declared, Run

Result = Mapping[str, Any]


@dataclass(eq=False)
class Errand:
    """`unwanted` is what the call becomes where nobody wants it any more, None while somebody does.

    `result` is what the agent is told, `brought` what the tool did bring, if it has. The errand
    `is_settled` while no task deals with it; `changed` wakes the one that does.
    """

    call: Call
    rule: Rule
    is_client_run: bool = False
    replaces: "Errand | None" = None
    unwanted: State | None = None
    reason: str = ""
    has_yes: bool = False  # the caller's, in his own voice
    approval: Approval | None = None
    running: asyncio.Task[dict[str, Any]] | None = None
    has_begun: bool = False  # the tool may have done something
    is_overdue: bool = False
    is_undone: bool = False  # or at least it was tried
    answer: asyncio.Future[dict[str, Any]] | None = None  # a client's
    result: Result | None = None
    brought: Result | None = None
    is_settled: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_approved(self) -> bool:
        """Whether a human has said yes to it."""
        return self.approval is not None and self.approval.answer == "approved"

    @property
    def is_running(self) -> bool:
        """Whether its tool is at it."""
        return self.has_begun and self.running is not None and not self.running.done()

    @property
    def may_be_cut_off(self) -> bool:
        """Whether nothing is left half done where it is stopped now."""
        return self.rule.effect == "read" or not self.has_begun

    def take_voice(self) -> None:
        """The caller's yes counts as far as it goes."""
        asked = self.approval
        if self.has_yes and asked and not asked.answer and asked.method == "voice":
            asked.approve(self.call, "caller", "voice")


class Client:
    """Runs one call by waiting for what the session's client says of it. A source."""

    def __init__(self, one: Errand) -> None:
        self._one = one

    async def declared(self) -> Sequence[Declared]:
        """None: the client has said itself what it has."""
        return []

    async def run(self, tool: str, arguments: Result, run: Run) -> dict[str, Any]:
        """Its answer. It has been told of the call already."""
        assert self._one.answer
        return await self._one.answer

    async def close(self) -> None:
        """Nothing is open."""
