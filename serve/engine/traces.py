"""Spans (OpenTelemetry) of callers' sessions and of the actions in them.

Without a provider (`export_to`) they are made of nothing and cost next to nothing.
"""

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve.engine.messages import Acted

_parents = TraceContextTextMapPropagator()


def provider_to(endpoint: str) -> TracerProvider:
    """Sends spans to a collector: OTLP over HTTP, as `http://localhost:4318/v1/traces`."""
    provider = TracerProvider(resource=Resource({SERVICE_NAME: "duologue-engine"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return provider


class Traces:
    """A span for each session and, below it, one for each action from its first token on: a call's
    ends with its result, when it is taken back or replaced, or with the session."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("duologue.engine", tracer_provider=provider)
        self._sessions: dict[str, Span] = {}
        self._bursts: dict[str, Span] = {}  # the one that is being written, by session
        self._calls: dict[str, dict[int, Span]] = {}  # without a result yet, by session and number

    def opened(self, session: str, slot: int, parent: str, is_resumed: bool) -> None:
        """`parent` is a W3C `traceparent`, empty where there is none."""
        about = {"duologue.session": session, "duologue.slot": slot, "duologue.resumed": is_resumed}
        context = _parents.extract({"traceparent": parent})
        self._sessions[session] = self._tracer.start_span("session", context, attributes=about)
        self._calls[session] = {}

    def acted(self, acted: Acted) -> None:
        """An action was opened or made."""
        name, calls = acted.session, self._calls[acted.session]
        if acted.kind == "opened":
            above = trace.set_span_in_context(self._sessions[name])
            about = {"duologue.frame": acted.number}
            self._bursts[name] = self._tracer.start_span(acted.action, above, attributes=about)
            return
        # One that was open when its session was saved began in another engine.
        span = self._bursts.pop(name, trace.INVALID_SPAN)
        span.set_attributes(
            {"duologue.call": acted.call, "duologue.tool": acted.tool,
             "duologue.confidence": acted.confidence, "duologue.made_frame": acted.number}
        )  # fmt: skip
        if acted.action in ("call", "revise"):
            span.add_event("made")
            calls[acted.call] = span
            return
        if acted.action == "cancel" and acted.call in calls:
            _ended(calls.pop(acted.call), "cancelled")
        span.end()

    def answered(self, session: str, call: int, result: Mapping[str, Any]) -> None:
        """The result of a call was taken."""
        span = self._calls[session].pop(call, trace.INVALID_SPAN)
        if "error" in result:
            span.set_status(StatusCode.ERROR, str(result["error"]))
        _ended(span, "result")

    def closed(self, session: str, reason: str, frames: int) -> None:
        """With all that is still open in it."""
        for span in self._calls.pop(session).values():
            _ended(span, "left")
        if session in self._bursts:
            _ended(self._bursts.pop(session), "left")
        span = self._sessions.pop(session)
        span.set_attributes({"duologue.closed": reason, "duologue.frames": frames})
        span.end()


def _ended(span: Span, event: str) -> None:
    span.add_event(event)
    span.end()
