"""Where clients come in over WebRTC: an SDP offer is answered, and the call begins.

Over HTTP there are the offer and the answer alone; the call itself is serve/gateway/webrtc.py's.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.dialects.live import Live
from serve.dialects.live_events import SessionStart, decoded
from serve.dialects.realtime import Realtime
from serve.dialects.realtime_events import ClientError
from serve.dialects.writing import Refusal as DialectRefusal
from serve.gateway.events import Say
from serve.gateway.gateway import Gateway, Line
from serve.gateway.identity import Client
from serve.gateway.refusal import Refusal
from serve.gateway.request import arrival_of, body_of, has_extensions
from serve.gateway.socket import ClientSocket
from serve.gateway.webrtc import Peer, SoundApart

_CALLS = "/v1/realtime/calls"
_MOST_FIELD = 2**17  # bytes of a form's


class _Transport(msgspec.Struct):
    type: Literal["webrtc"]
    sdp: str


class _LiveRequest(msgspec.Struct):
    """What a session of Live's is asked for with."""

    session: dict[str, Any]
    transport: _Transport


class RtcDoors:
    """Handlers for clients who are known. Each raises Refusal."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._talking: set[asyncio.Task[None]] = set()

    async def realtime(self, request: Request, client: Client) -> Response:
        """OpenAI Realtime. The body is the offer, or a form of it and of the session."""
        sdp, asked = await _offered(request)
        session = {**(client.preset or {}), **asked}
        named = session.get("model") or request.query_params.get("model")
        model = self._gateway.config.model(str(named) if named else None)
        try:
            dialect = Realtime(model, session, has_extensions(request), sends_audio=False)
        except ClientError as error:
            raise Refusal(400, error.code, error.message, error.param or "") from error
        line, answer = await self._answered(request, client, dialect, sdp, None)
        headers = {"Location": f"{_CALLS}/{line.session.name}"}
        return Response(answer, 201, headers, "application/sdp")

    async def live(self, request: Request, client: Client) -> Response:
        """OpenAI Live. The body has the offer and the session."""
        try:
            asked = msgspec.json.decode(await body_of(request), type=_LiveRequest)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "invalid_request", str(error)) from error
        start = msgspec.json.encode({"type": "session.start", "session": asked.session}).decode()
        message = decoded(start)
        if isinstance(message, DialectRefusal):
            raise Refusal(400, message.code, message.message, message.param or "")
        assert isinstance(message, SessionStart)
        model = self._gateway.config.model(message.session.model)
        lasts_s, now_s = int(self._gateway.session_config.longest_s), int(time.time())
        dialect = Live(model, has_extensions(request), False, now_s, lasts_s)
        line, sdp = await self._answered(request, client, dialect, asked.transport.sdp, start)
        transport = {"type": "webrtc", "sdp": sdp}
        return JSONResponse({"session": {"id": line.session.name}, "transport": transport}, 201)

    async def hang_up(self, request: Request, client: Client) -> Response:
        """Ends a call of the tenant's."""
        self._gateway.find(request.path_params["call_id"], client.tenant).session.end("hang_up")
        return Response()

    async def _answered(
        self,
        request: Request,
        client: Client,
        dialect: Realtime | Live,
        sdp: str,
        first: str | None,
    ) -> tuple[Line, str]:
        """A call that has begun, and the answer's SDP. `first` is the client's first message."""
        peer, name = Peer(first), "realtime" if isinstance(dialect, Realtime) else "live"
        async with AsyncExitStack() as ending:
            ending.push_async_callback(peer.end)
            await peer.take(sdp)
            apart = SoundApart(dialect, peer.voice)
            line = await self._gateway.open(arrival_of(request, client, name), apart)
            ending.callback(self._gateway.left, line)
            ending.callback(line.session.subscribe(peer.told))
            answer = await peer.answer()
            talking = asyncio.create_task(self._talk(peer, line, ending.pop_all()))
        self._talking.add(talking)
        talking.add_done_callback(self._talking.discard)
        return line, answer

    async def _talk(self, peer: Peer, line: Line, ending: AsyncExitStack) -> None:
        """Until either is gone."""
        session, spend, metrics = line.session, line.admission.spend, self._gateway.metrics
        async with ending, asyncio.TaskGroup() as group:
            listening = group.create_task(peer.listen(lambda pcm: session.take(Say(pcm))))
            if await peer.open():
                await ClientSocket(peer, line.dialect, session, spend, metrics).run()
            listening.cancel()


async def _offered(request: Request) -> tuple[str, dict[str, Any]]:
    """The offer's SDP, and what the session is to be."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return (await body_of(request)).decode(errors="replace"), {}
    try:
        async with request.form(max_files=2, max_fields=8, max_part_size=_MOST_FIELD) as form:
            sdp, session = await _text(form.get("sdp")), await _text(form.get("session"))
        return sdp, msgspec.json.decode(session or "{}", type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "invalid_request", str(error), "session") from error
    except HTTPException as error:
        raise Refusal(400, "invalid_request", error.detail) from error


async def _text(field: UploadFile | str | None) -> str:
    """Of a field, which clients write as one or as a file."""
    if isinstance(field, UploadFile):
        return (await field.read(_MOST_FIELD)).decode(errors="replace")
    return field or ""
