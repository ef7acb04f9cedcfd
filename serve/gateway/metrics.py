"""What is counted of a gateway, as Prometheus asks for it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)


class Metrics:
    """One gateway's, in a registry of its own."""

    def __init__(self) -> None:
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
        self.engines = Counter(
            "duologue_gateway_takeovers", "Engines that went on for another one.",
            registry=registry,
        )  # fmt: skip
        self.unsent = Counter(
            "duologue_gateway_unsent", "Messages that an engine did not take.", registry=registry
        )
