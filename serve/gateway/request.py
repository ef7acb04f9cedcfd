"""What is read of a client's HTTP request, whichever it is."""

from starlette.requests import HTTPConnection, Request

from serve.gateway.gateway import Arrival
from serve.gateway.identity import Client
from serve.gateway.limits import ip_of
from serve.gateway.refusal import Refusal

_EXTENSIONS = "duologue"  # `?extensions=duologue`: events that only we have
_MOST_BODY = 2**18
_TRACEPARENT = 55  # letters (W3C Trace Context)


async def body_of(request: Request) -> bytes:
    """Raises Refusal where it is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BODY:
            raise Refusal(413, "too_large", f"the body has more than {_MOST_BODY} bytes")
    return body


def address_of(connection: HTTPConnection) -> str:
    """Whom it comes from, "" where that is not told."""
    return connection.client.host if connection.client else ""


def is_of_this_machine(connection: HTTPConnection) -> bool:
    """Whether the server was called by a name of this machine. Another site may have its own name
    lead here, and its pages are of the server's origin then."""
    host = connection.url.hostname or ""
    ip = ip_of(host)
    return host == "localhost" or (ip is not None and ip.is_loopback)


def arrival_of(
    connection: HTTPConnection, client: Client, dialect: str, is_resumable: bool = False
) -> Arrival:
    """A client who is known, as he comes in."""
    traceparent = connection.headers.get("traceparent", "")[:_TRACEPARENT]
    return Arrival(client.tenant, address_of(connection), dialect, is_resumable, traceparent)


def has_extensions(connection: HTTPConnection) -> bool:
    """Whether events are wanted that only we have."""
    return _EXTENSIONS in connection.query_params.get("extensions", "").split(",")
