"""Why a client is not let in, as HTTP says it."""

from __future__ import annotations

from starlette.responses import JSONResponse

from serve.gateway.limits import OverLimit


class Refusal(Exception):
    """`status` is HTTP's; `param` the field that was wrong; `retry_after_s` is 0 where trying again
    helps nothing."""

    def __init__(
        self, status: int, code: str, message: str, param: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, over: OverLimit) -> Refusal:
        """Where somebody has come to a limit."""
        return cls(429, over.code, str(over), retry_after_s=over.retry_after_s)

    def response(self) -> JSONResponse:
        """The error as OpenAI's clients read it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"type": kind, "code": self.code, "message": str(self), "param": self.param or None}
        headers = {}
        if self.retry_after_s:
            error["retry_after"] = self.retry_after_s
            headers["Retry-After"] = str(max(1, round(self.retry_after_s)))
        return JSONResponse({"error": error}, self.status, headers)
