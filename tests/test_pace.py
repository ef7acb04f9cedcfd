"""When a caller's frames go to the engine, on a clock that stands still unless it is moved."""

import numpy as np
import pytest

from serve.gateway.audio import AudioFormat, Incoming
from serve.gateway.pace import SILENCE, Pace, PaceConfig

CONFIG = PaceConfig(patience_s=0.16, catch_up_s=0.16, behind_s=0.4, most_s=2.0)


def pace_of() -> Pace:
    return Pace(CONFIG, Incoming(AudioFormat()))


def sound(ms: int, level: int = 1000) -> bytes:
    return np.full(24 * ms, level, "<i2").tobytes()


def run(pace: Pace, spoken: list[tuple[float, bytes]], until_s: float) -> list[tuple[float, str]]:
    """What goes when, where somebody says that; in steps of 1 ms."""
    gone = []
    for now_ms in range(round(1000 * until_s)):
        now_s = now_ms / 1000
        while spoken and spoken[0][0] <= now_s:
            assert pace.say(spoken.pop(0)[1], now_s)
        pace.skip_silence()
        while due := pace.take(now_s):
            gone.append((now_s, due.kind))
    return gone


@pytest.mark.parametrize("chunk_ms", [10, 20, 80, 100, 200])
def test_frames_go_when_they_are_whole(chunk_ms: int) -> None:
    """Whatever they are sent in, nothing is filled up."""
    spoken = [(n * chunk_ms / 1000, sound(chunk_ms)) for n in range(4000 // chunk_ms)]
    gone = run(pace_of(), spoken, 4.0)
    assert {kind for _, kind in gone} == {"sent"}
    assert len(gone) >= 48
    for number, (at_s, _) in enumerate(gone):
        assert at_s - number * 0.08 < (chunk_ms + 80) / 1000


def test_a_network_that_stutters_costs_nothing() -> None:
    """Frames that come 150 ms late are sent at once, and those behind them in time again."""
    spoken = [(n * 0.08 + (0.15 if 10 <= n < 12 else 0), sound(80)) for n in range(30)]
    gone = run(pace_of(), sorted(spoken, key=lambda one: one[0]), 3.0)
    assert [kind for _, kind in gone][:30] == ["sent"] * 30
    assert gone[29][0] < 29 * 0.08 + 0.02


def test_silence_stands_in_for_a_client_who_sends_nothing() -> None:
    pace = pace_of()
    gone = run(pace, [(0.0, sound(100))], 2.0)
    assert [kind for _, kind in gone] == ["sent"] + ["filled"] * (len(gone) - 1)
    assert len(gone) >= 22
    pace = pace_of()
    pace.say(sound(100), 0.0)
    pace.take(0.0)
    due = pace.take(0.3)
    assert due is not None
    filled = np.frombuffer(due.pcm, "<i2")
    assert (filled[:480] == 1000).all()
    assert not filled[480:].any()


def test_who_sends_a_recording_at_once_is_heard_at_the_pace_of_speech() -> None:
    gone = run(pace_of(), [(0.0, sound(2000))], 2.0)
    assert [round(at_s, 2) for at_s, _ in gone[:5]] == [0, 0.08, 0.16, 0.24, 0.32]
    assert [kind for _, kind in gone].count("sent") == 25


def test_silence_of_a_client_who_is_behind_is_skipped() -> None:
    pace = pace_of()
    pace.say(sound(400) + sound(400, 0) + sound(800), 0.0)
    gone = []
    for now_s in np.arange(0, 2, 0.08):
        pace.skip_silence()
        if due := pace.take(now_s):
            gone.append((due.kind, bool(np.frombuffer(due.pcm, "<i2").any())))
    assert gone[:15] == [("sent", True)] * 15
    assert gone[15][0] == "filled"


def test_too_much_is_dropped_and_told() -> None:
    pace = pace_of()
    assert pace.say(sound(2100), 0.0)
    assert not pace.say(sound(80), 0.0)
    pace.clear()
    assert pace.waiting_s == 0
    assert pace.say(sound(80), 0.0)


def test_a_muted_client_is_silent() -> None:
    pace = pace_of()
    pace.is_muted = True
    pace.say(sound(80), 0.0)
    due = pace.take(0.0)
    assert due is not None
    assert (due.pcm, due.kind) == (SILENCE, "sent")


def test_nothing_goes_before_it_has_begun() -> None:
    pace = pace_of()
    assert pace.take(5.0) is None
    assert pace.wait_s(5.0) is None
    pace.begin(5.0)
    assert pace.wait_s(5.0) == pytest.approx(0.16)
    due = pace.take(5.16)
    assert due is not None
    assert due.kind == "filled"


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(AssertionError, match="patience_s 0"):
        PaceConfig(patience_s=0)
    with pytest.raises(AssertionError, match="behind_s"):
        PaceConfig(behind_s=3, most_s=2)
