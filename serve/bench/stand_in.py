"""`python -m serve.bench.stand_in ADDRESS SLOTS KIND`: an engine without a model, which answers
each frame at once, so that what is measured in front of it is the gateway.

An `echo` says what it hears. A `script` has the floor now and then, speaks, and calls a tool; the
first samples of each answer say to which frame of `numbered` sound, when that came and when the
answer went (`stamp_of`).
"""

import struct
import sys
import time
from typing import NamedTuple

import msgspec
import numpy as np
import zmq

from model.frame import AGENTS, FRAME_SIZE, NOBODY, USERS
from serve.engine.messages import (
    Acted,
    Close,
    Command,
    Frame,
    Heard,
    Hello,
    Open,
    Opened,
    Refused,
    Reply,
    Resume,
)

LOOK_UP = "look_up"  # a tool that is told when its call was made
CALL_EACH = 25  # frames

_STAMP = struct.Struct("<idd")
_ROUND = 100  # frames; in them the agent has the floor, then the caller, then nobody
_AGENTS, _USERS = 70, 85
_VOICE = (np.sin(np.arange(FRAME_SIZE) / 5) * 8000).astype("<i2")
_QUIET = np.zeros(FRAME_SIZE, "<i2")


class Stamp(NamedTuple):
    """Of a frame: when it came to the engine and when its answer went (`time.monotonic`). `number`
    is what the frame itself says, 0 of one that the gateway has filled up."""

    number: int
    came_s: float
    went_s: float


def numbered(frames: int) -> bytes:
    """So much of a caller at 24 kHz, who says no more than the number of each frame."""
    sound = np.zeros((frames, FRAME_SIZE), "<i2")
    sound[:, 0] = np.arange(frames)
    return sound.tobytes()


def stamp_of(pcm: bytes) -> Stamp:
    """What a frame of a `script` says, at 24 kHz."""
    return Stamp(*_STAMP.unpack(np.frombuffer(pcm, "<i2", _STAMP.size).astype(np.uint8).tobytes()))


def main(address: str, slots: int, kind: str) -> None:
    """Until it is killed."""
    tools: dict[tuple[bytes, str], str] = {}  # of each session the first tool, or ""
    encode, decoder = msgspec.msgpack.encode, msgspec.msgpack.Decoder(Command)
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.set_hwm(0)
    socket.bind(address)
    print(address, flush=True)
    while True:
        gateway, packed = socket.recv_multipart()
        came_s = time.monotonic()
        command = decoder.decode(packed)
        replies: list[Reply] = []
        match command:
            case Hello():
                replies = [command]
            case Open(session=name) | Resume(session=name):
                if (gateway, name) in tools or len(tools) < slots:
                    tools[gateway, name] = str(command.tools[0]["name"]) if command.tools else ""
                    replies = [Opened(name)]
                else:
                    replies = [Refused(name, "at_capacity", "all slots are taken", 1.0)]
            case Close(session=name):
                tools.pop((gateway, name), None)
            case Frame(session=name) if kind == "echo":
                replies = [_heard(command, command.pcm, AGENTS)]
            case Frame(session=name):
                replies = _scripted(command, tools.get((gateway, name), ""), came_s)
        for reply in replies:
            socket.send_multipart([gateway, encode(reply)])


def _scripted(frame: Frame, tool: str, came_s: float) -> list[Reply]:
    place = frame.number % _ROUND
    floor = AGENTS if place < _AGENTS else USERS if place < _USERS else NOBODY
    pcm = (_VOICE if floor == AGENTS else _QUIET).copy()
    number = int(np.frombuffer(frame.pcm, "<i2", 1)[0])
    stamp = _STAMP.pack(number, came_s, time.monotonic())
    pcm[: len(stamp)] = np.frombuffer(stamp, np.uint8)  # too faint to be a voice
    texts = ("word " * (floor == AGENTS), "word " * (floor == USERS))
    heard = _heard(frame, pcm.tobytes(), floor, *texts)
    if not tool or frame.number % CALL_EACH:
        return [heard]
    call = 1 + frame.number // CALL_EACH
    opened = Acted(frame.session, frame.number, "opened", call, "call", "", {}, 0.9)
    given = {"made_s": time.monotonic()} if tool == LOOK_UP else {}
    made = msgspec.structs.replace(opened, kind="made", tool=tool, arguments=given)
    return [heard, opened, made]


def _heard(
    frame: Frame, pcm: bytes, floor: int, agent_text: str = "", user_text: str = ""
) -> Heard:
    return Heard(frame.session, frame.number, pcm, agent_text, user_text, floor, 0.0, False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
