"""The demo's caller, what is made of his call, and calls that are held live, at a real server."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scripted_server import scripted_server
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from data.dialogue import AGENT, USER, Action
from data.scripts.backend import Backend
from data.scripts.domain import load_domain
from data.voices.utterance import SAMPLE_RATE_HZ, Utterance, Word
from model.frame import FRAME_S, FRAME_SIZE
from serve import watched_call
from serve.demo.figures import line_figures, table
from serve.demo.screen import Screen
from serve.demo.script import CallScript, Line, ScriptedCaller, read_script
from train.conversation import Conversation, Event
from train.scoring.dialogue_loop import Caller
from train.scoring.live_loop import converse_live

ROOT = Path(__file__).parents[1]
LOUD, QUIET = np.full(FRAME_SIZE, 0.1, np.float32), np.zeros(FRAME_SIZE, np.float32)
VOICE = "flite:awb"
ASKS = Line(
    "order", "order one two.", calls="order_status", arguments={"order_id": "12"}, after="two"
)
POLICY = """
tools:
  order_status: {effect: read, confirmation: none, timeout_s: 30}
  book_demo: {effect: write, confirmation: voice, timeout_s: 30}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    policy = tmp_path_factory.mktemp("demo") / "policy.yaml"
    policy.write_text(POLICY)
    with scripted_server(f"tools.policy={policy}") as url:
        yield url


def test_the_caller_waits_for_his_moment_and_interrupts_when_told() -> None:
    lines = [Line("first", "hello."), Line("over", "stop.", over_s=0.4), Line("last", "bye.")]
    caller, heard = ScriptedCaller(CallScript(VOICE, lines)), []
    said: list[bool] = []

    def hears(frame: np.ndarray, frames: int) -> None:
        for _ in range(frames):
            pcm = caller.next_frame(heard)
            assert pcm is not None
            said.append(bool(np.abs(pcm).max() > 0.01))
            heard.append(frame)

    hears(LOUD, 20)
    assert not any(said)  # the agent has not ended
    hears(QUIET, 40)
    assert caller.begun_s == [pytest.approx(FRAME_S * (20 + 12))]
    hears(LOUD, 20)  # he lets it speak for five frames
    assert caller.begun_s[1] == pytest.approx(FRAME_S * (60 + 5))
    hears(LOUD, 20)
    assert len(caller.begun_s) == 2
    hears(QUIET, 30)
    assert len(caller.begun_s) == 3
    hears(LOUD, 5)
    for _ in range(11):
        assert caller.next_frame(heard) is not None
        heard.append(QUIET)
    heard.append(QUIET)
    assert caller.next_frame(heard) is None  # he has had his answer


def test_a_caller_who_is_not_answered_goes_on_after_ten_seconds() -> None:
    caller, heard = ScriptedCaller(CallScript(VOICE, [Line("first", "hello.")])), []
    for _ in range(300):
        if caller.next_frame(heard) is None:
            break
        heard.append(QUIET)
    assert caller.begun_s == [pytest.approx(125 * FRAME_S)]
    assert 2 * 125 < len(heard) < 300


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("voice: a\nlines: [{about: x, say: hello, after: bye, calls: faq}]", "after is 'bye'"),
        ("voice: a\nlines: [{about: x, say: hello, calls: faq}]", "must be given together"),
        ("voice: a\nlines: [{about: x, sya: hello}]", "no script of a call"),
        ("- a", "no script of a call"),
    ],
)
def test_a_script_that_is_none_says_why(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "call.yaml").write_text(text)
    with pytest.raises(ValueError, match=error):
        read_script(tmp_path / "call.yaml")


def test_the_shipped_script_names_calls_of_the_front_desk() -> None:
    script, tools = (
        read_script(ROOT / "data/calls/front_desk.yaml"),
        load_domain("front_desk").tools,
    )
    assert {*(line.calls for line in script.lines)} - {""} <= {*tools}
    assert any(line.over_s for line in script.lines)
    assert any(line.style == "urgent" for line in script.lines)


def test_figures_of_a_line_are_those_of_its_call() -> None:
    caller = ScriptedCaller(CallScript(VOICE, [ASKS, Line("stop", "wait.", over_s=0.2)]))
    words = (Word("order", 0.0, 0.4), Word("one", 0.4, 0.7), Word("two.", 0.7, 1.0))
    pcm = np.zeros(SAMPLE_RATE_HZ, np.float32)
    caller.spoken[0] = Utterance(ASKS.say, VOICE, pcm, (), words)
    caller.begun_s = [1.0, 4.0]
    audio = np.zeros((2, 6 * SAMPLE_RATE_HZ), np.float32)
    audio[AGENT, int(2.5 * SAMPLE_RATE_HZ) : int(4.3 * SAMPLE_RATE_HZ)] = 0.1
    events = (
        Event(1.5, "made", 1, "call", "order_status", {"order_id": "1"}),
        Event(1.8, "made", 2, "revise", "order_status", {"order_id": "12"}),
    )
    call = Conversation("call", audio, ((), ()), np.zeros(75, np.uint8), events)
    order, stop = line_figures(caller, call)
    assert order.is_right
    assert stop.is_right is None
    assert order.need_to_call_s == pytest.approx(-0.2)  # before its last word had ended
    assert order.early_s == pytest.approx(0.2)
    assert order.gap_s == pytest.approx(0.5, abs=0.03)
    assert stop.stop_s == pytest.approx(0.3, abs=0.03)
    assert "-200 ms" in table([order, stop])
    (wrong, _) = line_figures(caller, Conversation("call", audio, ((), ()), call.floor, events[:1]))
    assert wrong.is_right is False
    assert "NO" in table([wrong])


