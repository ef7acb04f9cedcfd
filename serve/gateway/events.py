"""What passes between a session and the dialects that speak for it: one dataclass a message.

A dialect turns what a client sends into commands, and events into what the client is sent. Times
are on the session's own clock: frame `number` (from 0) is heard from `number * 80` ms on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from model.frame import FRAME_MS
from serve.gateway.audio import AudioFormat
from serve.tools.source import Declared
from serve.tools.told import Told


@dataclass(frozen=True)
class ServerTools:
    """Which tools of one of this server's sources an agent has: all, or those of some `names`; and
    for which of them the client is asked, whatever policy says (it may ask for more)."""

    source: str
    names: tuple[str, ...] | None = None
    only_reads: bool = False
    confirmed: tuple[str, ...] = ()
    confirms_all: bool = False

    def is_confirmed(self, tool: str) -> bool:
        """Whether the client is asked about a tool's calls."""
        return self.confirms_all or tool in self.confirmed


@dataclass(frozen=True)
class Settings:
    """What a session is set to: the agent's role, the tools that the client runs (each with `name`,
    `description`, `parameters` as JSON Schema), those that this server runs, and the sound each
    way. `voice` is what the client calls the agent's: models have one so far, so any name means
    that."""

    instructions: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    voice: str = "ava"
    input_format: AudioFormat = field(default_factory=AudioFormat)
    output_format: AudioFormat = field(default_factory=AudioFormat)
    server_tools: tuple[ServerTools, ...] | Literal["all"] = "all"


# Commands: what a client wants.


@dataclass(frozen=True)
class Configure:
    """Other settings; what is None stays. At any time, but formats only before any sound."""

    instructions: str | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    voice: str | None = None
    input_format: AudioFormat | None = None
    output_format: AudioFormat | None = None
    server_tools: tuple[ServerTools, ...] | Literal["all"] | None = None


@dataclass(frozen=True)
class Say:
    """Sound of the caller in the session's input format, as much as there is."""

    audio: bytes


@dataclass(frozen=True)
class Begin:
    """The line is open, whether the caller says anything or not: the agent may speak first. What
    is said begins it as well."""


@dataclass(frozen=True)
class ClearAudio:
    """What was said and not yet heard is to be forgotten."""


@dataclass(frozen=True)
class Mute:
    """Whether silence is to be heard instead of what is said."""

    is_muted: bool


@dataclass(frozen=True)
class Answer:
    """What a call has brought: `output` as the client wrote it, mostly JSON."""

    call_id: str
    output: str


@dataclass(frozen=True)
class Note:
    """Something that the agent is to know from now on: a message in writing, keys that were
    pressed, an instruction for this moment."""

    text: str


@dataclass(frozen=True)
class PressKey:
    """The caller has pressed a key of his telephone: 1 says yes to the call that waits for his
    word, 2 says no; of other keys the agent is told."""

    digit: str


@dataclass(frozen=True)
class Approve:
    """A yes to a call that waits for one, which counts as a key that the caller has pressed."""

    approval_id: str


@dataclass(frozen=True)
class Refuse:
    """A no to such a call."""

    approval_id: str


@dataclass(frozen=True)
class HangUp:
    """The client wants no more."""


Command = (
    Configure
    | Begin
    | Say
    | ClearAudio
    | Mute
    | Answer
    | Note
    | PressKey
    | Approve
    | Refuse
    | HangUp
)


# Events: what happens in a session.


@dataclass(frozen=True)
class Started:
    """The session is there and audio may come. The first event of all; `resume_token` lets its
    client come back to it on another socket. `server_tools` are those that this server runs for
    it, by their sources."""

    session_id: str
    settings: Settings
    resume_token: str
    server_tools: Mapping[str, tuple[Declared, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Configured:
    """The settings are these now."""

    settings: Settings


@dataclass(frozen=True)
class ServerToolsListed:
    """The tools that this server runs for the session are these now, by their sources."""

    server_tools: Mapping[str, tuple[Declared, ...]]


@dataclass(frozen=True)
class Heard:
    """A frame: `audio` is 80 ms of the agent in the session's output format, `is_voiced` whether
    there is anything in it; `agent_text` and `user_text` are what came of the texts of both (often
    nothing); `floor` who is being listened to. The agent's text comes up to half a second before
    its sound, the caller's after it."""

    number: int
    audio: bytes
    is_voiced: bool
    agent_text: str
    user_text: str
    floor: Literal["nobody", "agent", "user", "user_backchannel", "agent_backchannel"]

    @property
    def start_ms(self) -> int:
        """When it begins."""
        return self.number * FRAME_MS


@dataclass(frozen=True)
class CallMade:
    """A call that the client is to run now: `arguments` are valid under the tool's schema. Where it
    `supersedes` another one (its call_id, else ""), what that one brings is no longer wanted."""

    call_id: str
    number: int
    tool: str
    arguments: Mapping[str, Any]
    confidence: float
    supersedes: str = ""


@dataclass(frozen=True)
class CallCancelled:
    """Nobody wants what a call brings that the client was told to run."""

    call_id: str
    number: int


@dataclass(frozen=True)
class ToolEvent:
    """What the session's desk tells of any call, whoever runs it, without what policy redacts."""

    number: int
    told: Told


@dataclass(frozen=True)
class TakenOver:
    """From now on an `operator` speaks instead of the agent."""

    number: int
    operator: str


@dataclass(frozen=True)
class HandedBack:
    """The agent speaks again."""

    number: int
    operator: str


@dataclass(frozen=True)
class Problem:
    """A command was not done, or not all of it; the session goes on. `param` is the field that was
    wrong."""

    code: str
    message: str
    param: str = ""
    retry_after_s: float = 0.0


EndReason = Literal[
    "hang_up", "no_audio", "too_long", "too_slow", "server_ends", "engine_lost", "fault"
]


@dataclass(frozen=True)
class Ended:
    """Nothing comes after it."""

    reason: EndReason


Event = (
    Started
    | Configured
    | ServerToolsListed
    | Heard
    | CallMade
    | CallCancelled
    | ToolEvent
    | TakenOver
    | HandedBack
    | Problem
    | Ended
)
