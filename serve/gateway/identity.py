"""Who a client is: a key of a tenant's, or a short-lived secret that a tenant made for a browser.
And who an operator is, by a key that is no tenant's.

`python -m serve.gateway.identity` makes a key. The file of tenants knows only its digest:

    tenants:
      - name: shop
        keys: ["<SHA-256 of a key, in hex>"]
        allowance: {sessions: 8, bytes_per_second: 400000, events_per_second: 200}
    operators:
      - {name: ann, keys: ["<another one's>"], method: supervisor}
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

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
class Operator:
    """A human who watches all calls; `method` is how strong his word is (serve/tools/policy.py)."""

    name: str
    method: Literal["console", "supervisor"]

    @property
    def actor(self) -> str:
        """As the audit log has it."""
        return f"operator:{self.name}"


LOCAL_OPERATOR = Operator("local", "supervisor")


@dataclass(frozen=True)
class ClientSecret:
    """`value` lets its bearer in as a client of the tenant's, until `expires_at` (Unix time)."""

    value: str
    expires_at: int
    session: Mapping[str, Any]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    keys: list[Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]]


class _TenantEntry(_Entry):
    allowance: Allowance = msgspec.field(default_factory=Allowance)

    def owner(self) -> Tenant:
        return Tenant(self.name, self.allowance)


class _OperatorEntry(_Entry):
    method: Literal["console", "supervisor"]

    def owner(self) -> Operator:
        return Operator(self.name, self.method)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tenants: Annotated[list[_TenantEntry], msgspec.Meta(min_length=1)]
    operators: list[_OperatorEntry] = []


class Identity:
    """Knows the tenants and operators of a file. Without one, whoever is on this machine is LOCAL,
    and LOCAL_OPERATOR, and needs no key. `clock` gives Unix time."""

    def __init__(self, tenants: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Raises ValueError with the line or the field where something is wrong in the file."""
        self._owners = None if tenants is None else _owners(tenants)
        self._clock = clock
        self._secrets: dict[str, tuple[Tenant, ClientSecret]] = {}  # by digest

    @property
    def has_tenants(self) -> bool:
        """Whether a key is needed."""
        return self._owners is not None

    def of(self, credential: str | None, address: str) -> Client:
        """`credential` is a header `Authorization` or what follows `Bearer` in one. Raises
        Unauthorized."""
        key = _key_in(credential)
        if key.startswith(_SECRET):
            tenant, secret = self._secrets.get(_digest(key), (None, None))
            if tenant is None or secret is None or secret.expires_at <= self._clock():
                raise Unauthorized
            return Client(tenant, secret.session)
        owner = self._owner(key, address, LOCAL)
        if not isinstance(owner, Tenant):
            raise Unauthorized
        return Client(owner)

    def operator(self, credential: str | None, address: str) -> Operator:
        """Likewise. A client secret is nobody's here. Raises Unauthorized."""
        key = _key_in(credential)
        owner = self._owner(key, address, LOCAL_OPERATOR)
        if key.startswith(_SECRET) or not isinstance(owner, Operator):
            raise Unauthorized
        return owner

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

    def _owner(self, key: str, address: str, local: Tenant | Operator) -> Tenant | Operator | None:
        """Whose a key is; `local` where none is needed."""
        if self._owners is not None:
            # Digests are looked up: how long that takes says nothing of how much of a key is right.
            return self._owners.get(_digest(key))
        ip = ip_of(address)
        return local if ip is not None and ip.is_loopback else None


def _key_in(credential: str | None) -> str:
    """Raises Unauthorized where it can't be one."""
    key = re.sub("^bearer +", "", credential or "", flags=re.IGNORECASE)
    if len(key) > _LONGEST:
        raise Unauthorized
    return key


def _digest(key: str) -> str:
    return sha256(key.encode(errors="replace")).hexdigest()


def _owners(path: Path) -> dict[str, Tenant | Operator]:
    """Tenants and operators by the digests of their keys."""
    try:
        file = msgspec.yaml.decode(path.read_bytes(), type=_File)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name}: {error}") from error
    owners: dict[str, Tenant | Operator] = {}
    for group, entries in (("tenants", file.tenants), ("operators", file.operators)):
        for number, entry in enumerate(entries):
            field = f"$.{group}[{number}]"
            if any(entry.name == other.name for other in entries[:number]):
                raise ValueError(f"{path.name}: `{field}.name` {entry.name} is there twice")
            for place, key in enumerate(entry.keys):
                if key in owners:
                    whose = f"is a key of {owners[key].name}'s already"
                    raise ValueError(f"{path.name}: `{field}.keys[{place}]` {whose}")
                owners[key] = entry.owner()
    return owners


if __name__ == "__main__":
    new = "sk_" + secrets.token_urlsafe(32)
    print(f"Whose it is, once: {new}\nFor `keys` in the file: ['{_digest(new)}']")
