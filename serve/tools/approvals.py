"""A human's word for one call, as it stood when he was asked."""

from dataclasses import dataclass
from typing import Literal, get_args

from serve.tools.call import Call
from serve.tools.policy import Method

_ORDER = get_args(Method)  # from the weakest word to the strongest


@dataclass
class Approval:
    """What was asked for: a yes to these arguments of this revision, by `method` or a stronger one,
    until `expires_at` (Unix time). `approver` is who has answered."""

    approval_id: str
    call_id: str
    revision: int
    arguments_hash: str
    method: Method
    expires_at: float
    answer: Literal["", "approved", "refused"] = ""
    approver: str = ""

    def approve(self, call: Call, approver: str, method: Method) -> None:
        """Raises PermissionError where that word is not enough, and ValueError where the call is
        not what was asked about, or the answer is there already."""
        if (call.call_id, call.revision, call.arguments_hash) != (
            self.call_id,
            self.revision,
            self.arguments_hash,
        ):
            raise ValueError("the call is not the one that was asked about")
        if _ORDER.index(method) < _ORDER.index(self.method):
            raise PermissionError(f"{method} is not enough: {self.method} is asked for")
        self._take("approved", approver)

    def refuse(self, approver: str) -> None:
        """Whoever says no, it is one. Raises ValueError where the answer is there already."""
        self._take("refused", approver)

    def _take(self, answer: Literal["approved", "refused"], approver: str) -> None:
        if self.answer:
            raise ValueError(f"it was {self.answer} by {self.approver} already")
        self.answer, self.approver = answer, approver
