"""The caller of the examples: says a recording at its real pace, keeps what it hears, tells what
happens as one JSON object a line. The clients themselves are in the files beside it.

    python serve/examples/openai_live.py http://127.0.0.1:8000 data/calls/demo.flac heard.wav
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import soundfile
import soxr

API_KEY = os.environ.get("DUOLOGUE_API_KEY", "none")
CHUNK_MS = 20
TAIL_S = 2.0  # of silence after the recording, for the agent to finish in
VOICED = 0.003  # root mean square of what is more than silence
PAUSE_S = 0.5  # a longer one ends what the agent says; a shorter one may be the network's

# The tool as JSON Schema, where a client's library does not write it from the function.
ORDER_STATUS = {
    "type": "function",
    "name": "order_status",
    "description": "Looks up where an order is.",
    "parameters": {
        "type": "object",
        "properties": {"order_id": {"type": "string"}},
        "required": ["order_id"],
    },
}
INSTRUCTIONS = "You answer calls of a shop. Look orders up before you speak about them."


class Caller:
    """Recording and result are files of `soundfile`'s; `says_hz` and `hears_hz` are the rates of
    PCM16 that the client takes and gives."""

    def __init__(self, recording: str, heard: str, says_hz: int = 24_000, hears_hz: int = 24_000):
        samples, rate_hz = soundfile.read(recording, dtype="float32")
        samples = np.append(samples, np.zeros(int(TAIL_S * rate_hz), np.float32))
        samples = soxr.resample(samples, rate_hz, says_hz)
        self._recording = (samples * 32_767).astype("<i2").tobytes()
        self._says_hz, self._hears_hz = says_hz, hears_hz
        self._heard_path, self._heard = heard, bytearray()
        self._began_s = 0.0
        self._spoken: list[list[float]] = []

    @property
    def now_s(self) -> float:
        """Of the call, since the recording began."""
        return time.monotonic() - self._began_s if self._began_s else 0.0

    def tell(self, event: str, **details: Any) -> None:
        """Prints what has happened, and when in the call."""
        print(json.dumps({"event": event, "at_s": round(self.now_s, 3), **details}), flush=True)

    async def says(self) -> AsyncIterator[bytes]:
        """The recording, 20 ms at a time, each when a microphone would have it."""
        self._began_s = time.monotonic()
        size = 2 * self._says_hz * CHUNK_MS // 1000
        for number, start in enumerate(range(0, len(self._recording), size), 1):
            await asyncio.sleep(number * CHUNK_MS / 1000 - self.now_s)
            yield self._recording[start : start + size].ljust(size, b"\0")

    def hears(self, audio: bytes) -> None:
        """Takes PCM16 of the agent's, as it comes in."""
        pause = int(self.now_s * self._hears_hz) - len(self._heard) // 2
        if pause > PAUSE_S * self._hears_hz:
            self._heard.extend(bytes(2 * pause))
        start_s = len(self._heard) / 2 / self._hears_hz
        self._heard.extend(audio)
        samples = np.frombuffer(audio, "<i2") / 32_768
        if np.sqrt(np.mean(samples**2)) < VOICED:
            return
        if not self._spoken or start_s - self._spoken[-1][1] > PAUSE_S:
            self._spoken.append([start_s, start_s])
            self.tell("agent_speaks")
        self._spoken[-1][1] = start_s + len(samples) / self._hears_hz

    def order_status(self, order_id: str) -> str:
        """Where an order is, as JSON: the tool that the agent calls."""
        self.tell("tool_call", name="order_status", arguments={"order_id": order_id})
        result = json.dumps({"order_id": order_id, "status": "shipped"})
        self.tell("result_sent", output=result)
        return result

    def hangs_up(self) -> None:
        """Keeps what was heard in a file, and tells when (in seconds) the agent spoke."""
        soundfile.write(self._heard_path, np.frombuffer(self._heard, "<i2"), self._hears_hz)
        spoken = [[round(second, 3) for second in span] for span in self._spoken]
        self.tell("heard", seconds=round(sum(end - start for start, end in spoken), 3), when=spoken)
        self.tell("closed")


def websocket_url(url: str) -> str:
    """The server's URL for clients that ask for a WebSocket's: http becomes ws."""
    return "ws" + url.removeprefix("http")


def arguments(*more: str) -> list[str]:
    """Of the command line: the server's URL, the recording, where to keep what is heard, `more`."""
    names = ["URL", "RECORDING", "HEARD.wav", *more]
    if len(sys.argv) != len(names) + 1:
        sys.exit(f"usage: python {sys.argv[0]} {' '.join(names)}")
    return sys.argv[1:]
