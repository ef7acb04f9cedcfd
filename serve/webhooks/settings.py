"""Who is told of what: a YAML file, with the names of the secrets that sign it.

- url: https://flows.shop.example/duologue
  secret_env: FLOWS_SECRET              # a variable of the environment
  types: [io.duologue.session.ended]    # without it: of all
  tenants: [shop]                       # without it: of all tenants
"""

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx2
import msgspec
from standardwebhooks import Webhook

from serve.gateway.limits import ip_of
from serve.webhooks.events import CloudEvent, Type

_PREFIX = "whsec_"


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
    # No secret by mistake: an error says what the variable is called.
    secret_env: Annotated[str, msgspec.Meta(pattern=rf"^(?!{_PREFIX})[A-Za-z_][A-Za-z0-9_]*$")]
    types: Annotated[frozenset[Type], msgspec.Meta(min_length=1)] | None = None
    tenants: Annotated[frozenset[str], msgspec.Meta(min_length=1)] | None = None


@dataclass(frozen=True)
class Receiver:
    """Is sent what is signed by `signer`: events of these types and tenants; None is any."""

    url: str
    signer: Webhook
    types: frozenset[str] | None = None
    tenants: frozenset[str] | None = None

    @property
    def host(self) -> str:
        """What logs say: the path of a receiver's may be as good as a key."""
        return httpx2.URL(self.url).host

    def wants(self, event: CloudEvent) -> bool:
        """Whether it is to be sent that."""
        is_of_type = self.types is None or event.type in self.types
        return is_of_type and (self.tenants is None or event.data["tenant"] in self.tenants)


def read_receivers(path: Path, environment: Mapping[str, str] = os.environ) -> list[Receiver]:
    """Those of a file. Raises ValueError with the line or the field where something is wrong."""
    try:
        entries = msgspec.yaml.decode(path.read_bytes(), type=list[_Entry])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name}: {error}") from error
    receivers: list[Receiver] = []
    for number, entry in enumerate(entries):
        try:
            if any(entry.url == other.url for other in receivers):
                raise ValueError("url: is there twice")
            receivers.append(_receiver(entry, environment))
        except (ValueError, httpx2.InvalidURL) as error:
            raise ValueError(f"{path.name}: `$[{number}]` {error}") from error
    return receivers


def _receiver(entry: _Entry, environment: Mapping[str, str]) -> Receiver:
    url = httpx2.URL(entry.url)
    ip = ip_of(url.host)
    is_loopback = url.host == "localhost" or (ip is not None and ip.is_loopback)
    if url.scheme != "https" and not is_loopback:
        raise ValueError("url: must be https, but for a receiver on loopback")
    if entry.secret_env not in environment:
        raise ValueError(f"secret_env: the environment has no variable {entry.secret_env}")
    signer = _signer(entry.secret_env, environment[entry.secret_env])
    return Receiver(entry.url, signer, entry.types, entry.tenants)


def _signer(name: str, secret: str) -> Webhook:
    """Raises ValueError, which does not say what the secret is."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(f"secret_env: {name} must be {_PREFIX} and 24 to 64 bytes in base64")
    return Webhook(key)
