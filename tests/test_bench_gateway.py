"""The gateway's parts of the bench, for a few seconds each: what they count, not how fast it is."""

from serve.bench.crowd import Crowd
from serve.bench.formats import Formats
from serve.bench.hostile import Hostile
from serve.bench.wire import Wire
from train.report import Outcome


def value(outcome: Outcome, name: str) -> float:
    return outcome.metrics[name].value


def test_every_frame_has_a_share_each_way() -> None:
    found = Wire(("realtime",), 2.0).measure("", 1, "")
    for way in ("in", "out"):
        metric = found.metrics[f"gateway_{way}_ms_p99_realtime"]
        assert metric.n >= 12
        assert 0 < metric.value < 1000


def test_whoever_is_too_many_is_told_when_to_come_again() -> None:
    found = Crowd(clients=20, slots=2, seconds=2.0).measure("", 1, "")
    assert value(found, "crowd_served") == 2
    assert value(found, "crowd_without_retry") == 0
    assert found.metrics["crowd_first_refused_ms_max"].n == 18


def test_sound_comes_back_whole_in_every_format() -> None:
    found = Formats(seconds=4.0).measure("", 1, "")
    for name in ("differ", "missing", "drift"):
        assert value(found, f"audio_{name}_max") == 0
    assert value(found, "audio_worst_db_pcm16") > 40
    assert value(found, "audio_worst_db_law") > 20


def test_messages_without_sense_are_answered_and_disturb_nobody() -> None:
    found = Hostile(messages=300, deaf=1, before_s=1.0, settle_s=1.0).measure("", 1, "")
    for name in ("untyped", "faults", "sessions_left", "unanswered"):
        assert value(found, f"hostile_{name}") == 0
