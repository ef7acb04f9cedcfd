"""Puts telephone calls through to humans elsewhere: Twilio, whose calls they are, is told to dial a
target in the place of the stream to here.
"""

import asyncio
import os
import re
from dataclasses import dataclass, field
from urllib.parse import quote
from xml.etree import ElementTree

import httpx2
import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from serve.dialects.twilio import Twilio
from serve.gateway.events import Event, Note, ToolEvent
from serve.gateway.gateway import Gateway, Line
from serve.gateway.identity import Client
from serve.gateway.refusal import Refusal
from serve.gateway.request import body_of
from serve.tools.journal import Entry
from serve.tools.told import HandoffRequested

_log = structlog.get_logger()
_ANSWER_S = 10.0  # in which Twilio does
_NOT_PUT_THROUGH = "The caller could not be put through to a human."
_SEPARATORS = re.compile(r"[().-]")
_NUMBER = re.compile(r"tel:(\+?[0-9][0-9().-]{2,30})")
_SIP = re.compile(r"(sips?:[!-~]{1,250})")


@dataclass(frozen=True)
class TwilioAccount:
    """Whose calls can be put through: the environment variables that have the account's id and its
    token."""

    account_env: str = "TWILIO_ACCOUNT_SID"
    token_env: str = "TWILIO_AUTH_TOKEN"
    api_url: str = "https://api.twilio.com"


@dataclass(frozen=True)
class HandoffConfig:
    """Where telephone calls go when the agent wants a human to go on, as `tel:` or `sip:`; None:
    nowhere, so an operator may take over."""

    target_uri: str | None = None
    twilio: TwilioAccount = field(default_factory=TwilioAccount)

    def __post_init__(self) -> None:
        is_target = self.target_uri is None or _dialled(self.target_uri) is not None
        assert is_target, f"target_uri {self.target_uri} must be tel:NUMBER or sip:ADDRESS"


class _Asked(msgspec.Struct):
    """What a transfer is asked for with."""

    target_uri: str


class Handoffs:
    """Of one gateway, on its event loop. Puts calls through where their agent hands off, and where
    a client wants it."""

    def __init__(self, config: HandoffConfig, gateway: Gateway) -> None:
        """Raises ValueError where calls are to go somewhere and the environment has no account."""
        twilio = config.twilio
        account, token = (os.environ.get(one, "") for one in (twilio.account_env, twilio.token_env))
        self._is_able = bool(account and token)
        if config.target_uri and not self._is_able:
            names = f"{twilio.account_env} and {twilio.token_env}"
            raise ValueError(f"handoff.twilio: the environment must have {names}")
        self._gateway, self._target_uri = gateway, config.target_uri
        self._calls_url = f"{twilio.api_url}/2010-04-01/Accounts/{account}/Calls"
        self._client = httpx2.AsyncClient(auth=(account, token), follow_redirects=False)
        self._moving: set[str] = set()  # sessions
        self._tasks: set[asyncio.Task[None]] = set()
        gateway.observe(self._observed)

    async def refer(self, request: Request, client: Client) -> Response:
        """Transfers a session of the tenant's, as OpenAI's Live and Realtime do. Raises Refusal."""
        if client.preset is not None:
            raise Refusal(403, "not_allowed", "a client secret can't transfer calls")
        try:
            asked = msgspec.json.decode(await body_of(request), type=_Asked)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "invalid_request", str(error), "target_uri") from error
        [name] = request.path_params.values()  # Realtime calls it otherwise than Live
        line = self._gateway.find(name, client.tenant)
        await self._transfer(line, asked.target_uri, "client")
        return Response()

    async def close(self) -> None:
        """Once all have been told what came of it."""
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    def _observed(self, line: Line, event: Event) -> None:
        match event:
            case ToolEvent(_, HandoffRequested(handoff_id)) if _call_sid(line):
                if self._target_uri and not line.session.operator:
                    handing = self._hand_off(line, handoff_id, self._target_uri)
                    task = asyncio.create_task(handing)
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _hand_off(self, line: Line, handoff_id: str, target_uri: str) -> None:
        try:
            await self._transfer(line, target_uri, "system")
        except Refusal as refusal:
            _log.error("handoff_failed", session=line.session.name, why=str(refusal))
            if not line.session.ended:
                line.session.take(Note(_NOT_PUT_THROUGH))
                line.session.handoff_failed(handoff_id, str(refusal))

    async def _transfer(self, line: Line, target_uri: str, actor: str) -> None:
        """Returns when Twilio has taken it. Raises Refusal."""
        session, twiml = line.session.name, _dialled(target_uri)
        if twiml is None:
            message = "target_uri must be tel:NUMBER or sip:ADDRESS"
            raise Refusal(400, "invalid_request", message, "target_uri")
        if not (call_sid := _call_sid(line)):
            message = "this session is no telephone call that Twilio has sent here"
            raise Refusal(409, "not_a_telephone_call", message)
        if not self._is_able:
            raise Refusal(409, "no_telephone_account", "the server has no account at Twilio")
        if session in self._moving:
            raise Refusal(409, "transfer_in_progress", "the call is being transferred already")
        self._moving.add(session)
        try:
            await self._write_down(line, target_uri, actor)
            await self._tell_twilio(call_sid, twiml)
        finally:
            self._moving.discard(session)
        _log.info("call_transferred", session=session, actor=actor)

    async def _write_down(self, line: Line, target_uri: str, actor: str) -> None:
        tenant, session = line.arrival.tenant.name, line.session.name
        details = {"target_uri": target_uri}
        try:
            await self._gateway.tools.audit.append(
                Entry(tenant, session, "", "transfer", actor, details=details)
            )
        except OSError as error:
            raise Refusal(502, "transfer_failed", "the audit log can't be written") from error

    async def _tell_twilio(self, call_sid: str, twiml: str) -> None:
        url = f"{self._calls_url}/{quote(call_sid, safe='')}.json"
        try:
            async with asyncio.timeout(_ANSWER_S):
                reply = await self._client.post(url, data={"Twiml": twiml})
        except (httpx2.HTTPError, TimeoutError) as error:
            why = f"Twilio does not answer: {type(error).__name__}"
            raise Refusal(502, "transfer_failed", why) from error
        if not reply.is_success:
            raise Refusal(502, "transfer_failed", f"Twilio answers {reply.status_code}")


def _call_sid(line: Line) -> str:
    """Of a telephone call; "" where it is none."""
    return line.dialect.call_sid if isinstance(line.dialect, Twilio) else ""


def _dialled(target_uri: str) -> str | None:
    """The TwiML that dials it; None where it is no target."""
    response = ElementTree.Element("Response")
    dial = ElementTree.SubElement(response, "Dial")
    if number := _NUMBER.fullmatch(target_uri):
        dial.text = _SEPARATORS.sub("", number[1])
    elif address := _SIP.fullmatch(target_uri):
        ElementTree.SubElement(dial, "Sip").text = address[1]
    else:
        return None
    return ElementTree.tostring(response, encoding="unicode")
