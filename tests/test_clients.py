"""The clients people already have, unmodified, hold a call with the real server: the examples of
serve/examples, in an environment of their own. `make test-clients` makes it and runs this.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scripted_server import scripted_server
from test_tool_calls import front_desk

PYTHON = os.environ.get("CLIENTS_PYTHON", "")
EXAMPLES = Path(__file__).parent.parent / "serve" / "examples"
# What the caller says, in seconds: a tone is speech to the scripted agent.
SPEECH, BARGE_IN, LENGTH = (1.0, 3.0), (4.0, 4.8), 5.0
LATEST = 5.2  # the agent has stopped by then; uninterrupted it would speak until 5.5 at least

pytestmark = pytest.mark.skipif(not PYTHON, reason="needs the clients: make test-clients")


@dataclass(frozen=True)
class Example:
    """A script and its first arguments. Some wires have neither the agent's text nor tools, and
    some do not tell of an interruption: the agent just stops."""

    script: str
    arguments: tuple[str, ...] = ()
    has_tools: bool = True
    has_text: bool = True
    tells_interruption: bool = True


CALLS = {
    "openai-python-realtime": Example("openai_realtime.py"),
    "openai-python-live": Example("openai_live.py", tells_interruption=False),
    "openai-node-live": Example("node/openai_live.mjs", tells_interruption=False),
    "openai-agents-python": Example("openai_agents.py"),
    "openai-agents-node": Example("node/openai_agents_realtime.mjs"),
    "pipecat-realtime": Example("pipecat_bot.py", ("realtime",)),
    "pipecat-live": Example("pipecat_bot.py", ("live",), tells_interruption=False),
    "livekit-realtime": Example("livekit_agent.py", ("realtime",)),
    "livekit-live": Example("livekit_agent.py", ("live",), tells_interruption=False),
    "smallestai-hydra": Example("smallestai_hydra.py", has_text=False),
    "twilio-pipecat": Example("twilio_replay.py", has_tools=False, has_text=False),
    "webrtc-aiortc": Example("webrtc.py"),
    "webrtc-browser": Example("node/browser_webrtc.mjs"),
}


@dataclass
class Call:
    """What an example told, line by line, and what it heard."""

    example: Example
    code: int
    errors: str
    events: list[dict[str, Any]]
    heard: Path
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = [event["event"] for event in self.events]

    def first(self, name: str) -> dict[str, Any]:
        return self.events[self.names.index(name)]

    @property
    def spoken(self) -> list[tuple[float, float]]:
        """From when to when the agent spoke, since the caller did. Before that the scripted agent
        may have remarked that it was told what its tools are, where audio came first."""
        return [(start, end) for start, end in self.first("heard")["when"] if start > SPEECH[0]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with scripted_server() as url:
        yield url


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    time_s = np.arange(int(LENGTH * 24_000)) / 24_000
    is_loud = sum((start <= time_s) & (time_s < end) for start, end in (SPEECH, BARGE_IN))
    path = tmp_path_factory.mktemp("clients") / "recording.wav"
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 220 * time_s) * is_loud, 24_000, "PCM_16")
    return path


@pytest.fixture(scope="module", params=CALLS)
def call(request: pytest.FixtureRequest, server: str, recording: Path) -> Call:
    return held(CALLS[request.param], server, recording, request.param)


def held(example: Example, server: str, recording: Path, name: str) -> Call:
    heard = recording.with_name(f"{name}.wav")
    path = EXAMPLES / example.script
    runtime = PYTHON if path.suffix == ".py" else str(Path(PYTHON).with_name("node"))
    command = [runtime, str(path), *example.arguments, server, str(recording), str(heard)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert events, done.stderr
    return Call(example, done.returncode, done.stderr, events, heard)


def test_a_call_begins_and_ends(call: Call) -> None:
    assert not call.code, call.errors
    assert "error" not in call.names, call.first("error")
    assert (call.names[0], call.names[-1]) == ("connected", "closed")


def test_a_tool_runs_while_the_caller_speaks(call: Call) -> None:
    if not call.example.has_tools:
        pytest.skip("Twilio runs no tools")
    assert call.names.count("tool_call") == 1
    made = call.first("tool_call")
    assert made["arguments"] == {"order_id": "48192"}
    assert SPEECH[0] < made["at_s"] < SPEECH[1]


def test_the_result_is_spoken_of(call: Call) -> None:
    start_s = call.spoken[0][0]
    assert SPEECH[1] - 0.2 < start_s < BARGE_IN[0]  # once the caller is silent
    if call.example.has_tools:
        assert call.names.index("result_sent") < call.names.index("agent_speaks")
    if call.example.has_text:
        said = "".join(event["text"] for event in call.events if event["event"] == "agent_text")
        assert " your order has shipped" in said


def test_the_agent_is_heard(call: Call) -> None:
    samples, rate_hz = soundfile.read(call.heard)
    start_s, end_s = call.spoken[0]
    samples = samples[int((start_s + 0.2) * rate_hz) : int((end_s - 0.2) * rate_hz)]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.fft.rfftfreq(len(samples), 1 / rate_hz)[spectrum.argmax()] == pytest.approx(
        440, abs=10
    )
    level = [np.sqrt(np.mean(part**2)) for part in np.array_split(samples, 20)]
    assert level == pytest.approx([0.2 / np.sqrt(2)] * 20, rel=0.15)  # the tone's all along


def test_the_caller_takes_the_floor(call: Call) -> None:
    assert len(call.spoken) == 1
    assert BARGE_IN[0] < call.spoken[0][1] < LATEST
    if call.example.tells_interruption:
        at_s = [event["at_s"] for event in call.events if event["event"] == "interrupted"]
        assert any(BARGE_IN[0] < moment < LATEST for moment in at_s)


def test_an_agents_client_uses_and_confirms_what_the_server_runs(
    tmp_path: Path, recording: Path
) -> None:
    example = Example("node/openai_agents_server_tools.mjs")
    with front_desk(tmp_path) as url:
        call = held(example, url, recording, "server-tools")
    assert not call.code, call.errors
    assert "error" not in call.names, call.first("error")
    assert call.first("tools")["names"] == ["order_status"]
    assert call.names.index("asked") < call.names.index("tool_call")
    assert json.loads(call.first("tool_call")["output"])["order_id"] == "48192"
    assert "agent_speaks" in call.names  # of what it has brought
