import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from serve.gateway.identity import (
    _MOST_SECRETS,
    LOCAL,
    LOCAL_OPERATOR,
    Client,
    Identity,
    Operator,
    Unauthorized,
)
from serve.gateway.limits import Allowance, OverLimit, Tenant

LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


FILE = f"""
tenants:
  - name: shop
    keys: ["{digest("sk_shop")}", "{digest("sk_shop_too")}"]
    allowance: {{sessions: 8, events_per_second: 50}}
  - name: bank
    keys: ["{digest("sk_bank")}"]
operators:
  - {{name: ann, keys: ["{digest("sk_ann")}", "{digest("sk_ann_too")}"], method: supervisor}}
  - {{name: bank, keys: ["{digest("sk_ben")}"], method: console}}  # a tenant may be named alike
"""
SHOP = Tenant("shop", Allowance(sessions=8, events_per_second=50))


class Clock:
    now_s = 1_000_000.25

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def identity(tmp_path: Path, clock: Clock) -> Identity:
    path = tmp_path / "tenants.yaml"
    path.write_text(FILE)
    return Identity(path, clock)


@pytest.mark.parametrize(
    "credential",
    ["Bearer sk_shop", "bearer  sk_shop", "sk_shop", "Bearer sk_shop_too"],
)
def test_a_key_says_whose_client_it_is(identity, credential):
    assert identity.of(credential, "203.0.113.9") == Client(SHOP)
    assert identity.of("Bearer sk_bank", "127.0.0.1") == Client(Tenant("bank"))


@pytest.mark.parametrize(
    "credential",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer sk_sho",
        "Bearer sk_shop ",
        "Bearer sk_shopp",
        "Bearer SK_SHOP",
        "Basic sk_shop",
        "Bearer " + digest("sk_shop"),
        "sk_ann",
        "ek_",
        "Bearer ek_unknown",
        "\ud800\0",
        "Bearer " + "a" * 1_000_000,
    ],
)
@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.9"])
def test_others_are_refused_and_not_told_why(identity, credential, address):
    with pytest.raises(Unauthorized, match=r"^the key is missing, wrong or expired$"):
        identity.of(credential, address)


@pytest.mark.parametrize("credential", ["Bearer sk_ann", "sk_ann", "bearer sk_ann_too"])
@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.9"])
def test_a_key_says_which_operator_it_is(identity, credential, address):
    assert identity.operator(credential, address) == Operator("ann", "supervisor")
    assert identity.operator("sk_ben", address) == Operator("bank", "console")
    assert identity.operator("sk_ben", address).actor == "operator:bank"


@pytest.mark.parametrize("credential", [None, "", "Bearer sk_shop", "sk_an", "ek_", "a" * 1000])
@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.9"])
def test_others_are_no_operators_and_not_told_why(identity, credential, address):
    with pytest.raises(Unauthorized, match=r"^the key is missing, wrong or expired$"):
        identity.operator(credential, address)


def test_a_client_secret_is_no_operators(identity, clock):
    local = Identity(None, clock)
    for known in (identity, local):
        made = known.mint(Client(LOCAL), {})
        with pytest.raises(Unauthorized):
            known.operator(made.value, "127.0.0.1")


@pytest.mark.parametrize("credential", [None, "sk_shop"])
def test_a_file_without_operators_has_none(tmp_path, clock, credential):
    path = tmp_path / "tenants.yaml"
    path.write_text(FILE.split("operators:")[0])
    with pytest.raises(Unauthorized):
        Identity(path, clock).operator(credential, "127.0.0.1")


@pytest.mark.parametrize("address", LOOPBACK)
@pytest.mark.parametrize("credential", [None, "", "Bearer anything"])
def test_without_a_file_who_is_here_is_local(clock, address, credential):
    assert Identity(None, clock).of(credential, address) == Client(LOCAL)
    assert Identity(None, clock).operator(credential, address) == LOCAL_OPERATOR


@pytest.mark.parametrize(
    "address", ["203.0.113.9", "10.0.0.1", "::ffff:10.0.0.1", "", "testclient"]
)
@pytest.mark.parametrize("credential", [None, "Bearer anything"])
def test_without_a_file_who_is_elsewhere_is_nobody(clock, address, credential):
    with pytest.raises(Unauthorized):
        Identity(None, clock).of(credential, address)
    with pytest.raises(Unauthorized):
        Identity(None, clock).operator(credential, address)


def test_a_client_secret_lets_in_with_its_session_until_it_expires(identity, clock):
    made = identity.mint(Client(SHOP), {"voice": "amber"}, ttl_s=60)
    assert made.value.startswith("ek_")
    assert len(made.value) > 40
    assert made.expires_at == 1_000_060
    assert made.session == {"voice": "amber"}
    for _ in range(2):  # as often as wanted
        client = identity.of(f"Bearer {made.value}", "203.0.113.9")
        assert client == Client(SHOP, {"voice": "amber"})
    clock.now_s = 1_000_059.9
    identity.of(made.value, "203.0.113.9")
    clock.now_s = 1_000_060
    with pytest.raises(Unauthorized):
        identity.of(made.value, "203.0.113.9")


