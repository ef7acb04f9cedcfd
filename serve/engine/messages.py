"""What goes between a gateway and the engine's process: one struct a message, as msgpack.

A gateway says `Hello` and is answered by one; the rest are about its sessions.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

VERSION = 4  # of the messages; both sides must have the same


class Hello(msgspec.Struct, tag=True, frozen=True):
    """The first message of either side: the `version` that it speaks."""

    version: int


class Open(msgspec.Struct, tag=True, frozen=True):
    """A new caller: his agent's role, its tools (`name`, `description`, `parameters`), and the
    seed of all that is drawn for him. `traceparent` (W3C Trace Context) is the span that his is
    below. Before his first frame it may be said again, with another role and other tools."""

    session: str
    system: str
    tools: list[dict[str, Any]]
    seed: int = 0
    traceparent: str = ""


class Frame(msgspec.Struct, tag=True, frozen=True):
    """80 ms of a caller: `pcm` holds 1920 samples at 24 kHz, int16 little-endian; `number` counts
    his frames from 0. `sent_s` is when it was sent (`time.monotonic`), by a gateway on the engine's
    own machine; else its arrival is when the engine reads it, between two rounds."""

    session: str
    number: int
    pcm: bytes
    sent_s: float = 0.0


class Result(msgspec.Struct, tag=True, frozen=True):
    """What call `call` of a session has brought. It is taken in once frame `after` was heard: where
    that is the last one sent before it, whoever says the same again has the same again."""

    session: str
    call: int
    result: dict[str, Any]
    after: int = -1


class Tell(msgspec.Struct, tag=True, frozen=True):
    """What a session's agent is to know from now on, as a part of its role; where `tools` is not
    None, those that it has from now on. It is taken in when a `Result` would be."""

    session: str
    system: str
    tools: list[dict[str, Any]] | None = None
    after: int = -1


class Resume(msgspec.Struct, tag=True, frozen=True):
    """A caller who was saved, here or by another engine of the same model: the tools that he had
    then, and the `state` of a `Saved` with all that came since."""

    session: str
    tools: list[dict[str, Any]]
    states: list[bytes]
    traceparent: str = ""


class Close(msgspec.Struct, tag=True, frozen=True):
    """A caller who is gone."""

    session: str


class Opened(msgspec.Struct, tag=True, frozen=True):
    """A caller who is in: his frames may come, from the one behind `number` on."""

    session: str
    number: int = -1


class Saved(msgspec.Struct, tag=True, frozen=True):
    """All of a session once frame `number` had been heard and so many results and tellings
    `taken`; where `since` is not -1, what is new since it was saved at that frame."""

    session: str
    number: int
    since: int
    taken: int
    state: bytes


class Refused(msgspec.Struct, tag=True, frozen=True):
    """A message that was not taken. `retry_after_s` is 0 where trying again helps nothing."""

    session: str
    code: Literal[
        "at_capacity", "session_exists", "no_session", "bad_message", "bad_version", "queue_full"
    ]
    message: str
    retry_after_s: float = 0.0


class Heard(msgspec.Struct, tag=True, frozen=True):
    """What came of frame `number`: the agent's sound as in `Frame`, text of both sides (a token
    each, mostly empty), who holds the floor, how long after its arrival, whether that is late."""

    session: str
    number: int
    pcm: bytes
    agent_text: str
    user_text: str
    floor: int
    latency_s: float
    is_late: bool


class Acted(msgspec.Struct, tag=True, frozen=True):
    """An action that was `opened` or `made` after frame `number`; the rest is as in
    model.action_session.ActionEvent."""

    session: str
    number: int
    kind: Literal["opened", "made"]
    call: int
    action: str
    tool: str
    arguments: Mapping[str, Any]
    confidence: float
    revises: int = 0


class Closed(msgspec.Struct, tag=True, frozen=True):
    """A session that the engine has ended by itself: nothing came, or its process ends."""

    session: str
    reason: Literal["no_frames", "engine_ends"]


Command = Hello | Open | Resume | Frame | Result | Tell | Close
Reply = Hello | Opened | Saved | Refused | Heard | Acted | Closed
