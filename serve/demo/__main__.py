"""`python -m serve.demo`: a server, a caller who follows a script, and what came of the call.

Starts the server that ships, holds the call over a socket in real time and shows it as it goes on;
leaves the sound, the events and a picture, and the server up, until it is interrupted.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import hydra
from omegaconf import DictConfig

from serve.demo.figures import line_figures, pace, table
from serve.demo.screen import Screen
from serve.demo.script import ScriptedCaller, read_script
from serve.watched_call import hold
from train.talk import leave

_START_S = 120.0  # an engine first plays calls to itself, to know how many it holds


@contextlib.contextmanager
def _server(port: int, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`serve.run` at `port`; raises ValueError where it does not start."""
    command = [sys.executable, "-m", "serve.run", "--config-name", "front_desk", f"port={port}"]
    url = f"http://127.0.0.1:{port}"
    if _answers(url):
        raise ValueError(f"port is {port}: something serves there already; give url={url}")
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        ends_s = time.monotonic() + _START_S
        while not _answers(f"{url}/readyz"):
            if process.poll() is not None or time.monotonic() > ends_s:
                raise ValueError(f"the server did not start: {log.read_text()[-1000:]}")
            time.sleep(0.2)
        yield url, process
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.HTTPError as error:
        return error.code != 503
    except OSError:
        return False


def demo(url: str, caller: ScriptedCaller, name: str, out: Path) -> None:
    """The call. Raises RuntimeError where the server ends it."""
    screen = Screen()
    watched = asyncio.run(hold(url, caller, {}, name, screen))
    screen.end()
    conversation = watched.conversation()
    leave(conversation, out)
    print(table(line_figures(caller, conversation)))
    print(f"\n{pace(watched)}")
    print(f"left in {out}/: conversation.wav (left the caller), events.jsonl, timeline.png")


@hydra.main(version_base=None, config_path="../../conf", config_name="demo")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    out = Path(cfg.out)
    try:
        script = read_script(Path(cfg.call))
        out.mkdir(parents=True, exist_ok=True)
        caller = ScriptedCaller(script)
        with contextlib.ExitStack() as ending:
            url, process = cfg.url, None
            if url is None:
                print("starting the server: it measures first how many callers it can hold")
                url, process = ending.enter_context(_server(cfg.port, out / "server.log"))
            demo(url, caller, Path(cfg.call).stem, out)
            if process and not cfg.headless:
                print(f"\nThe console: {url} (talk to it yourself). Ctrl-C ends the server.")
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
