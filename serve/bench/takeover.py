"""An engine is killed under its callers, and another one goes on with them."""

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import zmq
from numpy.typing import NDArray

from model.frame import FRAME_S
from serve.bench.callers import SYSTEM, WAIT_S, Callers, read_speech
from serve.bench.engine_process import EngineProcess
from serve.engine.messages import Close, Heard, Open, Saved
from serve.engine.remembered import Remembered
from train.intervals import exact
from train.report import Outcome


@dataclass
class _Answers:
    """The first to each frame, by session and number, and when it came."""

    heard: dict[tuple[str, int], Heard] = field(default_factory=dict)
    at_s: dict[tuple[str, int], float] = field(default_factory=dict)

    def take(self, one: Heard) -> None:
        key = one.session, one.number
        self.heard.setdefault(key, one)
        self.at_s.setdefault(key, time.perf_counter())


@dataclass(frozen=True)
class Takeover:
    """`callers` talk for `seconds`; in the middle of that their engine dies."""

    callers: int
    seconds: float

    def __post_init__(self) -> None:
        if self.callers < 1 or self.seconds < 4:
            raise ValueError(f"{self}: must be at least 1 caller and 4 seconds")

    def measure(self, checkpoint: str, threads: int, speech: str) -> Outcome:
        """How long until each caller is answered again, how many frames nobody answers, and in how
        many of them the sound or the text differs from a call that nothing has happened to."""
        sound, names = read_speech(speech), [f"{number}" for number in range(self.callers)]
        settings = {"slots": self.callers, "buckets": [self.callers], "queue_frames": 64}
        frames = int(self.seconds / FRAME_S)
        with (
            EngineProcess(checkpoint, threads, **settings) as standby,
            EngineProcess(checkpoint, threads, **settings) as first,
        ):
            answers, killed_s = self._talk(first, standby, sound, names, frames)
            whole = Callers(standby.address, sound, names)
            whole.come()
            told = whole.talk(frames)
            same = {(one.session, one.number): one for one in told if isinstance(one, Heard)}
            whole.go()
        lost = Counter(name for name, _ in same.keys() - answers.heard.keys())
        new_s = dict.fromkeys(names, np.inf)
        for (name, _), at_s in answers.at_s.items():
            if at_s > killed_s:
                new_s[name] = min(new_s[name], at_s - killed_s)
        differ = sum(_said(answers.heard[key]) != _said(same[key]) for key in answers.heard)
        count = len(answers.heard)
        late = np.mean([one.is_late for one in answers.heard.values()])
        metrics = {
            "takeover_ms_max": exact(1000 * max(new_s.values()), self.callers, "ms"),
            "takeover_frames_lost_max": exact(
                max(lost.values(), default=0), self.callers, "frames"
            ),
            "takeover_differ": exact(differ / count, count, "share"),
            "takeover_late": exact(float(late), count, "share"),
        }
        return Outcome(metrics)

    def _talk(
        self,
        first: EngineProcess,
        standby: EngineProcess,
        sound: NDArray[np.int16],
        names: list[str],
        frames: int,
    ) -> tuple[_Answers, float]:
        """What was answered, and when the first was killed."""
        memory = {
            name: Remembered(Open(name, SYSTEM, [], seed=seed)) for seed, name in enumerate(names)
        }
        callers, answers = Callers(first.address, sound, names), _Answers()
        monitor = callers.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        callers.come()
        begun_s, killed_s, is_moved = time.perf_counter(), 0.0, False
        total = frames * len(names)
        for place in range(total):
            number, caller = divmod(place, len(names))
            if not killed_s and place >= total // 2:
                killed_s = time.perf_counter()
                first.kill()
            while True:
                if not is_moved and monitor.poll(0):
                    callers, is_moved = Callers(standby.address, sound, names), True
                    callers.send(*(said for name in names for said in memory[name].again()))
                left_s = begun_s + FRAME_S * place / len(names) - time.perf_counter()
                if left_s <= 0:
                    break
                _listen(callers, memory, answers, min(left_s, 0.002 if not is_moved else left_s))
            said = callers.frame(caller, number)
            memory[said.session].said(said)
            callers.send(said)
        while len(answers.heard) < total and _listen(callers, memory, answers, WAIT_S):
            pass
        callers.send(*map(Close, names))
        return answers, killed_s


def _listen(
    callers: Callers, memory: dict[str, Remembered], answers: _Answers, wait_s: float
) -> bool:
    """One reply, if it comes."""
    reply = callers.receive(wait_s)
    if isinstance(reply, Saved):
        memory[reply.session].told(reply)
    elif isinstance(reply, Heard):
        answers.take(reply)
    return reply is not None


def _said(heard: Heard) -> tuple[bytes, str, str]:
    return heard.pcm, heard.agent_text, heard.user_text
