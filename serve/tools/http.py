"""HTTP endpoints as tools, as a file declares them.

Which host is asked stands in the file alone: arguments go into the path, the query or the body,
always quoted, and no redirect is followed.
"""

import asyncio
import os
import re
import string
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx2
import jsonschema
import msgspec
import structlog

from model.tool_schema import decodable_tools
from serve.tools.source import Declared, Run, ToolError

_log = structlog.get_logger()
_MOST_BYTES = 2**16  # of an answer
_CONNECTIONS = 32
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SAID = {401: "denied", 403: "denied", 404: "not_found", 408: "timeout", 410: "not_found",
         429: "rate_limited", 504: "timeout"}  # fmt: skip


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool. Arguments that `path` names in braces go there; the others are the query of a GET or
    DELETE and else the JSON body. At a status of `retry_on` nothing has happened and it may be
    asked again; after a GET, also where no answer came (the agent hears `timeout`)."""

    name: str
    description: str
    path: Annotated[str, msgspec.Meta(pattern="^/")]
    parameters: dict[str, Any]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    retry_on: frozenset[int] = frozenset({429, 503})


class Service(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="http"
):
    """Endpoints under one `url`. `${NAME}` in a header is that variable of the environment."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/?#@{}]+(/[^\s?#{}]*)?$")]
    tools: Annotated[list[Endpoint], msgspec.Meta(min_length=1)]
    headers: dict[str, str] = {}


def with_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The same with the environment's variables in place of `${NAME}`. Raises ValueError where
    there is none of that name."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ValueError(f"the environment has no variable {found[1]}")
        return os.environ[found[1]]

    return {name: _VARIABLE.sub(value, written) for name, written in given.items()}


class Http:
    """A source."""

    def __init__(self, service: Service) -> None:
        """Raises ValueError on an endpoint that can't be a tool."""
        self._url = service.url.rstrip("/")
        self._endpoints = {endpoint.name: endpoint for endpoint in service.tools}
        decodable_tools([msgspec.structs.asdict(endpoint) for endpoint in service.tools])
        for endpoint in service.tools:
            _check_path(endpoint)
        self._client = httpx2.AsyncClient(
            # Unpacked, a small answer may be a huge one: nobody is asked to pack.
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                **with_environment(service.headers),
            },
            limits=httpx2.Limits(max_connections=_CONNECTIONS),
            follow_redirects=False,
        )

    async def declared(self) -> Sequence[Declared]:
        """All of them."""
        return [Declared(e.name, e.description, e.parameters) for e in self._endpoints.values()]

    async def run(self, tool: str, arguments: Mapping[str, Any], run: Run) -> dict[str, Any]:
        """The answer's JSON, under `result` where it is no object. Raises ToolError."""
        endpoint = self._endpoints[tool]
        request = self._request(endpoint, arguments, run)
        try:
            async with asyncio.timeout(run.timeout_s):
                response = await self._client.send(request, stream=True)
                try:
                    return await _result(endpoint, response)
                finally:
                    await response.aclose()
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            raise ToolError("unavailable", is_retryable=True) from None
        except (httpx2.HTTPError, TimeoutError) as error:
            _log.warning("tool_did_not_answer", tool=tool, error=type(error).__name__)
            raise ToolError("timeout", is_retryable=endpoint.method == "GET") from None

    def _request(
        self, endpoint: Endpoint, arguments: Mapping[str, Any], run: Run
    ) -> httpx2.Request:
        try:
            jsonschema.validate(
                dict(arguments), {"additionalProperties": False, **endpoint.parameters}
            )
        except jsonschema.ValidationError as error:
            raise ToolError(f"invalid arguments: {error.message}") from None
        rest = dict(arguments)
        in_path = {name: _quoted(name, rest.pop(name)) for name in _names(endpoint.path)}
        has_body = endpoint.method not in ("GET", "DELETE")
        return self._client.build_request(
            endpoint.method,
            self._url + endpoint.path.format(**in_path),
            headers={"Idempotency-Key": run.key},
            timeout=run.timeout_s,
            params=None if has_body else rest,
            json=rest if has_body else None,
        )

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.aclose()


def _names(path: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(path) if name is not None]


def _check_path(endpoint: Endpoint) -> None:
    """Every name in the path must be an argument that is always there."""
    if unknown := {*_names(endpoint.path)} - {*endpoint.parameters.get("required", ())}:
        raise ValueError(
            f"tool {endpoint.name!r}: path {endpoint.path} names {sorted(unknown)}: must be among "
            "the required parameters"
        )


def _quoted(name: str, value: Any) -> str:
    """As one part of a path. What would be another path is refused."""
    if str(value) in ("", ".", ".."):
        raise ToolError(f"invalid arguments: {name}: must not be {value!r}")
    return quote(str(value), safe="")


async def _result(endpoint: Endpoint, response: httpx2.Response) -> dict[str, Any]:
    status = response.status_code
    if not 200 <= status < 300:
        _log.warning("tool_refused", tool=endpoint.name, status=status)
        said = _SAID.get(status, "unavailable" if status >= 500 else "refused")
        raise ToolError(said, is_retryable=status in endpoint.retry_on)
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > _MOST_BYTES:
            return _unreadable(endpoint, "too_long")
    if not body:
        return {}
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind == "application/json" or kind.endswith("+json")):
        return _unreadable(endpoint, "no_json")
    try:
        result = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return _unreadable(endpoint, "no_json")
    return result if isinstance(result, dict) else {"result": result}


def _unreadable(endpoint: Endpoint, why: str) -> dict[str, Any]:
    """What was written is written, whatever is said of it."""
    _log.warning("tool_answer_unreadable", tool=endpoint.name, why=why)
    if endpoint.method == "GET":
        raise ToolError("unavailable")
    return {}
