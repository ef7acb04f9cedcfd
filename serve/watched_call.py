"""Holds a call with a running server, at the pace of speech, and watches it as operators do.

The sound goes in over OpenAI Realtime; what came of every frame is told by the operators' feed
(docs/protocol.md), so the conversation is known to the frame, as in a call without a server.
"""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from data.dialogue import AGENT, USER
from data.scripts.domain import HANDOFF
from data.voices.utterance import Word
from model.frame import FLOORS, FRAME_S, FRAME_SIZE
from train.conversation import Conversation, Event

_WAIT_S = 10.0  # for an answer of the server's
_ATTEMPTS = 10  # to be let in
_LARGEST = 2**15
_UNMADE = {"draft", "cancelled"}  # states in which nothing is known of a call, or nobody wants it


class Caller(Protocol):
    """Who speaks."""

    def next_frame(self, heard: list[NDArray[np.float32]]) -> NDArray[np.float32] | None:
        """80 ms of his, float32 [1920], after what he has `heard` of the agent; None: he hangs
        up."""
        ...


class Onlooker(Protocol):
    """Who is told what happens, as it does."""

    def said(self, time_s: float, agent_text: str, caller_text: str, floor: str) -> None:
        """A frame: what was written of both sides (mostly nothing), and who holds the floor."""
        ...

    def happened(self, event: Event) -> None:
        """A call, its result, or a hand-off."""
        ...


@dataclass
class WatchedCall:
    """One call and what the feed has told of it. `sent_s` and `answered_s` are when each frame went
    off and when its answer was there, on the monotonic clock; `load` is what the server last said
    of itself."""

    name: str
    onlooker: Onlooker
    frames: list[Mapping[str, Any]] = field(default_factory=list)
    heard: list[NDArray[np.float32]] = field(default_factory=list)  # of the agent
    events: list[Event] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)
    load: Mapping[str, Any] = field(default_factory=dict)
    ended: str = ""
    _numbers: dict[str, int] = field(default_factory=dict)  # of calls, by their ids
    _calls: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # as they are now

    def told(self, message: Mapping[str, Any]) -> None:
        """Takes a message of the feed's."""
        match message["type"]:
            case "frame":
                self._frame(message)
            case "tool.call":
                self._call(message)
            case "tool.result":
                call = self._calls[message["call_id"]]
                number, result = self._numbers[message["call_id"]], call["result"] or {}
                self._happened(message, "result", number, "result", call["tool"], result)
            case "handoff.requested":
                about = {"reason": message["reason"]}
                self._happened(message, "made", 0, "handoff", HANDOFF, about)
            case "load":
                self.load = message
            case "session.ended":
                self.ended = message["reason"]

    def running(self) -> dict[int, str]:
        """The ids of the calls that the client is to run, by their numbers."""
        return {
            self._numbers[name]: name
            for name, call in self._calls.items()
            if call["state"] == "running" and call["is_client_run"]
        }

    def conversation(self) -> Conversation:
        """All of it. The agent's frame is heard while the caller's next one is."""
        audio = np.zeros((2, len(self.frames) * FRAME_SIZE), np.float32)
        audio[AGENT, FRAME_SIZE:] = np.concatenate(self.heard)[:-FRAME_SIZE]
        audio[USER] = np.concatenate([_sound(frame["caller"]) for frame in self.frames])
        words = tuple(
            _words([str(frame[text]) for frame in self.frames])
            for text in ("agent_text", "caller_text")
        )
        floor = np.array([FLOORS.index(frame["floor"]) for frame in self.frames], np.uint8)
        return Conversation(self.name, audio, (words[0], words[1]), floor, (*self.events,))

    def _frame(self, frame: Mapping[str, Any]) -> None:
        self.answered_s.append(time.monotonic())
        self.frames.append(frame)
        self.heard.append(_sound(frame["agent"]))
        texts = (frame["agent_text"], frame["caller_text"])
        self.onlooker.said(len(self.frames) * FRAME_S, *texts, frame["floor"])

    def _call(self, call: Mapping[str, Any]) -> None:
        name, state = call["call_id"], call["state"]
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        before = self._calls[name]["state"] if name in self._calls else ""
        self._calls[name] = call
        action = "revise" if call["supersedes"] else "call"
        about = (number, action, call["tool"], call["arguments"])
        if not before:
            self._happened(call, "opened", *about)
        is_new = before in ("", "draft")
        if is_new and state not in _UNMADE:
            self._happened(call, "made", *about, confidence=call["confidence"])
        if state == "cancelled" and not is_new:
            self._happened(call, "made", number, "cancel", call["tool"], {})
        if before == "awaiting_confirmation" and state == "running":
            self._happened(call, "made", number, "confirm", call["tool"], {})

    def _happened(
        self,
        message: Mapping[str, Any],
        kind: Any,
        number: int,
        action: str,
        tool: str,
        arguments: Mapping[str, Any],
        confidence: float | None = None,
    ) -> None:
        time_s = message["at_ms"] / 1000 + FRAME_S  # when that frame had been heard
        event = Event(time_s, kind, number, action, tool, arguments, confidence)
        self.events.append(event)
        self.onlooker.happened(event)


