"""OpenAI Realtime (GA): a conversation without turns told as one with turns.

What the agent says comes as responses, one at a time; the caller's turns as items of a
conversation. The agent speaks when it wants to: `response.create` is no more than a nudge, which
its next response answers, or an empty one if it has nothing to say.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, assert_never

from serve.dialects import realtime_events as events
from serve.dialects.dialect import CLOSE_CODES, Disconnect, Send
from serve.dialects.islands import (
    IslandAudio,
    IslandClosed,
    IslandOpened,
    Islands,
    IslandText,
)
from serve.dialects.reading import ConfirmResponse, note_of
from serve.dialects.realtime_agent import AgentTurns
from serve.dialects.realtime_caller import CallerTurns
from serve.dialects.realtime_events import ClientError
from serve.dialects.realtime_items import Item, Items
from serve.dialects.realtime_server_calls import RealtimeServerCalls
from serve.dialects.realtime_session import SessionConfig
from serve.dialects.server_tools import has_chosen
from serve.dialects.writing import Refusal, Writer, sent
from serve.gateway.events import (
    Answer,
    Begin,
    CallMade,
    ClearAudio,
    Command,
    Configure,
    Configured,
    Ended,
    Event,
    Heard,
    Note,
    Problem,
    Say,
    ServerToolsListed,
    Started,
    ToolEvent,
)
from serve.tools.source import Declared

_MAX_CALLS = 512


class Realtime:
    """One client's side of a session. `session` is what it is set to from elsewhere (a client
    secret, the offer of a call), and `opening` what that asks for; ClientError if it is wrong. With
    `extensions` it is told what only we have; without `sends_audio` (WebRTC) the sound goes another
    way."""

    def __init__(
        self,
        model: str,
        session: Mapping[str, Any] | None,
        extensions: bool,
        sends_audio: bool = True,
    ) -> None:
        self._writer = Writer(extensions)
        self._config = SessionConfig(model)
        self._items = Items(self._writer)
        self._islands = Islands()
        self._caller = CallerTurns(self._writer, self._items)
        self._agent = AgentTurns(self._writer, self._items, self._islands, sends_audio)
        self._server_calls = RealtimeServerCalls(self._writer, self._items, self._agent)
        self._hears_apart = not sends_audio
        self._has_heard = False
        self._calls: dict[str, Literal["here", "earlier"]] = {}  # where each call_id was made
        self.opening = self._change(events.session_of(dict(session or {})))

    @property
    def is_hushed(self) -> bool:
        """Whether what the agent says now was interrupted or cancelled: where the sound goes
        another way, it is to be silent there."""
        return self._islands.is_dropping

    def received(self, data: str | bytes) -> Iterator[Command | Send | Disconnect]:
        """See Dialect."""
        message = events.decoded(data)
        if isinstance(message, Refusal):
            yield self._writer.error(message)
            return
        try:
            yield from self._do(message)
        except ClientError as error:
            refusal = Refusal(error.code, error.message, error.param, message.event_id)
            yield self._writer.error(refusal)

    def told(self, event: Event) -> Iterator[Send | Disconnect]:
        """See Dialect."""
        match event:
            case Started():
                self._writer.session_id = event.session_id
                self._config.settings = event.settings
                yield self._tell_session("created", **self._writer.resumption(event))
                yield from self._list(event.server_tools)
            case Configured():
                self._config.settings = event.settings
                yield self._tell_session("updated")
            case ServerToolsListed(server_tools):
                yield from self._list(server_tools)
            case Heard():
                yield from self._hear(event)
            case CallMade():
                self._remember_call(event.call_id, "here")
                yield from self._agent.part(lambda response: response.call(event))
            case ToolEvent(told=told) if has_chosen(self._config.settings):
                yield from self._server_calls.tell(told)
            case Problem(code, message, param, retry_after_s):
                yield self._writer.error(Refusal(code, message, param or None, None, retry_after_s))
            case Ended():
                yield Disconnect(CLOSE_CODES[event.reason], event.reason)
        yield from map(sent, self._writer.extensions(event))

    # What a client sends.

    def _do(self, message: events.ClientMessage) -> Iterator[Command | Send]:
        match message:
            case events.SessionUpdate():
                yield self._change(message.session)
            case events.BufferAppend():
                yield from self._append(message.audio)
            case events.BufferCommit():
                yield from self._caller.commit()
            case events.BufferClear():
                yield ClearAudio()
                yield from self._caller.clear()
            case events.OutputClear():
                yield from self._agent.clear()
            case events.ItemCreate():
                yield from self._create_item(message)
            case events.ItemRetrieve():
                yield from self._items.retrieve(message.item_id)
            case events.ItemTruncate():
                yield from self._items.truncate(
                    message.item_id, message.content_index, message.audio_end_ms
                )
            case events.ItemDelete():
                yield from self._items.delete(message.item_id)
            case events.ResponseCreate():
                yield from self._nudge(message.response or events.ResponseWish())
            case events.ResponseCancel():
                yield from self._agent.cancel(message.response_id)
            case ConfirmResponse():
                yield message.as_command
            case _:
                assert_never(message)

    def _change(self, change: events.SessionChange) -> Configure:
        configure = self._config.change(change, self._has_heard)
        self._caller.is_automatic = self._config.has_turn_detection
        return configure

    def _append(self, audio: bytes) -> Iterator[Say]:
        if audio:
            self._has_heard = True
            self._caller.append()
            yield Say(audio)

    def _create_item(self, message: events.ItemCreate) -> Iterator[Command | Send]:
        wanted = message.item
        item_id = wanted.id or self._items.new_id()
        match wanted:
            case events.MessageItem():
                fields, command = _message(wanted)
            case events.FunctionCallItem():
                fields = {"type": "function_call", "status": "completed"}
                fields |= {"call_id": wanted.call_id, "name": wanted.name}
                fields |= {"arguments": wanted.arguments}
                command = Note(f"You have called before: {wanted.name} {wanted.arguments}")
            case events.ApprovalItem():
                fields = {"type": "mcp_approval_response", "approve": wanted.approve}
                fields |= {"approval_request_id": wanted.approval_request_id}
                fields |= {"reason": wanted.reason}
                command = wanted.as_command
            case events.FunctionOutputItem():
                fields = {"type": "function_call_output", "status": "completed"}
                fields |= {"call_id": wanted.call_id, "output": wanted.output}
                command = self._answer(wanted)
        is_known = self._items.was_deleted(item_id)  # a client that corrects what it shows
        item = Item(item_id, fields)
        yield from self._items.add(item, message.previous_item_id)
        yield from self._items.done(item)
        if isinstance(wanted, events.FunctionCallItem):
            self._remember_call(wanted.call_id, "earlier")
        if command and not (is_known and isinstance(command, Note)):
            yield command

    def _answer(self, item: events.FunctionOutputItem) -> Answer | Note:
        if item.call_id not in self._calls:
            message = f"There is no call {item.call_id!r}."
            raise ClientError("item_create_invalid_call_id", message, "item.call_id")
        if self._calls[item.call_id] == "earlier":
            return Note(f"The call before has brought: {item.output}")
        return Answer(item.call_id, item.output)

    def _nudge(self, wish: events.ResponseWish) -> Iterator[Command]:
        if wish.conversation == "none" or wish.input:
            message = "Responses out of the conversation are not supported."
            raise ClientError("unsupported_value", message, "response.conversation")
        if wish.output_modalities and "audio" not in wish.output_modalities:
            message = "The agent always speaks."
            raise ClientError("unsupported_value", message, "response.output_modalities")
        self._agent.nudge(wish.metadata)
        yield Begin()
        # LiveKit repeats the session's instructions before those of the response.
        text = (wish.instructions or "").removeprefix(self._config.settings.instructions).strip()
        if text:
            yield Note(text)

    # What a client is told.

    def _list(self, server_tools: Mapping[str, tuple[Declared, ...]]) -> Iterator[Send]:
        if has_chosen(self._config.settings):
            yield from self._server_calls.list(server_tools)

    def _hear(self, frame: Heard) -> Iterator[Send]:
        if self._hears_apart:
            self._caller.append()
        for happening in self._islands.heard(frame):
            if isinstance(happening, IslandOpened | IslandText | IslandAudio | IslandClosed):
                yield from self._agent.tell(happening)
            else:
                yield from self._caller.tell(happening)
        yield from self._agent.end_frame()

    def _tell_session(self, what: str, **more: str) -> Send:
        session = self._config.described(self._writer.session_id)
        return self._writer.event(f"session.{what}", session=session, **more)

    def _remember_call(self, call_id: str, where: Literal["here", "earlier"]) -> None:
        if where == "here" or call_id not in self._calls:
            self._calls[call_id] = where
        if len(self._calls) > _MAX_CALLS:
            del self._calls[next(iter(self._calls))]


def _message(wanted: events.MessageItem) -> tuple[dict[str, Any], Note | None]:
    """A message's fields, each part named as its role wants it, and what the agent is to know."""
    side = "output" if wanted.role == "assistant" else "input"
    content: list[dict[str, Any]] = []
    for part in wanted.content:
        if part.type.endswith("audio"):
            content.append({"type": f"{side}_audio", "transcript": part.transcript})
        else:
            content.append({"type": f"{side}_text", "text": part.text or ""})
    fields = {"type": "message", "status": "completed", "role": wanted.role, "content": content}
    text = " ".join(filter(None, (part.text or part.transcript for part in wanted.content)))
    return fields, note_of(wanted.role, text) if text else None
