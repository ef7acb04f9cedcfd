"""Who may come in, as answers after known times tell it."""

import numpy as np
import pytest
from fake_agent import FakeAgent

from serve.engine.admission import Admission
from serve.engine.engine import Engine, EngineConfig
from serve.engine.messages import Frame, Open, Refused


def test_the_line_is_found_and_the_slow_answers_are_counted() -> None:
    rng = np.random.default_rng(0)
    admission = Admission()
    for _ in range(1000):
        callers = int(rng.integers(1, 5))
        admission.observe(callers, (0.010 + 0.004 * callers) * rng.uniform(1.0, 1.2))
    for callers in (1, 4, 8):
        line_s = 0.010 + 0.004 * callers
        assert 1.15 * line_s < admission.predicted_s(callers) < 1.25 * line_s
    assert admission.may_come(8)
    assert not admission.may_come(10)  # 50 ms, and a fifth more now and then


def test_what_was_slow_long_ago_is_forgotten() -> None:
    admission = Admission()
    for seconds in (0.2, 0.01):
        for callers in (1, 2) * 4000:
            admission.observe(callers, seconds * callers)
    assert admission.predicted_s(2) == pytest.approx(0.02)


def test_little_is_known_at_first_and_of_one_size() -> None:
    admission = Admission()
    assert admission.may_come(1)
    for _ in range(30):
        admission.observe(1, 0.02)
    assert admission.predicted_s(1) == pytest.approx(0.02)
    with pytest.raises(AssertionError, match=r"share 0"):
        Admission(share=0)


def test_who_is_one_too_many_is_told_so_before_he_is_let_in() -> None:
    """Answers take 20 ms for each caller: two fit into 56 ms, three do not."""
    times = iter(np.arange(1e6) * 0.02)
    engine = Engine(FakeAgent(call_each=1000), EngineConfig(patience_s=1e9), lambda: next(times))
    for _ in range(30):
        for callers in (1, 2):
            engine.admission.observe(callers, 0.02 * callers)
    assert [engine.take(Open(name, "Hello.", [])) for name in "ab"] == [None, None]
    refused = engine.take(Open("c", "Hello.", []))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retry_after_s > 0) == ("at_capacity", True)
    assert "3 callers would wait 60 ms" in refused.message
    assert engine.take(Frame("a", 0, bytes(3840))) is None