async def hold(
    url: str,
    caller: Caller,
    session: Mapping[str, Any],
    name: str,
    onlooker: Onlooker,
    results: Callable[[WatchedCall], list[tuple[str, Mapping[str, Any]]]] = lambda _: [],
) -> WatchedCall:
    """A call with the server at `url` (`http://127.0.0.1:8000`), whose `session` is set as Realtime
    has it. Where this client runs tools, `results` gives what they brought since it was last asked,
    by the ids of their calls.

    Raises RuntimeError where the server ends it, does not answer, or goes on to refuse it.
    """
    watched = WatchedCall(name, onlooker)
    address = "ws" + url.removeprefix("http")
    async with await _let_in(f"{address}/v1/realtime") as socket:
        created = await _until(socket, "session.created")
        session_id = created["session"]["id"]
        if session:
            await _send(socket, type="session.update", session={"type": "realtime", **session})
            await _until(socket, "session.updated")
        async with connect(f"{address}/console/feed", max_size=None) as feed:
            await _send(feed, type="watch", session_id=session_id)
            await (await feed.ping())  # it has come: from the first frame on, all are told
            listening = asyncio.create_task(_listen(feed, session_id, watched.told))
            reading = asyncio.create_task(_pass_over(socket))
            try:
                await _talk(socket, caller, watched, results)
            finally:
                reading.cancel()
            await socket.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(listening, _WAIT_S)
    return watched


async def _let_in(address: str) -> ClientConnection:
    """Tries again where the server says when."""
    for _ in range(_ATTEMPTS):
        try:
            return await connect(address, max_size=None)
        except InvalidStatus as refused:
            why = refused.response
            if "Retry-After" not in why.headers:
                break
            await asyncio.sleep(float(why.headers["Retry-After"]))
    raise RuntimeError(f"the server refuses: {(why.body or b'').decode()}")


async def _talk(
    socket: ClientConnection,
    caller: Caller,
    watched: WatchedCall,
    results: Callable[[WatchedCall], list[tuple[str, Mapping[str, Any]]]],
) -> None:
    """Frames of his, each when it has been spoken, until he hangs up and all are answered."""
    begun_s, number = time.monotonic(), 0
    while (pcm := caller.next_frame(watched.heard)) is not None:
        number += 1
        await asyncio.sleep(max(0.0, begun_s + FRAME_S * number - time.monotonic()))
        if watched.ended:
            raise RuntimeError(f"the server has ended the call: {watched.ended}")
        watched.sent_s.append(time.monotonic())
        sound = (pcm.clip(-1, 1) * (_LARGEST - 1)).astype("<i2").tobytes()
        await _send(
            socket, type="input_audio_buffer.append", audio=base64.b64encode(sound).decode()
        )
        for call_id, result in results(watched):
            item = {"type": "function_call_output", "call_id": call_id}
            item["output"] = json.dumps(dict(result))
            await _send(socket, type="conversation.item.create", item=item)
    ends_s = time.monotonic() + _WAIT_S
    while len(watched.frames) < number:
        if time.monotonic() > ends_s:
            raise RuntimeError(f"{number - len(watched.frames)} frames are not answered")
        await asyncio.sleep(FRAME_S)


async def _listen(
    feed: ClientConnection, session_id: str, told: Callable[[Mapping[str, Any]], None]
) -> None:
    """Until the session has ended."""
    async for text in feed:
        message = json.loads(text)
        if message["type"] == "load" or message.get("session_id") == session_id:
            told(message)
            if message["type"] == "session.ended":
                return


async def _pass_over(socket: ClientConnection) -> None:
    async for _ in socket:
        pass


async def _send(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def _until(socket: ClientConnection, kind: str) -> Mapping[str, Any]:
    async with asyncio.timeout(_WAIT_S):
        while (message := json.loads(await socket.recv()))["type"] != kind:
            if message["type"] == "error":
                raise RuntimeError(f"the server says: {message['error']['message']}")
    return message


def _words(texts: Sequence[str]) -> tuple[Word, ...]:
    """What was written in each frame (mostly nothing) as words, at times as `words_of` has them."""
    words: list[Word] = []
    for frame, text in enumerate(texts):
        end_s = (frame + 2) * FRAME_S
        if words and text and not text.startswith(" "):
            words[-1] = words[-1]._replace(text=words[-1].text + text, end_s=end_s)
        elif text:
            words.append(Word(text.strip(), (frame + 1) * FRAME_S, end_s))
    return tuple(word for word in words if word.text)


def _sound(encoded: str) -> NDArray[np.float32]:
    """float32 [1920] of a frame as the feed has it."""
    samples = np.frombuffer(base64.b64decode(encoded), "<i2").astype(np.float32)
    return samples / np.float32(_LARGEST)
