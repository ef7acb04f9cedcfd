"""Who a client is: a key of a tenant's, or a short-lived secret that a tenant made for a browser.

`python -m serve.gateway.identity` makes a key. The file of tenants knows only its digest:

    tenants:
      - name: shop
        keys: ["<SHA-256 of a key, in hex>"]
        allowance: {sessions: 8, bytes_per_second: 400000, events_per_second: 200}
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import msgspec

from serve.gateway.limits import Allowance, OverLimit, Tenant, ip_of

LOCAL = Tenant("local")
_SECRET = "ek_"
_MOST_SECRETS = 1000  # of a tenant at once
_LONGEST = 500  # letters of a key
_TTL_S = (10, 7200)


class Unauthorized(Exception):
    """There is no such client. Why is told to nobody."""

    def __init__(self) -> None:
        super().__init__("the key is missing, wrong or expired")


@dataclass(frozen=True)
class Client:
    """Who calls. One who came with a client secret has the session that was set for it."""

    tenant: Tenant
    preset: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ClientSecret:
    """`value` lets its bearer in as a client of the tenant's, until `expires_at` (Unix time)."""

    value: str
    expires_at: int
    session: Mapping[str, Any]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    keys: list[Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]]
    allowance: Allowance = msgspec.field(default_factory=Allowance)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tenants: Annotated[list[_Entry], msgspec.Meta(min_length=1)]


class Identity:
    """Knows the tenants of a file. Without one, whoever is on this machine is LOCAL and needs no
    key. `clock` gives Unix time."""

    def __init__(self, tenants: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Raises ValueError with the line or the field where something is wrong in the file."""
        self._owners = None if tenants is None else _owners(tenants)
        self._clock = clock
        self._secrets: dict[str, tuple[Tenant, ClientSecret]] = {}  # by digest

    def of(self, credential: str | None, address: str) -> Client:
        """`credential` is a header `Authorization` or what follows `Bearer` in one. Raises
        Unauthorized."""
        key = re.sub("^bearer +", "", credential or "", flags=re.IGNORECASE)
        if len(key) > _LONGEST:
            raise Unauthorized
        # Digests are looked up: how long that takes says nothing of how much of a key is right.
        digest = _digest(key)
        if key.startswith(_SECRET):
            tenant, secret = self._secrets.get(digest, (None, None))
            if tenant is None or secret is None or secret.expires_at <= self._clock():
                raise Unauthorized
            return Client(tenant, secret.session)
        if self._owners is None:
            ip = ip_of(address)
            if ip is None or not ip.is_loopback:
                raise Unauthorized
            return Client(LOCAL)
        if digest not in self._owners:
            raise Unauthorized
        return Client(self._owners[digest])

    def mint(self, client: Client, session: Mapping[str, Any], ttl_s: int = 600) -> ClientSecret:
        """A secret for sessions that are set to `session`. Raises ValueError on another `ttl_s`
        than 10 to 7200, OverLimit where the tenant has too many, Unauthorized where `client` came
        with one himself."""
        if not _TTL_S[0] <= ttl_s <= _TTL_S[1]:
            raise ValueError(f"ttl_s {ttl_s} must be from {_TTL_S[0]} to {_TTL_S[1]}")
        if client.preset is not None:
            raise Unauthorized
        now_s = self._clock()
        self._secrets = {d: s for d, s in self._secrets.items() if s[1].expires_at > now_s}
        ends = [made.expires_at for owner, made in self._secrets.values() if owner == client.tenant]
        if len(ends) >= _MOST_SECRETS:
            raise OverLimit("too_many_secrets", "too many client secrets", min(ends) - now_s)
        made = ClientSecret(_SECRET + secrets.token_urlsafe(32), int(now_s) + ttl_s, session)
        self._secrets[_digest(made.value)] = client.tenant, made
        return made


def _digest(key: str) -> str:
    return sha256(key.encode(errors="replace")).hexdigest()


def _owners(path: Path) -> dict[str, Tenant]:
    """Tenants by the digests of their keys."""
    try:
        entries = msgspec.yaml.decode(path.read_bytes(), type=_File).tenants
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name}: {error}") from error
    owners: dict[str, Tenant] = {}
    for number, entry in enumerate(entries):
        if any(entry.name == other.name for other in entries[:number]):
            raise ValueError(f"{path.name}: `$.tenants[{number}].name` {entry.name} is there twice")
        for place, key in enumerate(entry.keys):
            if key in owners:
                field = f"$.tenants[{number}].keys[{place}]"
                raise ValueError(f"{path.name}: `{field}` is a key of {owners[key].name}'s already")
            owners[key] = Tenant(entry.name, entry.allowance)
    return owners


if __name__ == "__main__":
    new = "sk_" + secrets.token_urlsafe(32)
    print(f"For the client, once: {new}\nFor `keys` of its tenant: ['{_digest(new)}']")
