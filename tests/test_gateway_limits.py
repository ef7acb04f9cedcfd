import time

import pytest

from serve.gateway.limits import Allowance, Limits, LimitsConfig, OverLimit, Tenant, ip_of

SHOP = Tenant("shop", Allowance(sessions=2, bytes_per_second=1000, events_per_second=10))
BANK = Tenant("bank", Allowance(sessions=2))


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> Limits:
    return Limits(LimitsConfig(sessions_per_address=3, attempts_per_minute=5), clock)


@pytest.mark.parametrize("field", ["sessions_per_address", "attempts_per_minute"])
def test_a_limit_is_positive(field):
    with pytest.raises(AssertionError, match=f"{field} 0 must be positive"):
        LimitsConfig(**{field: 0})


def test_a_tenant_has_so_many_sessions_at_once(limits):
    first = limits.admit(SHOP, "10.0.0.1")
    with limits.admit(SHOP, "10.0.0.2"), pytest.raises(OverLimit, match="tenant") as refused:
        limits.admit(SHOP, "10.0.0.3")
    assert refused.value.code == "too_many_sessions"
    assert refused.value.retry_after_s > 0
    limits.admit(BANK, "10.0.0.3")  # another one is not concerned
    limits.admit(SHOP, "10.0.0.3")  # the second has left
    with pytest.raises(OverLimit, match="tenant"):
        limits.admit(SHOP, "10.0.0.3")
    first.release()
    first.release()  # counts once
    limits.admit(SHOP, "10.0.0.4")
    with pytest.raises(OverLimit, match="tenant"):
        limits.admit(SHOP, "10.0.0.4")


def test_an_address_has_so_many_sessions_at_once(limits):
    held = [limits.admit(Tenant(f"t{number}"), "10.0.0.1") for number in range(3)]
    with pytest.raises(OverLimit, match="address") as refused:
        limits.admit(SHOP, "10.0.0.1")
    assert refused.value.code == "too_many_sessions"
    limits.admit(SHOP, "10.0.0.2")
    held[0].release()
    limits.admit(SHOP, "10.0.0.1")


def test_a_session_that_fails_is_left(limits):
    for _ in range(5):
        with pytest.raises(RuntimeError), limits.admit(SHOP, "10.0.0.1"):
            raise RuntimeError


@pytest.mark.parametrize(
    ("one", "other", "are_the_same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
    ],
)
def test_what_counts_as_one_address(limits, one, other, are_the_same):
    for _ in range(5):
        limits.attempt(one)
    if are_the_same:
        with pytest.raises(OverLimit):
            limits.attempt(other)
    else:
        limits.attempt(other)


def test_attempts_are_counted_by_the_minute(limits, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    for _ in range(5):
        limits.attempt("10.0.0.1")
    monkeypatch.setattr(time, "time", lambda: 1020.0)
    with pytest.raises(OverLimit) as refused:
        limits.attempt("10.0.0.1")
    assert refused.value.code == "too_many_attempts"
    assert refused.value.retry_after_s == pytest.approx(40)
    monkeypatch.setattr(time, "time", lambda: 1060.1)
    limits.attempt("10.0.0.1")


def test_messages_are_counted_by_the_second(limits, clock):
    session = limits.admit(SHOP, "10.0.0.1")
    assert [session.spend(1) for _ in range(40)] == [0.0] * 40  # 4 s of them at once
    assert 0 < session.spend(1) <= 0.1
    assert session.spend(1) > 0  # nothing is charged for what is refused
    clock.now_s += 0.1
    assert session.spend(1) == 0.0
    clock.now_s += 3600
    assert [session.spend(1) for _ in range(40)] == [0.0] * 40  # no more than 4 s are saved up
    assert session.spend(1) > 0


def test_bytes_are_counted_by_the_second(limits, clock):
    session, other = limits.admit(SHOP, "10.0.0.1"), limits.admit(SHOP, "10.0.0.1")
    assert session.spend(3999) == 0.0
    assert session.spend(10_001) == 0.0  # something was left; 10 s are owed after it
    assert session.spend(1) == pytest.approx(10)
    assert other.spend(3000) == 0.0
    clock.now_s += 9
    assert session.spend(1) == pytest.approx(1)
    clock.now_s += 1.01
    assert session.spend(5) == 0.0


def test_who_has_left_is_forgotten(limits, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    for number in range(2000):
        address = f"10.0.{number // 256}.{number % 256}"
        limits.attempt(address)
        limits.admit(Tenant(address), address).release()
    assert not limits._sessions
    limits._attempts.storage.timer.join()
    monkeypatch.setattr(time, "time", lambda: 1061.0)
    limits.attempt("10.1.0.0")
    limits._attempts.storage.timer.join()
    assert set(limits._attempts.storage.storage.values()) == {1}
    assert len(limits._attempts.storage.storage) == 1


@pytest.mark.parametrize("address", ["", "testclient", "1.2.3", "x" * 10_000, "\ud800", None])
def test_what_is_no_address(address):
    assert ip_of(address) is None