def test_the_screen_begins_a_line_for_whoever_speaks() -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.said(0.08, " hello", "", "agent")
    screen.said(0.16, " there", "", "agent")
    screen.said(0.24, "", " hi", "user")
    screen.happened(Event(0.3, "opened", 1, "call", "", {}))
    screen.happened(Event(0.4, "made", 1, "call", "faq", {"topic": "hours"}, 0.9))
    screen.said(0.48, " yes", "", "agent")
    lines = [line.split() for line in out.getvalue().splitlines() if line]
    assert lines == [
        ["0.08", "s", "floor:", "agent", "agent", "hello", "there"],
        ["0.24", "s", "floor:", "user", "caller", "hi"],
        ["0.40", "s", "floor:", "user", "tool", "call", "faq", '{"topic":', '"hours"}', "(0.90)"],
        ["0.48", "s", "floor:", "agent", "agent", "yes"],
    ]


def test_a_call_that_is_held_live_is_as_it_was(url: str) -> None:
    """Two at once: each has his own agent's doings, at their frames, and the results of his
    labels."""
    tools = [
        {"name": name, "description": name, "parameters": {"type": "object", "properties": {}}}
        for name in ("order_status", "book_demo")
    ]
    calls = [[10, "call", "order_status", {"order_id": "48192"}]]
    books = [[10, "call", "book_demo", {"person": "anna"}], [40, "confirm", 1]]
    audio = np.zeros(60 * FRAME_SIZE, np.float32)
    audio[20 * FRAME_SIZE : 30 * FRAME_SIZE] = 0.25
    callers = []
    for name, steps in (("one", calls), ("two", books)):
        call = Action(0.8, "call", 1, steps[0][2], steps[0][3])
        result = Action(1.0, "result", 1, steps[0][2], {"status": name})
        role = json.dumps({"script": steps})
        callers.append(Caller(name, audio, role, tools, (call, result), tail_s=0.0))
    held = [*converse_live(url, callers, 2, Backend(load_domain("front_desk")))]
    assert [caller.name for caller, _ in held] == ["one", "two"]
    one, two = (conversation for _, conversation in held)
    loud = np.flatnonzero(one.audio[USER].reshape(-1, FRAME_SIZE)[:, 0] > 0.2)
    assert len(loud) == 10  # all that he said; silence is heard where a busy machine sends late
    assert len(one.floor) >= 60
    assert [(e.kind, e.action) for e in one.events] == [
        ("opened", "call"), ("made", "call"), ("result", "result"),
    ]  # fmt: skip
    assert one.events[1].time_s == pytest.approx(10 * FRAME_S)
    assert one.events[2].arguments == {"status": "one"}
    assert [(e.kind, e.action) for e in two.events][:3] == [
        ("opened", "call"), ("made", "call"), ("made", "confirm"),
    ]  # fmt: skip
    assert two.events[2].time_s >= 40 * FRAME_S
    assert two.events[-1].arguments == {"status": "two"}
    assert np.flatnonzero(one.floor == 2).tolist() == loud.tolist()  # the caller's
    assert np.abs(one.audio[AGENT]).max() > 0.1  # the agent spoke of the result


def test_a_caller_who_is_refused_comes_again_when_he_is_told_to() -> None:
    waits = ["0", "0"]  # of the first two answers

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        response = connection.respond(503, "no room")
        if not waits:
            return response if request.path == "/full" else None
        response.headers["Retry-After"] = waits.pop()
        return response

    async def come() -> None:
        async def hear(socket: ServerConnection) -> None:
            await socket.send("hello")

        async with serve(hear, "127.0.0.1", 0, process_request=refuse) as server:
            at = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with await watched_call._let_in(at) as socket:
                assert await socket.recv() == "hello"
            with pytest.raises(RuntimeError, match="the server refuses: no room"):
                await watched_call._let_in(f"{at}/full")

    asyncio.run(come())
    assert not waits


def test_the_demo_leaves_a_call(url: str, tmp_path: Path) -> None:
    (tmp_path / "call.yaml").write_text(
        f"voice: {VOICE}\nlines: [{{about: order, say: 'where is my order?', over_s: 0}}]"
    )
    given = (f"url={url}", f"call={tmp_path}/call.yaml", f"out={tmp_path}/out", "headless=true")
    ended = demo(*given)
    assert ended.returncode == 0, ended.stderr
    assert "there and back" in ended.stdout
    sound, rate_hz = soundfile.read(tmp_path / "out/conversation.wav")
    assert rate_hz == SAMPLE_RATE_HZ
    assert np.abs(sound[:, 0]).max() > 0.1
    assert (tmp_path / "out/timeline.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out/events.jsonl").exists()


def test_the_demo_says_what_is_wrong(url: str, tmp_path: Path) -> None:
    port = url.rpartition(":")[2]
    ended = demo(f"port={port}", f"out={tmp_path}")
    assert ended.returncode == 1
    assert f"port is {port}: something serves there already" in ended.stderr
    ended = demo("call=nothing.yaml", f"out={tmp_path}")
    assert ended.returncode == 1
    assert "call is 'nothing.yaml'" in ended.stderr


def demo(*given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serve.demo", *given]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