def test_a_secret_lasts_ten_minutes_unless_told_otherwise(identity):
    assert identity.mint(Client(SHOP), {}).expires_at == 1_000_600


@pytest.mark.parametrize("ttl_s", [-1, 0, 9, 7201])
def test_another_time_is_refused(identity, ttl_s):
    with pytest.raises(ValueError, match=f"ttl_s {ttl_s} must be from 10 to 7200"):
        identity.mint(Client(SHOP), {}, ttl_s)


def test_a_secret_makes_no_secrets(identity):
    made = identity.mint(Client(SHOP), {})
    with pytest.raises(Unauthorized):
        identity.mint(identity.of(made.value, "203.0.113.9"), {})


def test_secrets_of_a_local_server(clock):
    """A wrong one is refused there as well: who has one means not to come as anybody."""
    local = Identity(None, clock)
    made = local.mint(local.of(None, "127.0.0.1"), {"voice": "amber"})
    assert local.of(made.value, "203.0.113.9") == Client(LOCAL, {"voice": "amber"})
    with pytest.raises(Unauthorized):
        local.of(made.value + "x", "127.0.0.1")


def test_a_tenant_has_so_many_secrets_and_others_theirs(identity, clock):
    first = identity.mint(Client(SHOP), {}, ttl_s=30)
    values = {identity.mint(Client(SHOP), {}).value for _ in range(_MOST_SECRETS - 1)}
    assert len(values) == _MOST_SECRETS - 1
    with pytest.raises(OverLimit) as refused:
        identity.mint(Client(SHOP), {})
    assert refused.value.code == "too_many_secrets"
    assert refused.value.retry_after_s == pytest.approx(first.expires_at - clock.now_s)
    identity.mint(Client(Tenant("bank")), {})
    clock.now_s += 30
    identity.mint(Client(SHOP), {})
    assert len(identity._secrets) == _MOST_SECRETS + 1  # the expired one is forgotten


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tenants:\n  - name: a\n   keys: []", r"line 3, column 4"),
        ("tenants: [", r"line 2"),
        ("", r"Expected `object`"),
        ("tenants: []", r"at `\$.tenants`"),
        ("tenants: [{name: ../a, keys: []}]", r"at `\$.tenants\[0\].name`"),
        ("tenants: [{keys: []}]", r"missing required field `name`"),
        ("tenants: [{name: a, keys: [sk_plain]}]", r"at `\$.tenants\[0\].keys\[0\]`"),
        ("tenants: [{name: a, keys: [], admin: true}]", r"unknown field `admin`"),
        (
            "tenants: [{name: a, keys: [], allowance: {sessions: 0}}]",
            r"at `\$.tenants\[0\].allowance.sessions`",
        ),
        ("tenants: [{name: a, keys: []}, {name: a, keys: []}]", r"`\$.tenants\[1\].name` a"),
        (FILE.replace(digest("sk_bank"), digest("sk_shop")), r"`\$.tenants\[1\].keys\[0\]`.*shop"),
        ('tenants: [{name: "a\\n", keys: []}]', r"at `\$.tenants\[0\].name`"),
        (FILE.replace(digest("sk_ben"), digest("sk_shop")), r"`\$.operators\[1\].keys\[0\]`.*shop"),
        (FILE.replace(digest("sk_ben"), digest("sk_ann")), r"`\$.operators\[1\].keys\[0\]`.*ann"),
        (FILE.replace("{name: bank", "{name: ann"), r"`\$.operators\[1\].name` ann"),
        (FILE.replace("method: console", "method: voice"), r"at `\$.operators\[1\].method`"),
        (FILE.replace(", method: console", ""), r"missing required field `method`"),
        (FILE.replace("method: console", "method: console, admin: 1"), r"unknown field `admin`"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, text, what):
    path = tmp_path / "tenants.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"(?s)tenants.yaml: .*{what}") as error:
        Identity(path)
    assert "sk_plain" not in str(error.value)


def test_a_new_key_and_its_digest_fit(tmp_path):
    command = [sys.executable, "-m", "serve.gateway.identity"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    key_line, file_line = printed.splitlines()
    path = tmp_path / "tenants.yaml"
    path.write_text(f"tenants: [{{name: a, keys: {file_line.split(': ')[1]}}}]")
    key = key_line.split(": ")[1]
    assert Identity(path).of(f"Bearer {key}", "203.0.113.9") == Client(Tenant("a"))
    assert key not in file_line
