"""A connection that is attached to a session of OpenAI's Live protocol.

It is told what the session's own client is (`serve/dialects/live.py`) and may do the same, but for
the caller's sound. It is not told of what was before it came.

Our agent makes its own calls, as Live's "delegate" does there. So every call is a delegation of its
own, with one response of one call, complete at once (where the server runs it, when that is over:
`serve/dialects/live_server_calls.py`); what comes back goes to the agent when it comes, and
`response.create` is answered by a response with nothing in it. Where a session delegates to its
client instead, the agent has one tool, `DELEGATE`: the first commentary on the delegation is what
that call has brought.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from model.frame import FRAME_MS
from serve.dialects.dialect import CLOSE_CODES, Disconnect, Send
from serve.dialects.live_config import DataChannel, ResponsesConfig
from serve.dialects.live_delegation import (
    DELEGATION,
    Delegations,
    delegates_to_client,
    instruction_of,
)
from serve.dialects.live_events import (
    Append,
    ClientMessage,
    FunctionCallOutput,
    InputAudioAppend,
    InputAudioMute,
    InputAudioUnmute,
    MessageItem,
    ResponseCreate,
    ResponseItemCreate,
    SessionClose,
    SessionStart,
    SessionUpdate,
    decoded,
)
from serve.dialects.live_objects import (
    DelegateResponse,
    delegation_created,
    error_object,
    function_call_events,
    refusal_of,
    session_config,
)
from serve.dialects.live_server_calls import LiveServerCalls
from serve.dialects.reading import ConfirmResponse, note_of
from serve.dialects.server_tools import ApprovalResponse, has_chosen
from serve.dialects.writing import Refusal, Writer, sent
from serve.gateway.audio import AudioFormat
from serve.gateway.events import (
    Answer,
    CallCancelled,
    CallMade,
    Command,
    Configure,
    Configured,
    Ended,
    Event,
    HangUp,
    Heard,
    Mute,
    Problem,
    ServerTools,
    ServerToolsListed,
    Settings,
    Started,
    ToolEvent,
)

USAGE_FRAMES = 200  # between two reports: 16 s
_PENDING = 32  # updates of settings that are not yet answered
_REASONS = {"hang_up": "close_requested", "too_long": "expired"}  # else connection_lost

ServerMessage = dict[str, Any]
Out = Command | Disconnect | ServerMessage


class LiveSideband:
    """One attached connection. `model` is what the session's model is called, `started_at_s` (Unix
    time) when the session began and `lasts_s` how long it may last; with `extensions` the client is
    told what Live has no words for."""

    opening = Configure()

    def __init__(self, model: str, extensions: bool, started_at_s: int = 0, lasts_s: int = 0):
        self._model = model
        self._writer = Writer(extensions)
        self._started_at_s = started_at_s
        self._lasts_s = lasts_s
        self._settings = Settings()
        # What there is while the client lets it be called, of the client's and of the server's.
        self._tools: tuple[Mapping[str, Any], ...] = ()
        self._server_tools: tuple[ServerTools, ...] | Literal["all"] = "all"
        self._may_call = True
        self._pending: deque[str | None] = deque()  # ids of updates that are not yet answered
        self._delegations = Delegations()
        self._server_calls = LiveServerCalls(self._writer, self._response)
        self._answered: str | None = None  # the call of the last result
        self._close_id: str | None = None  # of the client's session.close
        self._permissions = DataChannel()
        self._is_started = True
        self._heard_ms = 0

    def received(self, data: str | bytes) -> Iterator[Command | Send | Disconnect]:
        """See Dialect."""
        yield from self._encoded(self._do(decoded(data)))

    def told(self, event: Event) -> Iterator[Send | Disconnect]:
        """See Dialect."""
        yield from self._encoded(self._tell(event))

    def _encoded(self, outs: Iterator[Any]) -> Iterator[Any]:
        for out in outs:
            if not isinstance(out, dict):
                yield out
            elif self._permissions.may_see(out):
                yield sent(out)

    # From the client.

    def _do(self, message: ClientMessage | Refusal) -> Iterator[Out]:
        match message:
            case Refusal():
                yield self._error(message)
            case SessionUpdate():
                yield from self._update(message)
            case InputAudioMute() | InputAudioUnmute():
                yield Mute(isinstance(message, InputAudioMute))
                yield self._event(f"{message.type}d", message.event_id)
            case Append():
                yield from self._append(message)
            case ResponseItemCreate() | ResponseCreate() if self._is_client_delegate:
                reason = f"{message.type} requires Responses delegation."
                yield self._refuse(message, "wrong_delegation", reason, "type")
            case ResponseItemCreate(item=FunctionCallOutput() as item):
                self._answered = item.call_id
                yield Answer(item.call_id, item.text)
            case ResponseItemCreate(item=ApprovalResponse() as item):
                yield item.as_command
            case ResponseItemCreate(item=MessageItem() as item):
                yield note_of(item.role, item.text)
            case ResponseCreate():
                yield from self._continue()
            case ConfirmResponse():
                yield message.as_command
            case SessionClose():
                self._close_id = message.event_id
                yield HangUp()
            case SessionStart() | InputAudioAppend():
                reason = f"{message.type} is not for this connection, or not now."
                yield self._refuse(message, "not_allowed", reason, "type")

    def _update(self, message: SessionUpdate) -> Iterator[Out]:
        delegation = message.session.delegation
        responses = message.session.responses
        if delegation and self._is_client_delegate == (responses is not None):
            reason = "A session delegates to whom it did when it began."
            yield self._refuse(message, "immutable_parameter", reason, "session.delegation.type")
        elif len(self._pending) == _PENDING:
            yield self._refuse(message, "too_many_updates", "Too many updates are under way.")
        else:
            self._pending.append(message.event_id)
            if responses and responses.instructions:
                yield instruction_of(responses.instructions)
            yield self._offered(responses or ResponsesConfig())

    def _offered(self, responses: ResponsesConfig) -> Configure:
        """The tools that the agent is to have from now on."""
        if responses.tools is None and responses.tool_choice is None:
            return Configure()
        if responses.tools is not None:
            self._tools, self._server_tools = responses.functions, responses.server_tools
        if responses.tool_choice is not None:
            self._may_call = responses.tool_choice != "none"
        if self._may_call:
            return Configure(tools=self._tools, server_tools=self._server_tools)
        return Configure(tools=(), server_tools="all" if self._server_tools == "all" else ())

    def _append(self, message: Append) -> Iterator[Out]:
        if message.delegation_id is not None and not self._is_client_delegate:
            reason = "Delegations to Responses take no appends: delegation_id must be null."
            yield self._refuse(message, "wrong_delegation", reason, "delegation_id")
            return
        if command := self._delegations.taken(message):
            yield command
        now_ms = self._heard_ms
        yield self._event(f"{message.type}ed", message.event_id, start_ms=now_ms, end_ms=now_ms)

    def _continue(self) -> Iterator[Out]:
        delegation_id = self._answered and DELEGATION + self._answered
        self._answered = None
        yield from self._respond(delegation_id, self._writer.new_id("resp"), [])

    # From the session.

    def _tell(self, event: Event) -> Iterator[Out]:
        match event:
            case Started():
                self._writer.session_id = event.session_id
                self._set(event.settings)
                self._server_calls.note(event.server_tools)
            case Configured():
                self._set(event.settings)
                yield self._tell_settings(self._pending.popleft() if self._pending else None)
            case ServerToolsListed(server_tools) if has_chosen(self._settings):
                yield from self._server_calls.list(server_tools)
            case ToolEvent(number, told) if has_chosen(self._settings):
                yield from self._server_calls.tell(number, told)
            case Heard() if self._is_started:
                yield from self._hear(event)
            case CallMade():
                self._delegations.recall(event.supersedes)
                yield from self._call(event)
            case CallCancelled():
                self._delegations.recall(event.call_id)
            case Problem():
                yield from self._fail(event)
            case Ended():
                yield from self._end(event)
        yield from self._writer.extensions(event)

    def _set(self, settings: Settings) -> None:
        self._settings = settings
        self._tools = settings.tools or self._tools
        self._server_tools = settings.server_tools or self._server_tools

    def _tell_settings(self, client_event_id: str | None) -> Out:
        """What the client is told when settings have changed."""
        return self._event("session.updated", client_event_id, session=self._session())

    def _hear(self, frame: Heard) -> Iterator[Out]:
        self._heard_ms = frame.start_ms + FRAME_MS
        yield from self._play(frame)
        for side, text in (("input", frame.user_text), ("output", frame.agent_text)):
            if text:
                transcript = {"delta": text, **_span(frame)}
                yield self._event(f"session.{side}_transcript.delta", None, **transcript)
        if (frame.number + 1) % USAGE_FRAMES == 0:
            yield self._event("session.usage.updated", usage=self._usage())

    def _play(self, frame: Heard) -> Iterator[Out]:
        """What the client is told of the agent's sound; those who are attached, in one format."""
        if self._settings.output_format == AudioFormat():
            yield {"type": "session.output_audio.delta", "delta": frame.audio, **_span(frame)}

    def _call(self, call: CallMade) -> Iterator[Out]:
        response_id = None if self._is_client_delegate else f"resp_{call.call_id}"
        created = delegation_created(call.call_id, call.number, response_id)
        yield self._event("session.delegation.created", **created)
        if response_id:
            made = function_call_events(call)
            yield from self._respond(DELEGATION + call.call_id, response_id, made)
        else:
            self._delegations.hand_over(call.call_id)

    def _fail(self, problem: Problem) -> Iterator[Out]:
        refusal, is_of_settings = refusal_of(problem)
        if is_of_settings:
            self._set(self._settings)  # what was asked for is not what there is
        if is_of_settings and self._pending:
            refusal = replace(refusal, event_id=self._pending.popleft())
        yield self._error(refusal)
        if is_of_settings and not self._is_started:
            yield Disconnect(1008, problem.code)

    def _end(self, event: Ended) -> Iterator[Out]:
        reason = _REASONS.get(event.reason, "connection_lost")
        if self._is_started:
            closed = {"reason": reason, "session": self._session(), "usage": self._usage()}
            yield self._event("session.closed", self._close_id, **closed)
        yield Disconnect(CLOSE_CODES[event.reason], event.reason)

    # What servers send.

    def _event(self, kind: str, client_event_id: str | None = None, **fields: Any) -> ServerMessage:
        answered = {"client_event_id": client_event_id} if client_event_id else {}
        return self._writer.message(kind, **answered, **fields)

    def _refuse(
        self, message: ClientMessage | Append, code: str, reason: str, param: str | None = None
    ) -> ServerMessage:
        return self._error(Refusal(code, reason, param, message.event_id))

    def _error(self, refusal: Refusal) -> ServerMessage:
        return self._event("error", refusal.event_id, error=error_object(refusal))

    def _respond(
        self, delegation_id: str | None, response_id: str, made: Iterable[ServerMessage]
    ) -> Iterator[Out]:
        """A response from its creation to its completion, with what is `made` in it."""
        response = self._response(delegation_id, response_id)
        yield response.open()
        yield from map(response.tell, made)
        yield response.close()

    def _response(self, delegation_id: str | None, response_id: str) -> DelegateResponse:
        created_at_s = self._started_at_s + self._heard_ms / 1000
        about = (delegation_id, response_id, self._model, created_at_s)
        return DelegateResponse(self._writer, *about)

    def _session(self) -> ServerMessage:
        expires_at = self._started_at_s + self._lasts_s
        identity = {"id": self._writer.session_id, "model": self._model, "expires_at": expires_at}
        return {**identity, "status": "active", **session_config(self._settings, self._model)}

    def _usage(self) -> dict[str, Any]:
        return {"seconds": self._heard_ms / 1000}

    @property
    def _is_client_delegate(self) -> bool:
        return delegates_to_client(self._settings)


def _span(frame: Heard) -> dict[str, int]:
    return {"start_ms": frame.start_ms, "end_ms": frame.start_ms + FRAME_MS}
