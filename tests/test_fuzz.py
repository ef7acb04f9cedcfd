"""Whatever a client sends, it is answered by a typed error or done; nothing else happens."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from serve.bench.mutations import FIRST, VALID, mutated
from serve.dialects.dialect import Dialect, Disconnect, Send
from serve.dialects.hydra import Hydra
from serve.dialects.live import Live
from serve.dialects.live_sideband import LiveSideband
from serve.dialects.realtime import Realtime
from serve.dialects.twilio import Twilio
from serve.gateway.events import CallMade, Configure, Configured, Event, Heard, Settings, Started

MESSAGES = 400  # of each dialect
DIALECTS: dict[str, tuple[str, Callable[[], Dialect]]] = {
    "realtime": ("realtime", lambda: Realtime("nano", None, True)),
    "live": ("live", lambda: Live("nano", True)),
    "sideband": ("live", lambda: LiveSideband("nano", True)),
    "hydra": ("hydra", lambda: Hydra("nano", True)),
    "twilio": ("twilio", Twilio),
}
FLOORS = ("nobody", "agent", "user", "user_backchannel", "agent_backchannel")


class Call:
    """A dialect on both sides of which anything may come at any time."""

    def __init__(self, make: Callable[[], Dialect], first: dict[str, Any]) -> None:
        self.dialect, self.settings, self.number = make(), Settings(), 0
        self.is_over = False
        self.tell(Started("s1", self.settings, "token"))
        self.receive(json.dumps(first))

    def receive(self, data: str | bytes) -> list[dict[str, Any]]:
        """What is answered at once."""
        sent = []
        for out in self.dialect.received(data):
            if isinstance(out, Send):
                sent.append(json.loads(out.data))
            elif isinstance(out, Disconnect):
                self.is_over = True
            elif isinstance(out, Configure):
                given = {name: value for name, value in vars(out).items() if value is not None}
                self.settings = Settings(**vars(self.settings) | given)
                self.tell(Configured(self.settings))
        return sent

    def tell(self, event: Event) -> None:
        for out in self.dialect.told(event):
            assert isinstance(out, Disconnect) or json.loads(out.data)

    def go_on(self, rng: random.Random) -> None:
        """The next frame, and sometimes a call."""
        texts = rng.choice(("", "so ")), rng.choice(("", "yes "))
        frame = Heard(self.number, bytes(3840), rng.random() < 0.5, *texts, rng.choice(FLOORS))  # pyright: ignore
        self.tell(frame)
        if rng.random() < 0.1:
            self.tell(CallMade(f"call_{rng.randrange(3)}", self.number, "order_status", {}, 0.9))
        self.number += 1


def may_be_json(data: str | bytes) -> bool:
    """Or at least no text, of which fields that nobody reads may be anything."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
    except UnicodeDecodeError:
        return True
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_answers_anything(name: str) -> None:
    protocol, make = DIALECTS[name]
    rng, call, refused = random.Random(name), None, 0
    first = VALID[protocol][FIRST[protocol]]
    for _ in range(MESSAGES):
        if call is None or call.is_over:
            call = Call(make, first)
        data = mutated(protocol, rng)
        answers = call.receive(data)
        errors = [answer["error"] for answer in answers if answer.get("type") == "error"]
        for error in errors:
            assert error["type"] in ("invalid_request_error", "server_error")
            assert error["code"]
            assert error["message"]
            assert len(json.dumps(error)) < 4000
        refused += bool(errors) or call.is_over
        if (
            not may_be_json(data) and name != "twilio"
        ):  # events that it does not know are passed over
            assert errors or call.is_over, data
        call.go_on(rng)
    assert MESSAGES / 4 < refused < MESSAGES
