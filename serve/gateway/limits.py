"""How much each client may use: sessions at once, attempts to connect, messages and their bytes.

`limits` counts attempts. It starts threads to forget by, too dear for every message, which a
session counts itself.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Annotated

import msgspec
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

_BURST_S = 4.0  # so much of a rate may come at once
_ROOM_S = 5.0  # when to try again where too many sessions are there: nobody knows when one ends

_Positive = Annotated[int, msgspec.Meta(gt=0)]


class Allowance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant may use: so many sessions at once, and of each of them so much a second."""

    sessions: _Positive = 64
    bytes_per_second: _Positive = 400_000
    events_per_second: _Positive = 200


@dataclass(frozen=True)
class Tenant:
    """Who the clients belong to; `name` is unique."""

    name: str
    allowance: Allowance = field(default_factory=Allowance)


@dataclass(frozen=True)
class LimitsConfig:
    """What an address may use, whoever's clients are there. Of IPv6, a /64 is one address."""

    sessions_per_address: int = 64
    attempts_per_minute: int = 600

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            assert value > 0, f"{name} {value} must be positive"


class OverLimit(Exception):
    """A client wants more than it may have now; `code` says of what."""

    def __init__(self, code: str, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.code, self.retry_after_s = code, retry_after_s


class Admission:
    """A session that counts from `Limits.admit` on, until it is left as a context or `release`d."""

    def __init__(
        self, allowance: Allowance, clock: Callable[[], float], leave: Callable[[], None]
    ) -> None:
        self._rates = (allowance.events_per_second, allowance.bytes_per_second)
        self._left = [rate * _BURST_S for rate in self._rates]
        self._clock, self._leave, self._then_s = clock, leave, clock()
        self._is_released = False

    def spend(self, size_bytes: int) -> float:
        """A message of that size: 0 where it may be handled, else seconds after which it may. A
        large one may be handled where anything is left, and is paid off after it."""
        now_s = self._clock()
        passed_s, self._then_s = now_s - self._then_s, now_s
        self._left = [
            min(left + rate * passed_s, rate * _BURST_S)
            for left, rate in zip(self._left, self._rates, strict=True)
        ]
        if min(self._left) <= 0:
            owed_s = max(-left / rate for left, rate in zip(self._left, self._rates, strict=True))
            return max(owed_s, 0.001)
        self._left = [self._left[0] - 1, self._left[1] - size_bytes]
        return 0.0

    def release(self) -> None:
        """The session is over; once more does nothing."""
        if not self._is_released:
            self._is_released = True
            self._leave()

    def __enter__(self) -> "Admission":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Limits:
    """Who is there. For one event loop; nothing is kept of who has left."""

    def __init__(self, config: LimitsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._sessions: Counter[tuple[str, str]] = Counter()  # of tenants and of addresses
        self._attempts = FixedWindowRateLimiter(MemoryStorage())
        self._attempts_limit = RateLimitItemPerMinute(config.attempts_per_minute)

    def attempt(self, address: str) -> None:
        """Somebody connects or asks for something, whoever he is: before his key is looked at.
        Raises OverLimit."""
        host = _host(address)
        if not self._attempts.hit(self._attempts_limit, host):
            ends_s = self._attempts.get_window_stats(self._attempts_limit, host).reset_time
            wait_s = max(ends_s - time.time(), 0.001)
            raise OverLimit("too_many_attempts", "too many attempts from this address", wait_s)

    def admit(self, tenant: Tenant, address: str) -> Admission:
        """One more session. Raises OverLimit."""
        owner, host = ("tenant", tenant.name), ("address", _host(address))
        if self._sessions[owner] >= tenant.allowance.sessions:
            raise OverLimit("too_many_sessions", "too many sessions of this tenant", _ROOM_S)
        if self._sessions[host] >= self._config.sessions_per_address:
            raise OverLimit("too_many_sessions", "too many sessions of this address", _ROOM_S)
        self._sessions.update((owner, host))
        return Admission(tenant.allowance, self._clock, lambda: self._leave(owner, host))

    def _leave(self, *who: tuple[str, str]) -> None:
        self._sessions.subtract(who)
        self._sessions = +self._sessions  # without those of whom there are none


def ip_of(address: str) -> IPv4Address | IPv6Address | None:
    """None of what is none, such as a Unix socket. An IPv4 address that is written as one of IPv6,
    as a server of both sees it, is IPv4."""
    try:
        ip = ip_address(address)
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if ip.version == 6 else ip


def _host(address: str) -> str:
    """What counts as one address."""
    ip = ip_of(address)
    if ip is None:
        return address
    return str(IPv6Network((int(ip), 64), strict=False)) if ip.version == 6 else str(ip)
