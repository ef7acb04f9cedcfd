"""The engine's process: `python -m serve.engine`, with a tiny model of random weights."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_agent import FakeAgent
from test_engine_endpoint import Gateway, frame
from tiny_duplex import TOOLS, tiny_duplex

from model.checkpoint import save_duplex
from serve.engine.engine import Engine, EngineConfig
from serve.engine.messages import VERSION, Acted, Heard, Hello, Open, Opened
from serve.engine.metrics import Metrics
from serve.engine.warm_up import warm_up

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


@pytest.fixture
def running(checkpoint: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    address, port = f"ipc://{tmp_path}/engine", free_port()
    given = (f"checkpoint={checkpoint}", f"address={address}", f"metrics_port={port}")
    process = subprocess.Popen(
        command(*given, "engine.slots=2", "engine.most_share=1"), stdout=subprocess.PIPE, text=True
    )
    yield process, address, port
    process.kill()
    process.wait()


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
    """A stand-in that takes 12 ms a caller, by a clock of its own: 56 of 80 ms hold four."""
    now = [0.0]

    class Slow(FakeAgent):
        def hear(self, state, pcm, active):
            now[0] += 0.012 * len(pcm)
            return super().hear(state, pcm, active)

    engine = Engine(Slow(call_each=1000), EngineConfig(slots=8), lambda: now[0])
    assert warm_up(engine) == 4
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
