"""What is counted of an engine, as Prometheus asks for it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.056, 0.08, 0.12, 0.16, 0.32, 0.64)
_CALLERS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)


class Metrics:
    """One engine's of so many slots, in a registry of its own."""

    def __init__(self, slots: int) -> None:
        self.registry = registry = CollectorRegistry()
        self.round_s = Histogram(
            "duologue_round_seconds", "How long a round took, by its kind (hear, act, prefill).",
            ["kind"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.round_callers = Histogram(
            "duologue_round_callers", "Callers in a round of frames.",
            buckets=_CALLERS, registry=registry,
        )  # fmt: skip
        self.waited_s = Histogram(
            "duologue_frame_wait_seconds", "From a frame's arrival to the round that hears it.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.latency_s = Histogram(
            "duologue_frame_latency_seconds", "From a frame's arrival to its answer.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.late = Counter(
            "duologue_frames_late", "Frames whose answer took more than 80 ms.", registry=registry
        )
        self.refused = Counter(
            "duologue_refused", "Messages that were not taken, by why (at_capacity: a caller; "
            "queue_full: a frame).", ["code"], registry=registry,
        )  # fmt: skip
        self.closed = Counter(
            "duologue_sessions_closed", "Sessions that ended, by why.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.opened = Counter("duologue_sessions_opened", "Callers let in.", registry=registry)
        self.resumed = Counter(
            "duologue_sessions_resumed", "Callers who went on after they had been saved.",
            registry=registry,
        )  # fmt: skip
        self.sessions = Gauge("duologue_sessions", "Callers who are in.", registry=registry)
        memory = Gauge("duologue_slots", "Callers there is memory for.", registry=registry)
        memory.set(slots)
        self.bad_messages = Counter(
            "duologue_bad_messages", "Messages that could not be read.", registry=registry
        )
        self.dropped_replies = Counter(
            "duologue_dropped_replies", "Replies to a gateway that does not read.",
            registry=registry,
        )  # fmt: skip
