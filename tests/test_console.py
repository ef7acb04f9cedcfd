"""The console in a real Chromium, whose microphone is a recording, on the real server with a front
desk and its tools. What is done there is in tests/console, a file a story.
"""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from scripted_server import scripted_server

ROOT = Path(__file__).parents[1]
PYTHON = Path(os.environ.get("CLIENTS_PYTHON") or ROOT / ".venv-clients" / "bin" / "python")
NODE = PYTHON.with_name("node")
PACKAGES = ROOT / "serve" / "examples" / "node" / "node_modules"
SLOTS = 2
POLICY = f"tools.policy={ROOT}/serve/front_desk/policy.yaml"
SOURCES = f"tools.sources={ROOT}/serve/front_desk/sources.yaml"
PICTURES = ("console.png", "console-dark.png", "console-phone.png")

has_browser = NODE.exists() and (PACKAGES / "axe-core").exists()
pytestmark = pytest.mark.skipif(not has_browser, reason="needs a browser: make test-clients")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples, rate_hz = soundfile.read(ROOT / "data" / "calls" / "demo.flac", dtype="int16")
    path = tmp_path_factory.mktemp("console") / "voice.wav"
    soundfile.write(path, samples, rate_hz, "PCM_16")
    return path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scripted_server(POLICY, SOURCES, slots=SLOTS) as url:
        yield url


def tell(story: str, url: str, recording: Path) -> None:
    command = [NODE, ROOT / "tests" / "console" / f"{story}.mjs", url, recording, recording.parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr


def test_a_call_is_held_watched_confirmed_stopped_and_taken_over(url: str, recording: Path) -> None:
    tell("call", url, recording)
    for name in PICTURES:
        picture = recording.with_name(name)
        assert picture.stat().st_size < 200_000
        if folder := os.environ.get("CONSOLE_PICTURES"):
            picture.rename(Path(folder) / name)


def test_sound_is_neither_bent_nor_cut(recording: Path) -> None:
    tell("worklets", "", recording)


def test_all_of_it_is_done_by_keyboard(url: str, recording: Path) -> None:
    tell("keyboard", url, recording)


def test_what_goes_wrong_is_told_and_mended(url: str, recording: Path) -> None:
    tell("trouble", url, recording)


def test_keys_are_asked_for(tmp_path: Path, recording: Path) -> None:
    def entry(name: str) -> str:
        return f"{name}, keys: ['{hashlib.sha256(f'sk_{name}'.encode()).hexdigest()}']"

    (tmp_path / "tenants.yaml").write_text(
        f"tenants: [{{name: {entry('shop')}}}]\n"
        f"operators: [{{name: {entry('ann')}, method: console}}]\n"
    )
    with scripted_server(f"tenants={tmp_path}/tenants.yaml") as url:
        tell("keys", url, recording)
