"""What is counted of a gateway, as Prometheus asks for it, and what operators see of it."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
_ANSWER_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.32, 0.64)
_LATELY_S = 10.0
_MOST_ANSWERS = 20_000  # of 160 callers in that time


@dataclass(frozen=True)
class Load:
    """Of the last 10 s: clients refused since the engine had no room, how long the engine's answers
    took, and what share of them was late; None where there were none."""

    capacity_refused: int
    latency_ms_p50: float | None = None
    latency_ms_p99: float | None = None
    late_share: float | None = None


class Metrics:
    """One gateway's, in a registry of its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: deque[tuple[float, float, bool]] = deque(maxlen=_MOST_ANSWERS)
        self._refusals: deque[tuple[float, int]] = deque()  # how many there were at a time
        self.registry = registry = CollectorRegistry()
        self.sessions = Gauge(
            "duologue_gateway_sessions", "Sessions that are there, by dialect.", ["dialect"],
            registry=registry,
        )  # fmt: skip
        self.ended = Counter(
            "duologue_gateway_sessions_ended", "Sessions that are over, by why.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.refused = Counter(
            "duologue_gateway_refused", "Clients that were not let in, by why.", ["code"],
            registry=registry,
        )  # fmt: skip
        self.problems = Counter(
            "duologue_gateway_problems", "Commands that were not done, by why.", ["code"],
            registry=registry,
        )  # fmt: skip
        self.frames = Counter(
            "duologue_gateway_frames", "Callers' frames: sent; filled up, wholly or in part, since "
            "the client was late; skipped, silent ones of a client who was behind; dropped, that "
            "the engine could not hold.", ["kind"], registry=registry,
        )  # fmt: skip
        self.dropped = Counter(
            "duologue_gateway_audio_dropped", "Messages of clients who had sent too much sound.",
            registry=registry,
        )  # fmt: skip
        self.in_s = Histogram(
            "duologue_gateway_in_seconds", "From a client's message to the frame that it completed "
            "having gone to the engine.", buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.out_s = Histogram(
            "duologue_gateway_out_seconds", "From the engine's answer to its client's having been "
            "sent it.", buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.answer_s = Histogram(
            "duologue_gateway_answer_seconds", "From a frame's arrival at the engine to its "
            "answer, as the engine says.", buckets=_ANSWER_SECONDS, registry=registry,
        )  # fmt: skip
        self.engines = Counter(
            "duologue_gateway_takeovers", "Engines that went on for another one.",
            registry=registry,
        )  # fmt: skip
        self.unsent = Counter(
            "duologue_gateway_unsent", "Messages that an engine did not take.", registry=registry
        )

    def answered(self, latency_s: float, is_late: bool) -> None:
        """The engine has answered a frame."""
        self.answer_s.observe(latency_s)
        now_s = self._clock()
        self._answers.append((now_s, latency_s, is_late))
        while self._answers[0][0] <= now_s - _LATELY_S:
            self._answers.popleft()

    def load(self) -> Load:
        """For who asks every second: what was refused before he began to is not known."""
        since_s = self._clock() - _LATELY_S
        self._refusals.append((since_s + _LATELY_S, self._capacity_refused()))
        while self._refusals[0][0] < since_s:
            self._refusals.popleft()
        refused = self._refusals[-1][1] - self._refusals[0][1]
        lately = [answer for answer in self._answers if answer[0] > since_s]
        if not lately:
            return Load(refused)
        p50_s, p99_s = np.quantile([latency_s for _, latency_s, _ in lately], (0.5, 0.99))
        late = sum(is_late for _, _, is_late in lately)
        return Load(refused, 1000 * float(p50_s), 1000 * float(p99_s), late / len(lately))

    def _capacity_refused(self) -> int:
        samples = (sample for metric in self.refused.collect() for sample in metric.samples)
        full = (s for s in samples if s.labels.get("code") == "at_capacity")
        return sum(int(sample.value) for sample in full if sample.name.endswith("_total"))
