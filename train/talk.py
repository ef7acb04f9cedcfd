"""`python -m train.talk checkpoint=DIR input=call.wav tools=front_desk out=DIR`: one call.

Streams a recording through an agent frame by frame, as a server would, answers its calls from a
domain's made-up tools, and leaves the conversation (left the caller, right the agent), its events
as JSON lines and a picture.
"""

import json
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from data.dialogue import AGENT, USER
from data.scripts.backend import Backend, prompts
from data.scripts.domain import load_domain
from data.voices.utterance import SAMPLE_RATE_HZ, at_24khz
from model.frame import FLOORS, FRAME_S
from model.load_agent import load_agent
from train.conversation import Conversation, Event
from train.conversation_picture import draw
from train.scoring.dialogue_loop import Agent, Caller, converse

_SAY_GAP_S = 0.8  # between the words of two rows of the table


class Row(NamedTuple):
    """A line of the table: what happened from when on."""

    time_s: float
    who: str
    what: str


def talk(
    agent: Agent, audio: NDArray[np.float32], tools: str, name: str, tail_s: float, seed: int
) -> Conversation:
    """What an agent makes of a caller's sound, float32 [T] at 24 kHz, with all of a domain's tools.

    Raises ValueError where there is no such domain.
    """
    system, declared = prompts(tools, seed)
    caller = Caller(name, audio, system, declared, tail_s=tail_s)
    backend = Backend(load_domain(tools), seed)
    ((_, conversation),) = converse(agent, [caller], 1, backend)
    return conversation


def read_call(path: Path) -> NDArray[np.float32]:
    """A recording as mono float32 [T] at 24 kHz; raises ValueError where it is none."""
    if not path.is_file():
        raise ValueError(f"input is {str(path)!r}: there is no such file")
    try:
        audio, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise ValueError(f"input is {str(path)!r}: no sound file ({error})") from error
    if not len(audio):
        raise ValueError(f"input is {str(path)!r}: holds no sound")
    if not np.isfinite(audio).all():
        raise ValueError(f"input is {str(path)!r}: holds NaN or infinity, must be finite")
    return at_24khz(np.ascontiguousarray(audio.mean(1), np.float32), rate_hz).clip(-1, 1)


def leave(conversation: Conversation, out: Path) -> None:
    """Writes conversation.wav, events.jsonl and timeline.png."""
    stereo = conversation.audio[[USER, AGENT]].clip(-1, 1)
    soundfile.write(out / "conversation.wav", stereo.T, SAMPLE_RATE_HZ)
    lines = (json.dumps(line, ensure_ascii=False) for line in events_of(conversation))
    (out / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    draw(conversation, out / "timeline.png")


def events_of(conversation: Conversation) -> list[dict[str, Any]]:
    """Everything that happened, in time: words of both sides, the floor where it changes, calls."""
    found: list[dict[str, Any]] = [
        {"time_s": word.start_s, "kind": f"{who}_word", "text": word.text}
        for who, side in (("agent", AGENT), ("user", USER))
        for word in conversation.words[side]
    ]
    changes = np.flatnonzero(np.diff(conversation.floor, prepend=-1))
    for frame in changes:
        holder = FLOORS[conversation.floor[frame]]
        found.append({"time_s": (int(frame) + 1) * FRAME_S, "kind": "floor", "holder": holder})
    found += [event._asdict() for event in conversation.events]
    found.sort(key=lambda event: event["time_s"])
    return [{**event, "time_s": round(event["time_s"], 3)} for event in found]


def table(conversation: Conversation) -> str:
    """What was said, a line a breath, and done."""
    rows = [
        *_breaths(conversation, AGENT, "agent"),
        *_breaths(conversation, USER, "caller (as heard)"),
        *(Row(event.time_s, event.kind, _shown(event)) for event in conversation.events),
    ]
    return "\n".join(
        f"{row.time_s:7.2f} s  {row.who:18} {row.what}" for row in sorted(rows, key=itemgetter(0))
    )


def _breaths(conversation: Conversation, side: int, who: str) -> Iterator[Row]:
    last_s = -np.inf
    row: Row | None = None
    for word in conversation.words[side]:
        if row and word.start_s - last_s < _SAY_GAP_S:
            row = row._replace(what=f"{row.what} {word.text}")
        else:
            if row:
                yield row
            row = Row(word.start_s, who, word.text)
        last_s = word.end_s
    if row:
        yield row


def _shown(event: Event) -> str:
    number = f" {event.number}" if event.action != "handoff" else ""
    sure = f" ({event.confidence:.2f})" if event.confidence and event.kind == "made" else ""
    body = json.dumps(dict(event.arguments), ensure_ascii=False) if event.arguments else ""
    return f"{event.action}{number} {event.tool} {body}{sure}".strip()


def _check(cfg: DictConfig) -> None:
    """Raises ValueError naming the field that is missing or wrong, before any work."""
    for field, meaning in (
        ("checkpoint", "a model's directory"),
        ("input", "a recording"),
        ("tools", "a domain"),
        ("out", "a folder"),
    ):
        if not cfg[field]:
            raise ValueError(f"{field} is missing: give {field}={meaning}")
    if cfg.tail_s < 0:
        raise ValueError(f"tail_s is {cfg.tail_s}: must not be negative")
    try:
        load_domain(cfg.tools)
    except ValueError as error:
        raise ValueError(f"tools is {cfg.tools!r}: {error}") from error
    try:
        Path(cfg.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out is {cfg.out!r}: cannot write there ({error.strerror})") from error


@hydra.main(version_base=None, config_path="../conf", config_name="talk")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    torch.set_num_threads(cfg.threads)
    out = Path(cfg.out or "")
    try:
        _check(cfg)
        audio = read_call(Path(cfg.input))
        agent = load_agent(cfg.checkpoint)
        name = Path(cfg.input).name
        conversation = talk(agent, audio, cfg.tools, name, cfg.tail_s, cfg.seed)
        leave(conversation, out)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    print(table(conversation))
    print(f"\nleft in {out}/: conversation.wav, events.jsonl, timeline.png")


if __name__ == "__main__":
    main()
