"""Continuous speech as turns, for the protocols that know responses and turns.

Our agent hears and speaks all the time. Clients of OpenAI Realtime and of Hydra want to be told of
the agent's speech as *islands* (their responses: opened, filled, closed, one at a time) and of the
caller's *turns*. `Islands` makes both out of the frames and the floor, and keeps what those clients
rely on:

- After every frame an island is open, or a turn, or neither. A turn that interrupts an island is
  opened first and closes the island then; an island that ends a turn closes it first.
- A turn means that the caller has the floor, not that there is sound: his "mm-hm" opens none. It
  takes `_LIKELY_FRAMES` in a row, and `_SURE_FRAMES` while an island is open: a cough looks like a
  turn at first, and clients stop the agent and their tools at a turn.
- An island opens at the agent's first word or voiced frame; a pause inside is a part of it. It does
  not open within `_APART_FRAMES` of a turn's opening, since clients interrupt late what they were
  told at once, nor while the caller still has the floor. What the agent says meanwhile is held
  back, for `_HELD_FRAMES` at most, and comes at once with the opening. The agent's own
  backchannels open none and are left out.
- What the agent still says after it was interrupted belongs to nobody and is left out.
- A word of the caller is known after its sound, so a turn's transcript ends after the turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from model.frame import FRAME_MS
from serve.gateway.events import Heard

_LIKELY_FRAMES = 2
_SURE_FRAMES = 3  # as the agent itself, which falls silent then
_APART_FRAMES = 4  # 320 ms; Pipecat needs 250
_QUIET_FRAMES = 6  # without voice end an island, or a transcript
_LEAD_FRAMES = 10  # in which the sound of a word has certainly begun
_HELD_FRAMES = 8  # that the agent is held back at most; less than _LEAD_FRAMES


@dataclass(frozen=True)
class IslandOpened:
    """The agent begins to say something."""

    start_ms: int


@dataclass(frozen=True)
class IslandText:
    """More of what the agent says in the open island. It comes ahead of its sound."""

    text: str


@dataclass(frozen=True)
class IslandAudio:
    """80 ms of the open island, in the session's output format: every frame from the first voiced
    one on."""

    audio: bytes


@dataclass(frozen=True)
class IslandClosed:
    """The agent has said it; or not all of it, where the turn that has just opened interrupted
    it."""

    was_interrupted: bool


@dataclass(frozen=True)
class TurnOpened:
    """The caller has taken the floor, at `start_ms`, which is some frames ago."""

    start_ms: int


@dataclass(frozen=True)
class TurnText:
    """More of what the caller says, or has said, in the turn that was opened last."""

    text: str


@dataclass(frozen=True)
class TurnClosed:
    """The caller has left the floor, at `end_ms`."""

    end_ms: int


@dataclass(frozen=True)
class TurnTranscribed:
    """Nothing more comes of the closed turn's text; `transcript` is all of it. Always before the
    next turn opens."""

    transcript: str


Happening = (
    IslandOpened
    | IslandText
    | IslandAudio
    | IslandClosed
    | TurnOpened
    | TurnText
    | TurnClosed
    | TurnTranscribed
)


@dataclass
class _Island:
    """The open island; numbers of frames."""

    last_voiced: int
    last_text: int
    is_voiced: bool = False


@dataclass
class _Turn:
    """The turn that was opened last, until it is transcribed; numbers of frames."""

    last_held: int
    last_text: int
    text: list[str] = field(default_factory=list)
    is_open: bool = True


class Islands:
    """What a session's frames amount to. Feed it every frame, in order."""

    def __init__(self) -> None:
        self._island: _Island | None = None
        self._turn: _Turn | None = None
        self._held: list[Heard] = []
        self._users_frames: list[Heard] = []  # up to now, that may become a turn
        self._turn_opened = -1 - _APART_FRAMES  # the frame in which it was told
        self._number = -1
        self._dropped_until_quiet = 0  # frames without voice or text; 0: nothing is dropped
        self._quiet_frames = 0

    @property
    def is_island_open(self) -> bool:
        return self._island is not None

    @property
    def is_turn_open(self) -> bool:
        return self._turn is not None and self._turn.is_open

    @property
    def is_dropping(self) -> bool:
        """Whether what the agent says now belongs to an island that was closed early."""
        return self._dropped_until_quiet > 0

    @property
    def may_answer(self) -> bool:
        """Whether the last turn's opening is so long ago that clients bear a new response."""
        return self._number - self._turn_opened >= _APART_FRAMES

    def heard(self, frame: Heard) -> Iterator[Happening]:
        """What a frame brings about, in the order in which clients are to be told."""
        self._number = frame.number
        yield from self._hear_caller(frame)
        yield from self._hear_agent(frame)

    def cancel(self) -> None:
        """The client wants no more of the open island: it is closed without a word, and the rest
        of what the agent says there is left out."""
        assert self._island is not None, "no island is open"
        self._island = None
        self._drop(_QUIET_FRAMES)

    def _hear_caller(self, frame: Heard) -> Iterator[Happening]:
        if self.is_turn_open:
            yield from self._go_on_turn(frame)
            return
        self._users_frames.append(frame)
        if frame.floor != "user":
            yield from self._hear_late_words()
        elif len(self._users_frames) >= (_SURE_FRAMES if self._island else _LIKELY_FRAMES):
            yield from self._open_turn()

    def _open_turn(self) -> Iterator[Happening]:
        yield from self._end_transcript()
        self._turn = _Turn(self._number, self._number)
        self._turn_opened = self._number
        yield TurnOpened(self._users_frames[0].start_ms)
        if self._island or self._dropped_until_quiet:
            self._drop(1)
        if self._island:
            self._island = None
            yield IslandClosed(was_interrupted=True)
        yield from self._add_turn_text()

    def _go_on_turn(self, frame: Heard) -> Iterator[Happening]:
        assert self._turn
        self._users_frames.append(frame)
        yield from self._add_turn_text()
        if frame.floor in ("user", "agent_backchannel"):
            self._turn.last_held = frame.number
        elif frame.floor == "agent" or frame.number - self._turn.last_held >= _SURE_FRAMES:
            yield from self._close_turn()

    def _close_turn(self) -> Iterator[Happening]:
        assert self._turn
        self._turn.is_open = False
        yield TurnClosed((self._turn.last_held + 1) * FRAME_MS)

    def _hear_late_words(self) -> Iterator[Happening]:
        """No turn is open: what is heard belongs to the last one, or to none."""
        if self._turn is None:
            self._users_frames.clear()
            return
        yield from self._add_turn_text()
        if self._number - max(self._turn.last_held, self._turn.last_text) >= _QUIET_FRAMES:
            yield from self._end_transcript()

    def _add_turn_text(self) -> Iterator[Happening]:
        """Gives the turn the words of the caller's frames that nobody has had yet."""
        assert self._turn
        for frame in self._users_frames:
            if frame.user_text:
                self._turn.text.append(frame.user_text)
                self._turn.last_text = frame.number
                yield TurnText(frame.user_text)
        self._users_frames.clear()

    def _end_transcript(self) -> Iterator[Happening]:
        if self._turn:
            transcript = "".join(self._turn.text)
            self._turn = None
            yield TurnTranscribed(transcript)

    def _hear_agent(self, frame: Heard) -> Iterator[Happening]:
        if self._is_dropped(frame):
            return
        if self._island:
            yield from self._go_on_island(frame)
            return
        if frame.floor == "agent_backchannel":
            self._held.clear()
            return
        if self._held or frame.is_voiced or frame.agent_text:
            self._held.append(frame)
        if self._held and self._may_open(frame):
            yield from self._open_island()

    def _may_open(self, frame: Heard) -> bool:
        is_free = self.may_answer and not (self.is_turn_open and frame.floor == "user")
        return is_free or len(self._held) >= _HELD_FRAMES

    def _open_island(self) -> Iterator[Happening]:
        if self.is_turn_open:
            yield from self._close_turn()
        first = self._held[0]
        self._island = _Island(first.number, first.number)
        yield IslandOpened(first.start_ms)
        for frame in self._held:
            yield from self._go_on_island(frame)
        self._held.clear()

    def _go_on_island(self, frame: Heard) -> Iterator[Happening]:
        island = self._island
        assert island
        if frame.agent_text:
            island.last_text = frame.number
            yield IslandText(frame.agent_text)
        if frame.is_voiced:
            island.last_voiced = frame.number
            island.is_voiced = True
        if island.is_voiced:
            yield IslandAudio(frame.audio)
        is_quiet = frame.number - island.last_voiced >= _QUIET_FRAMES
        if is_quiet and frame.number - island.last_text >= _LEAD_FRAMES:
            self._island = None
            yield IslandClosed(was_interrupted=False)

    def _drop(self, until_quiet: int) -> None:
        self._dropped_until_quiet, self._quiet_frames = until_quiet, 0
        self._held.clear()

    def _is_dropped(self, frame: Heard) -> bool:
        """Whether the frame is of an island that was interrupted or cancelled."""
        if not self._dropped_until_quiet:
            return False
        is_quiet = not (frame.is_voiced or frame.agent_text)
        self._quiet_frames = self._quiet_frames + 1 if is_quiet else 0
        if self._quiet_frames >= self._dropped_until_quiet:
            self._dropped_until_quiet = 0
        return True
