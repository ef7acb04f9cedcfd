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
from serve.dialects.realtime_agent import AgentTurns
from serve.dialects.realtime_caller import CallerTurns
from serve.dialects.realtime_events import ClientError, Wire
from serve.dialects.realtime_items import Item, Items
from serve.dialects.realtime_session import SessionConfig
from serve.gateway.events import (
    FRAME_MS,
    Answer,
    Begin,
    CallCancelled,
    CallConfirmed,
    CallMade,
    CallOpened,
    ClearAudio,
    Command,
    Configure,
    Configured,
    Ended,
    Event,
    HandedOff,
    Heard,
    Note,
    Problem,
    Say,
    Started,
)

_MAX_CALLS = 512

_PROBLEM_TYPES = {
    "rate_limit_exceeded": "rate_limit_error",
    "server_full": "server_error",
    "server_error": "server_error",
}

_BY = {"user": "The caller writes: ", "system": "", "assistant": "You have said before: "}


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
        self._wire = Wire()
        self._config = SessionConfig(model)
        self._items = Items(self._wire)
        self._islands = Islands()
        self._caller = CallerTurns(self._wire, self._items)
        self._agent = AgentTurns(self._wire, self._items, self._islands, sends_audio)
        self._extensions = extensions
        self._has_heard = False
        self._calls: dict[str, Literal["here", "earlier"]] = {}  # where each call_id was made
        self.opening = self._change(events.read_session(dict(session or {})))

    @property
    def is_hushed(self) -> bool:
        """Whether what the agent says now was interrupted or cancelled: where the sound goes
        another way, it is to be silent there."""
        return self._islands.is_dropping

    def received(self, data: str | bytes) -> Iterator[Command | Send | Disconnect]:
        try:
            event = events.decode(data)
            yield from self._receive(event)
        except ClientError as error:
            yield self._wire.error("invalid_request_error", error, events.event_id_of(data))

    def told(self, event: Event) -> Iterator[Send | Disconnect]:
        match event:
            case Started():
                self._wire.session_id = event.session_id
                self._config.settings = event.settings
                token = {"resume_token": event.resume_token} if self._extensions else {}
                yield self._tell_session("created", **token)
            case Configured():
                self._config.settings = event.settings
                yield self._tell_session("updated")
            case Heard():
                yield from self._hear(event)
            case CallMade():
                self._remember_call(event.call_id, "here")
                yield from self._agent.call(event)
                yield from self._extend_call(event)
            case CallOpened():
                yield from self._extend("call.opened", event.number, call_id=event.call_id)
            case CallCancelled():
                yield from self._extend("call.cancelled", event.number, call_id=event.call_id)
            case CallConfirmed():
                yield from self._extend("call.confirmed", event.number, call_id=event.call_id)
            case HandedOff():
                yield from self._extend("handoff", event.number, arguments=event.arguments)
            case Problem():
                yield self._tell_problem(event)
            case Ended():
                yield Disconnect(CLOSE_CODES[event.reason], event.reason)
            case _:
                assert_never(event)

    # What a client sends.

    def _receive(self, event: events.AnyEvent) -> Iterator[Command | Send]:
        match event:
            case events.SessionUpdate():
                yield self._change(event.session)
            case events.BufferAppend():
                yield from self._append(event.audio)
            case events.BufferCommit():
                yield from self._caller.commit()
            case events.BufferClear():
                yield ClearAudio()
                yield from self._caller.clear()
            case events.OutputClear():
                yield from self._agent.clear()
            case events.ItemCreate():
                yield from self._create_item(event)
            case events.ItemRetrieve():
                yield from self._items.retrieve(event.item_id)
            case events.ItemTruncate():
                yield from self._items.truncate(
                    event.item_id, event.content_index, event.audio_end_ms
                )
            case events.ItemDelete():
                yield from self._items.delete(event.item_id)
            case events.ResponseCreate():
                yield from self._nudge(event.response or events.ResponseWish())
            case events.ResponseCancel():
                yield from self._agent.cancel(event.response_id)
            case _:
                assert_never(event)

    def _change(self, change: events.SessionChange) -> Configure:
        configure = self._config.change(change, self._has_heard)
        self._caller.is_automatic = self._config.has_turn_detection
        return configure

    def _append(self, audio: bytes) -> Iterator[Say]:
        if audio:
            self._has_heard = True
            self._caller.append()
            yield Say(audio)

    def _create_item(self, event: events.ItemCreate) -> Iterator[Command | Send]:
        wanted = event.item
        item_id = wanted.id or self._items.new_id()
        match wanted:
            case events.MessageItem():
                fields, command = _message(wanted)
            case events.FunctionCallItem():
                fields = {"type": "function_call", "status": "completed"}
                fields |= {"call_id": wanted.call_id, "name": wanted.name}
                fields |= {"arguments": wanted.arguments}
                command = Note(f"You have called before: {wanted.name} {wanted.arguments}")
            case events.FunctionOutputItem():
                fields = {"type": "function_call_output", "status": "completed"}
                fields |= {"call_id": wanted.call_id, "output": wanted.output}
                command = self._answer(wanted)
        is_known = self._items.was_deleted(item_id)  # a client that corrects what it shows
        item = Item(item_id, fields)
        yield from self._items.add(item, event.previous_item_id)
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

    def _hear(self, frame: Heard) -> Iterator[Send]:
        for happening in self._islands.heard(frame):
            if isinstance(happening, IslandOpened | IslandText | IslandAudio | IslandClosed):
                yield from self._agent.tell(happening)
            else:
                yield from self._caller.tell(happening)
        yield from self._agent.end_frame()

    def _tell_session(self, what: str, **more: str) -> Send:
        session = self._config.described(self._wire.session_id)
        return self._wire.event(f"session.{what}", session=session, **more)

    def _tell_problem(self, problem: Problem) -> Send:
        error = ClientError(problem.code, problem.message, problem.param or None)
        more = {"retry_after_s": problem.retry_after_s} if problem.retry_after_s else {}
        type = _PROBLEM_TYPES.get(problem.code, "invalid_request_error")
        return self._wire.error(type, error, None, **more)

    def _extend_call(self, call: CallMade) -> Iterator[Send]:
        about: dict[str, Any] = {"call_id": call.call_id, "confidence": call.confidence}
        yield from self._extend("call.made", call.number, **about, supersedes=call.supersedes)
        if call.supersedes:
            about = {"call_id": call.supersedes, "superseded_by": call.call_id}
            yield from self._extend("call.superseded", call.number, **about)

    def _extend(self, what: str, number: int, **fields: Any) -> Iterator[Send]:
        """An event that only we have: clients must have asked for those."""
        if self._extensions:
            yield self._wire.event(f"duologue.{what}", at_ms=number * FRAME_MS, **fields)

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
    return fields, Note(_BY[wanted.role] + text) if text else None
