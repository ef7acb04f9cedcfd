"""smallest.ai's Hydra protocol (`/waves/v1/s2s`): named as OpenAI's Realtime, and turn by turn.

A client waits for `session.created`, sends `session.configure` once and speaks from then on; later
it may only change its tools. What calls have brought goes to the agent at once: `response.create`
behind it only opens the response that the agent will answer in.
"""

from collections.abc import Iterator

import msgspec

from serve.dialects.dialect import CLOSE_CODES, Disconnect, Send
from serve.dialects.hydra_conversation import Conversation
from serve.dialects.hydra_events import (
    ClientMessage,
    FunctionCallOutput,
    InputAudioAppend,
    ItemCreate,
    MessageItem,
    ResponseCancel,
    ResponseCreate,
    SessionConfig,
    SessionConfigure,
    SessionUpdate,
    decoded,
)
from serve.dialects.reading import ConfirmResponse, note_of
from serve.dialects.writing import Refusal, Writer, sent
from serve.gateway.audio import AudioFormat
from serve.gateway.events import (
    Answer,
    Begin,
    CallMade,
    Command,
    Configure,
    Configured,
    Ended,
    Event,
    Heard,
    Problem,
    Say,
    Settings,
    Started,
)

_SETTINGS = ("instructions", "tools", "format")  # that a Problem may name


class Hydra:
    """One client's session with `model`. With `extensions` it is also told what only we have."""

    opening = Configure(
        input_format=AudioFormat("pcm16", 16_000), output_format=AudioFormat("pcm16", 48_000)
    )

    def __init__(self, model: str, extensions: bool) -> None:
        self._model, self._writer = model, Writer(extensions)
        self._config: SessionConfig | None = None
        self._is_configured = False  # as the client knows
        self._conversation = Conversation(self._writer)

    def received(self, data: str | bytes) -> Iterator[Command | Send | Disconnect]:
        """See Dialect."""
        message = decoded(data)
        if isinstance(message, Refusal):
            yield self._writer.error(message)
        elif self._config is None and isinstance(message, SessionUpdate):
            code, text = "invalid_request_error", "session.configure comes first"
            yield self._writer.error(Refusal(code, text, event_id=message.event_id))
        else:
            yield from self._do(message)

    def told(self, event: Event) -> Iterator[Send | Disconnect]:
        """See Dialect."""
        match event:
            case Started(session_id):
                self._writer.session_id = session_id
                token = self._writer.resumption(event)
                yield self._writer.event("session.created", session_id=session_id, **token)
            case Configured(settings):
                yield self._tell_settings(settings)
            case Heard() if self._is_configured:
                yield from self._conversation.hear(event)
            case CallMade():
                yield from self._conversation.call(event)
            case Problem():
                yield self._tell_problem(event)
            case Ended(reason):
                yield Disconnect(CLOSE_CODES[reason], reason)
        yield from map(sent, self._writer.extensions(event))

    def _do(self, message: ClientMessage) -> Iterator[Command | Send]:
        match message:
            case SessionConfigure(session) if self._config is None:
                yield from self._configure(session)
            case SessionUpdate(session) if session.tools is not None:
                yield Configure(tools=tuple(tool.as_setting() for tool in session.tools))
            case InputAudioAppend(audio) if self._config:
                yield Say(audio)
            case ItemCreate(item):
                yield from self._create_item(item)
            case ConfirmResponse():
                yield message.as_command
            case ResponseCreate():
                yield from self._conversation.answer()
            case ResponseCancel(response_id):
                yield from self._conversation.cancel(response_id)

    def _configure(self, config: SessionConfig) -> Iterator[Command]:
        self._config = config
        tools = config.tools
        yield Configure(
            instructions=config.instructions,
            tools=None if tools is None else tuple(tool.as_setting() for tool in tools),
            voice=config.voice,
            input_format=AudioFormat("pcm16", config.input_audio_sample_rate),
            output_format=AudioFormat("pcm16", config.output_audio_sample_rate),
        )
        if config.generate_initial_response:
            yield Begin()

    def _create_item(self, item: FunctionCallOutput | MessageItem) -> Iterator[Command | Send]:
        if isinstance(item, FunctionCallOutput):
            yield Answer(item.call_id, item.output)
        elif item.text:
            yield note_of(item.role, item.text)
        yield from self._conversation.created(**msgspec.to_builtins(item))

    def _tell_settings(self, settings: Settings) -> Send:
        tools = [{"type": "function", **tool} for tool in settings.tools]
        if self._is_configured:
            return self._writer.event("session.updated", session={"tools": tools})
        self._is_configured = True
        assert self._config
        session = {
            "model": self._model,
            "instructions": settings.instructions,
            "voice": settings.voice,
            "tools": tools,
            "generate_initial_response": bool(self._config.generate_initial_response),
            "input_audio_format": "pcm16",
            "input_audio_sample_rate": settings.input_format.rate_hz,
            "output_audio_format": "pcm16",
            "output_audio_sample_rate": settings.output_format.rate_hz,
        }
        return self._writer.event("session.configured", session=session)

    def _tell_problem(self, problem: Problem) -> Send:
        param = problem.param or None
        if param in _SETTINGS:
            param = f"session.{param}"
            if not self._is_configured:
                self._config = None  # the client may try again
        retry_after_s = problem.retry_after_s
        refusal = Refusal(problem.code, problem.message, param, retry_after_s=retry_after_s)
        return self._writer.error(refusal)


def no_room(why: str, retry_after_s: float) -> Send:
    """What a client is told who is let in for nothing else: there is no session for him."""
    return Writer(False).error(Refusal("server_full", why, retry_after_s=retry_after_s))
