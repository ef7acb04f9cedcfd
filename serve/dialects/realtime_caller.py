"""The caller's turns as Realtime's clients know them: an audio buffer that is committed, and items
with a transcript that comes late."""

from collections.abc import Iterator
from dataclasses import dataclass

from serve.dialects.dialect import Send
from serve.dialects.islands import TurnClosed, TurnOpened, TurnText, TurnTranscribed
from serve.dialects.realtime_events import ClientError
from serve.dialects.realtime_items import Item, Items
from serve.dialects.writing import Writer


@dataclass
class _Speech:
    """What becomes, or has become, one item: of a turn, or of several that nobody committed."""

    item: Item
    is_committed: bool = False
    was_heard: bool = False  # a turn has been opened for it
    is_transcribed: bool = False
    transcript: str = ""
    start_ms: int = 0
    heard_ms: int = 0


class CallerTurns:
    """Tells a client of the caller's turns. With `is_automatic` it is told when they begin and end
    and they are committed for it (OpenAI's turn detection); else it commits them itself."""

    def __init__(self, writer: Writer, items: Items) -> None:
        self.is_automatic = True
        self._writer = writer
        self._items = items
        self._speech: _Speech | None = None
        self._has_audio = False

    def append(self) -> None:
        """The client has sent sound, in a message or another way."""
        self._has_audio = True

    def clear(self) -> Iterator[Send]:
        self._has_audio = False
        yield self._writer.event("input_audio_buffer.cleared")

    def commit(self) -> Iterator[Send]:
        """The client says that the turn is over, whether it has been heard yet or not."""
        if not self._has_audio:
            message = "Error committing input audio buffer: the buffer is empty."
            raise ClientError("input_audio_buffer_commit_empty", message)
        if self._speech is None or self._speech.is_committed:
            self._speech = self._new_speech()
        yield from self._commit(self._speech)

    def tell(
        self, happening: TurnOpened | TurnText | TurnClosed | TurnTranscribed
    ) -> Iterator[Send]:
        match happening:
            case TurnOpened(start_ms):
                yield from self._open(start_ms)
            case TurnText(text):
                yield from self._hear(text)
            case TurnClosed(end_ms):
                yield from self._close(end_ms)
            case TurnTranscribed():
                assert self._speech
                self._speech.is_transcribed = True
                if self._speech.is_committed:
                    yield from self._complete(self._speech)

    def _new_speech(self) -> _Speech:
        content = [{"type": "input_audio", "transcript": None}]
        fields = {"type": "message", "status": "completed", "role": "user", "content": content}
        return _Speech(Item(self._items.new_id(), fields))

    def _open(self, start_ms: int) -> Iterator[Send]:
        speech = self._speech
        if speech is None or (speech.is_committed and speech.was_heard):
            speech = self._speech = self._new_speech()
        speech.was_heard, speech.is_transcribed, speech.start_ms = True, False, start_ms
        if self.is_automatic:
            yield self._writer.event(
                "input_audio_buffer.speech_started",
                audio_start_ms=start_ms,
                item_id=speech.item.id,
            )

    def _hear(self, text: str) -> Iterator[Send]:
        assert self._speech
        self._speech.transcript += text
        if self._speech.is_committed:
            yield self._transcription("delta", self._speech, delta=text)

    def _close(self, end_ms: int) -> Iterator[Send]:
        speech = self._speech
        assert speech
        speech.heard_ms += end_ms - speech.start_ms
        if self.is_automatic:
            yield self._writer.event(
                "input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=speech.item.id
            )
            if not speech.is_committed:
                yield from self._commit(speech)

    def _commit(self, speech: _Speech) -> Iterator[Send]:
        speech.is_committed = True
        self._has_audio = False
        yield self._writer.event(
            "input_audio_buffer.committed",
            previous_item_id=self._items.last_id,
            item_id=speech.item.id,
        )
        yield from self._items.add(speech.item)
        yield from self._items.done(speech.item)
        if speech.transcript:
            yield self._transcription("delta", speech, delta=speech.transcript)
        if speech.is_transcribed:
            yield from self._complete(speech)

    def _complete(self, speech: _Speech) -> Iterator[Send]:
        speech.item.transcript = speech.transcript
        yield self._transcription(
            "completed",
            speech,
            transcript=speech.transcript,
            usage={"type": "duration", "seconds": speech.heard_ms / 1000},
        )

    def _transcription(self, what: str, speech: _Speech, **fields: object) -> Send:
        return self._writer.event(
            f"conversation.item.input_audio_transcription.{what}",
            item_id=speech.item.id,
            content_index=0,
            **fields,
        )
