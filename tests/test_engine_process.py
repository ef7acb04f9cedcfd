"""The engine's process: `python -m serve.engine`, with a tiny model of random weights."""

import contextlib
import gzip
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from fake_agent import FakeAgent
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from test_engine_endpoint import Gateway, frame
from tiny_duplex import TOOLS, tiny_duplex

from model.agent import Agent
from model.checkpoint import load_duplex, save_duplex
from model.ops import library, use_kernels
from serve.engine.engine import Engine, EngineConfig
from serve.engine.messages import VERSION, Acted, Closed, Frame, Heard, Hello, Open, Opened, Resume
from serve.engine.metrics import Metrics
from serve.engine.remembered import Remembered
from serve.engine.warm_up import warm_up
from train.bars import BARS

DASHBOARD = Path(__file__).parents[1] / "serve" / "grafana.json"


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "serve.engine", *overrides]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_duplex(tiny_duplex(), tmp_path / "tiny")
    return tmp_path / "tiny"


@contextlib.contextmanager
def engine_process(*overrides: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command(*overrides), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def running(checkpoint: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    address, port = f"ipc://{tmp_path}/engine", free_port()
    given = (f"checkpoint={checkpoint}", f"address={address}", f"metrics_port={port}")
    with engine_process(*given, "engine.slots=2", "engine.most_share=1000") as process:
        yield process, address, port


def test_it_serves_until_it_is_told_to_end(running: tuple[subprocess.Popen[str], str, int]) -> None:
    process, address, port = running
    assert process.stdout is not None
    assert re.search(r"there is room for [12] callers", process.stdout.readline())
    gateway = Gateway(address)
    gateway.send(Hello(VERSION), Open("a", "Hello.", TOOLS, seed=3))
    assert [gateway.receive(), gateway.receive()] == [Hello(VERSION), Opened("a")]
    for number in range(3):
        gateway.send(frame("a", number))
        while not isinstance(heard := gateway.receive(), Heard):
            assert isinstance(heard, Acted)  # weights are random: anything may be done
        assert heard.number == number
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as reply:
        told = reply.read().decode()
    assert "duologue_frame_latency_seconds_count 3.0" in told
    assert "duologue_sessions 1.0" in told
    gateway.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("checkpoint=/nowhere", "checkpoint is '/nowhere'"),
        ("kernels=int4", "kernels is 'int4': must be one of off, exact, int8"),
        ("address=ipc:///no/such/folder/engine", "address is 'ipc:///no/such/folder/engine'"),
    ],
)
def test_what_it_cannot_begin_with_is_named(checkpoint: Path, override: str, named: str) -> None:
    given = {"checkpoint": str(checkpoint), "address": "ipc:///tmp/never", "engine.slots": "1"}
    given |= dict([override.split("=", 1)])
    overrides = [f"{name}={value}" for name, value in given.items()]
    ended = subprocess.run(command(*overrides), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert named in ended.stderr


def test_warming_up_tells_how_many_there_is_room_for() -> None:
    """A stand-in that takes 12 ms a caller, by a clock of its own: seven would wait longer and
    longer, and the line to what they wait for leaves room for four."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    class Slow(FakeAgent):
        def hear(self, state, pcm, active):
            now[0] += 0.012 * len(pcm)
            return super().hear(state, pcm, active)

    engine = Engine(Slow(call_each=1000), EngineConfig(slots=8), lambda: now[0])
    assert warm_up(engine, sleep) == 4
    assert not engine.sessions
    assert engine.admission.may_come(4)
    assert not engine.admission.may_come(5)
    assert engine.metrics.registry.get_sample_value("duologue_sessions_opened_total") == 0


def test_the_dashboard_asks_for_what_there_is() -> None:
    names = {sample.name for metric in Metrics(1).registry.collect() for sample in metric.samples}
    labelled = ("duologue_round_seconds", "duologue_refused", "duologue_sessions_closed")
    names |= {
        f"{name}{end}" for name in labelled for end in ("_total", "_bucket", "_count", "_sum")
    }
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    found = {name for expression in asked for name in re.findall(r"duologue_\w+", expression)}
    assert found <= names
    assert {"duologue_frame_latency_seconds_bucket", "duologue_frames_late_total"} <= found
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = np.array([[*panel["gridPos"].values()] for panel in panels])
    assert len(np.unique(places[:, 2:], axis=0)) == len(panels)


def test_a_collector_is_told_of_sessions(checkpoint: Path, tmp_path: Path) -> None:
    told: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            packed = self.rfile.read(int(self.headers["Content-Length"]))
            is_packed = self.headers["Content-Encoding"] == "gzip"
            told.append(gzip.decompress(packed) if is_packed else packed)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    address = f"ipc://{tmp_path}/engine"
    traces = f"traces=http://127.0.0.1:{collector.server_port}/v1/traces"
    given = (f"checkpoint={checkpoint}", f"address={address}", "engine.slots=1", traces)
    with engine_process(*given, "engine.most_share=1000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        gateway = Gateway(address)
        parent = f"00-{7:032x}-{5:016x}-01"
        gateway.send(Open("a", "Hello.", [], 3, parent))
        assert gateway.receive() == Opened("a")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert gateway.receive() == Closed("a", "engine_ends")
        gateway.close()
    collector.shutdown()
    (resource,) = ExportTraceServiceRequest.FromString(told[0]).resource_spans
    assert resource.resource.attributes[0].value.string_value == "duologue-engine"
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id[-1], span.parent_span_id[-1]) == ("session", 7, 5)


NAMES = ("a", "b", "c")


def say(gateway: Gateway, memory: dict[str, Remembered], numbers: range) -> list[Heard]:
    """Frames of three callers, one after the other has been answered."""
    heard: list[Heard] = []
    sound = np.random.default_rng(2).integers(-3000, 3000, (3, 20, 1920)).astype("<i2")
    for number in numbers:
        for name, pcm in zip(NAMES, sound, strict=True):
            said = Frame(name, number, pcm[number].tobytes())
            memory[name].said(said)
            gateway.send(said)
        heard += answers(gateway, 3)
        for saved in gateway.saved:
            memory[saved.session].told(saved)
        gateway.saved.clear()
    return heard


def answers(gateway: Gateway, count: int) -> list[Heard]:
    heard: list[Heard] = []
    while len(heard) < count:
        if isinstance(reply := gateway.receive(), Heard):
            heard.append(reply)
    return heard


def test_a_standby_goes_on_when_an_engine_is_killed(checkpoint: Path, tmp_path: Path) -> None:
    addresses = [f"ipc://{tmp_path}/{name}" for name in ("first", "standby")]
    given = (f"checkpoint={checkpoint}", "engine.save_frames=4", "engine.most_share=1000")
    memory = {
        name: Remembered(Open(name, "Hello.", TOOLS, seed=seed)) for seed, name in enumerate(NAMES)
    }
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(engine_process(*given, f"address={address}"))
            for address in addresses
        ]
        for process in processes:
            assert process.stdout is not None
            assert "there is room for" in process.stdout.readline()
        first, standby = map(Gateway, addresses)
        first.send(*(memory[name].again()[0] for name in NAMES))
        assert {first.receive() for _ in NAMES} == {Opened(name) for name in NAMES}
        heard = say(first, memory, range(11))
        processes[0].kill()
        told = 0
        for name in NAMES:
            again = memory[name].again()
            assert isinstance(again[0], Resume)
            told += sum(isinstance(command, Frame) for command in again)
            standby.send(*again)
        heard += answers(standby, told)  # the other replies are `Opened`
        heard += say(standby, memory, range(11, 20))
        for gateway in (first, standby):
            gateway.close()
    by_frame = {(one.session, one.number): one for one in heard}
    assert len(heard) == len(by_frame) + told, "some were answered twice"

    with use_kernels("int8"):
        expected = undisturbed(checkpoint)
    for one in expected:
        other = by_frame[one.session, one.number]
        assert (one.agent_text, one.floor) == (other.agent_text, other.floor)
        samples = np.frombuffer(one.pcm, "<i2").astype(int)
        assert np.abs(samples - np.frombuffer(other.pcm, "<i2")).max() <= 2


def undisturbed(checkpoint: Path) -> list[Heard]:
    """What the callers of `say` hear of an engine that lives on."""
    engine, heard = Engine(Agent(load_duplex(checkpoint)), EngineConfig()), []
    for seed, name in enumerate(NAMES):
        engine.take(Open(name, "Hello.", TOOLS, seed=seed))
    sound = np.random.default_rng(2).integers(-3000, 3000, (3, 20, 1920)).astype("<i2")
    for number in range(20):
        for name, pcm in zip(NAMES, sound, strict=True):
            engine.take(Frame(name, number, pcm[number].tobytes()))
        while not engine.is_idle:
            heard += [one for one in engine.step() if isinstance(one, Heard)]
    return heard


def test_the_bench_finds_what_happens_to_callers(checkpoint: Path, tmp_path: Path) -> None:
    """Times are of this machine at this moment: that there are any is what is tested of them."""
    out = tmp_path / "report.json"
    parts = (
        "frame.batches=[1,16]", "frame.frames=2", "temporal.batches=[1,16]", "temporal.steps=2",
        "ramp.callers=[2]", "ramp.seconds=0.4", "refusal.callers=1", "refusal.seconds=0.8",
        "refusal.each_s=0.1", "takeover.callers=2", "takeover.seconds=4", "kills.cycles=6",
        "kills.before_s=0.5",
        "churn.callers=3", "churn.minutes=0.1", "churn.compared=3", "endless.minutes=0.1",
        "endless.real_minutes=0.05", "wire.protocols=[realtime]", "wire.seconds=2",
        "crowd.clients=20", "crowd.slots=2", "crowd.seconds=2", "formats.seconds=4",
        "hostile.messages=200", "hostile.deaf=1", "hostile.before_s=1", "hostile.settle_s=1",
        "tool_start.callers=2", "tool_start.seconds=6",
        "audit_kills.cycles=2", "audit_kills.sessions=2", "audit_kills.seconds=1",
    )  # fmt: skip
    given = (f"out={out}", f"checkpoint={checkpoint}", "~parts.peers", "~parts.mutants")
    given += tuple(f"parts.{part}" for part in parts)
    bench = [sys.executable, "-m", "serve.bench", *given]
    ended = subprocess.run(bench, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics["frame_latency_ms_p50_2"]["n"] == 2 * 5  # without the first twelve frames
    assert metrics["frame_latency_ms_p50_2"]["value"] > 0
    assert metrics["sessions_max"]["value"] in (0, 2)
    without = {"frame_latency_ms_p50_1", "frame_latency_ms_p99_1"}  # nobody was alone
    without |= {"sessions_vs_moshi", "sessions_vs_vllm", "mutants_caught"}
    names = {bar.metric for bar in BARS["engine"]}
    if library() is None:
        without |= {name for name in names if name.startswith(("frame_speedup", "temporal_"))}
    if shutil.which("psql") is None:
        without |= {"audit_postgres_kills_broken", "audit_postgres_kills_lost"}
    assert names - {*metrics} == without
    for name in ("churn_differ", "churn_slots_leaked", "kills_slots_leaked", "takeover_differ",
                 "takeover_frames_lost_max"):  # fmt: skip
        assert metrics[name]["value"] == 0, name
    assert metrics["takeover_differ"]["n"] == 2 * 50
    assert metrics["refused_ms_max"]["n"] > 2


def test_the_bench_says_what_it_cannot_write() -> None:
    bench = [sys.executable, "-m", "serve.bench", "out=report"]
    ended = subprocess.run(bench, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "must end in .json" in ended.stderr
