"""The gateway over real sockets, in front of an engine whose agent follows a script."""

import base64
import contextlib
import hashlib
import json
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_server import gateway, scripted_engine, scripted_server
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

TOOL = {
    "type": "function", "name": "order_status", "description": "Where an order is.",
    "parameters": {
        "type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"],
    },
}  # fmt: skip
LOUD = (np.sin(np.arange(1920) / 5) * 8000).astype("<i2").tobytes()
QUIET = bytes(3840)
KEYS = {"shop": "sk_shop", "bank": "sk_bank"}


class Client:
    """Of OpenAI's Realtime protocol."""

    def __init__(self, url: str, path: str = "/v1/realtime", key: str = "x", **query: str) -> None:
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        address = f"{url.replace('http', 'ws')}{path}?{asked}"
        headers = {"Authorization": f"Bearer {key}"}
        opening = connect(address, additional_headers=headers)
        self.socket: ClientConnection = opening.__enter__()

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def say(self, *frames: bytes, pace_s: float = 0.0) -> None:
        for frame in frames:
            self.send("input_audio_buffer.append", audio=base64.b64encode(frame).decode())
            time.sleep(pace_s)

    def until(self, kind: str, seconds: float = 20) -> list[dict[str, Any]]:
        """All events up to the first of that kind."""
        events = []
        ends_s = time.monotonic() + seconds
        while not events or events[-1]["type"] != kind:
            events.append(json.loads(self.socket.recv(ends_s - time.monotonic())))
        return events

    def configure(self) -> None:
        self.send("session.update", session={"type": "realtime", "tools": [TOOL]})
        self.until("session.updated")


@contextlib.contextmanager
def client(*given: str, **query: str) -> Iterator[Client]:
    one = Client(*given, **query)
    with one.socket:
        yield one


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scripted_server(slots=3) as url:
        yield url


@pytest.fixture
def tenants(tmp_path: Path) -> Path:
    def entry(name: str) -> str:
        digest = hashlib.sha256(KEYS[name].encode()).hexdigest()
        return f"  - {{name: {name}, keys: ['{digest}'], allowance: {{sessions: 2}}}}\n"

    (tmp_path / "tenants.yaml").write_text(f"tenants:\n{entry('shop')}{entry('bank')}")
    return tmp_path / "tenants.yaml"


def status_of(refused: pytest.ExceptionInfo[InvalidStatus]) -> tuple[int, str]:
    response = refused.value.response
    return response.status_code, json.loads(response.body or b"{}")["error"]["code"]


def fetched(url: str, body: dict[str, Any] | None = None, key: str = "") -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_call_is_made_while_the_caller_speaks_and_its_result_is_used(url: str) -> None:
    with client(url) as caller:
        caller.configure()
        caller.say(*[LOUD] * 14, pace_s=0.08)
        events = caller.until("response.function_call_arguments.done")
        assert "input_audio_buffer.speech_started" in [event["type"] for event in events]
        assert "input_audio_buffer.speech_stopped" not in [event["type"] for event in events]
        call = events[-1]
        assert (call["name"], json.loads(call["arguments"])) == (
            "order_status", {"order_id": "48192"},
        )  # fmt: skip
        item = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"a": 1}'}
        caller.send("conversation.item.create", item=item)
        caller.send("response.create")
        events = caller.until("response.output_audio_transcript.done")
        assert events[-1]["transcript"].split()[:4] == ["your", "order", "has", "shipped"]
        audio = b"".join(
            base64.b64decode(event["delta"])
            for event in events if event["type"] == "response.output_audio.delta"
        )  # fmt: skip
        assert 29 <= len(audio) / 3840 <= 37
        caller.send("conversation.item.create", item=item)
        assert caller.until("error")[-1]["error"]["param"]


def test_who_speaks_over_the_agent_is_given_the_floor(url: str) -> None:
    with client(url) as caller:
        caller.configure()
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "?"}]}
        caller.send("conversation.item.create", item=item)
        caller.send("response.create")
        caller.say(QUIET)
        caller.until("response.output_audio.delta")
        caller.say(*[LOUD] * 6, pace_s=0.08)
        done = caller.until("response.done")[-1]["response"]
        assert done["status"] in ("cancelled", "completed")


def test_a_server_that_is_full_says_when_to_come_again(url: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(client(url))
        with pytest.raises(InvalidStatus) as refused, client(url):
            pass
        assert status_of(refused) == (503, "at_capacity")
        assert int(refused.value.response.headers["Retry-After"]) > 0
        with pytest.raises(InvalidStatus), client(url, "/v1/live/sessions"):
            pass
    with client(url) as caller:  # there is room again
        caller.until("session.created")


def turned_away(url: str, key: str = "x") -> tuple[dict[str, Any], ConnectionClosed]:
    """What a client of Hydra's is told for whom there is no session, and how his socket closes."""
    with client(url, "/waves/v1/s2s", key) as caller:
        error = json.loads(caller.socket.recv(20))["error"]
        with pytest.raises(ConnectionClosed) as closed:
            caller.socket.recv(20)
    return error, closed.value


def test_hydras_clients_are_told_inside_that_a_server_is_full(url: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(client(url, "/waves/v1/s2s")).until("session.created")
        host, port = url.removeprefix("http://").split(":")
        crowd = [
            stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(40)
        ]
        for one in crowd:  # more than may ask at once: the others wait to be told
            one.sendall(
                b"GET /waves/v1/s2s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n"
                b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
        for one in crowd:
            one.settimeout(20)
            told = b""
            while not told.endswith(b"\x03\xf5server_full"):  # 1013
                some = one.recv(4096)
                assert some
                told += some
            assert told.startswith(b"HTTP/1.1 101 ")
        error, closed = turned_away(url)
        assert (error["code"], error["type"]) == ("server_full", "server_error")
        assert error["retry_after_s"] > 0
        assert closed.rcvd
        assert closed.rcvd.code == 1013
        with pytest.raises(InvalidStatus) as refused, client(url):
            pass
        assert status_of(refused) == (503, "at_capacity")
    with client(url, "/waves/v1/s2s") as caller:  # there is room again
        caller.until("session.created")


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/live/sessions", "/waves/v1/s2s"])
def test_a_model_is_looked_up(url: str, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, client(url, path, model="../../etc/passwd"):
        pass
    assert status_of(refused) == (404, "model_not_found")


def test_a_page_of_another_site_may_not_call(url: str) -> None:
    address = f"{url.replace('http', 'ws')}/v1/realtime"
    with pytest.raises(InvalidStatus) as refused, connect(address, origin="https://evil.example"):  # pyright: ignore[reportArgumentType]
        pass
    assert status_of(refused) == (403, "origin_not_allowed")
    with connect(address, origin=url):  # pyright: ignore[reportArgumentType]
        pass


def test_a_page_whose_name_leads_here_may_not_call_without_a_key(url: str) -> None:
    port = url.rpartition(":")[2]
    name = f"evil.example:{port}"
    with socket.create_connection(("127.0.0.1", int(port))) as one:
        one.sendall(
            f"GET /v1/realtime HTTP/1.1\r\nHost: {name}\r\nOrigin: http://{name}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert one.recv(4096).startswith(b"HTTP/1.1 403 ")


def test_browsers_bring_their_key_as_a_subprotocol(tenants: Path) -> None:
    with scripted_server(f"tenants={tenants}") as url:
        code, told = fetched(f"{url}/v1/realtime/client_secrets", {}, KEYS["shop"])
        assert code == 200
        secret = json.loads(told)["value"]
        assert secret.startswith("ek_")
        address = f"{url.replace('http', 'ws')}/v1/realtime"
        offered = ["realtime", f"openai-insecure-api-key.{secret}", "openai-agents-sdk.0.1"]
        with connect(address, subprotocols=offered) as socket:  # pyright: ignore[reportArgumentType]
            assert socket.subprotocol == "realtime"
            assert json.loads(socket.recv())["type"] == "session.created"
        assert fetched(f"{url}/v1/realtime/client_secrets", {}, secret)[0] == 403


def test_a_client_secret_sets_the_session(tenants: Path) -> None:
    with scripted_server(f"tenants={tenants}") as url:
        asked = {"session": {"type": "realtime", "instructions": "Be brief.", "tools": [TOOL]}}
        _, told = fetched(f"{url}/v1/realtime/client_secrets", asked, KEYS["shop"])
        with client(url, "/v1/realtime", json.loads(told)["value"]) as caller:
            session = caller.until("session.created")[-1]["session"]
            assert session["instructions"] == "Be brief."
            caller.say(*[LOUD] * 14, pace_s=0.08)
            assert caller.until("response.function_call_arguments.done")


def test_nobody_gets_at_what_is_another_tenants(tenants: Path) -> None:
    with scripted_server(f"tenants={tenants}") as url:
        for key in ("", "wrong", "ek_" + "x" * 43, KEYS["shop"].upper()):
            with pytest.raises(InvalidStatus) as refused, client(url, "/v1/realtime", key):
                pass
            assert status_of(refused) == (401, "invalid_api_key")
        with client(url, "/v1/live/sessions", KEYS["shop"], extensions="duologue") as caller:
            caller.send("session.start", session={"type": "live", "model": "gpt-live"})
            started = caller.until("session.started")[-1]["session"]
            attach = f"/v1/live/sessions/{started['id']}/attach"
            for path, key in ((attach, "bank"), ("/v1/live/sessions/none/attach", "shop")):
                with pytest.raises(InvalidStatus) as refused, client(url, path, KEYS[key]):
                    pass
                assert status_of(refused) == (404, "session_not_found")
            with client(url, attach, KEYS["shop"]):
                pass


def test_a_tenant_has_so_many_sessions(tenants: Path) -> None:
    with scripted_server(f"tenants={tenants}") as url, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(client(url, "/v1/realtime", KEYS["shop"]))
        with pytest.raises(InvalidStatus) as refused, client(url, "/v1/realtime", KEYS["shop"]):
            pass
        assert status_of(refused) == (429, "too_many_sessions")
        assert turned_away(url, KEYS["shop"])[0]["code"] == "server_full"
        with client(url, "/v1/realtime", KEYS["bank"]):
            pass


def test_whoever_may_come_from_elsewhere_needs_tenants() -> None:
    with pytest.raises(AssertionError, match="ended"), gateway("ipc:///none", "host=0.0.0.0"):
        pass


def test_a_lost_client_comes_back_to_his_session(tenants: Path) -> None:
    with scripted_server(f"tenants={tenants}") as url:
        first = Client(url, "/v1/realtime", KEYS["shop"], extensions="duologue")
        created = first.until("session.created")[-1]
        token, session = created["resume_token"], created["session"]
        first.configure()
        first.say(*[LOUD] * 8, pace_s=0.08)
        first.socket.socket.shutdown(socket.SHUT_RDWR)  # no goodbye
        with pytest.raises(InvalidStatus):
            Client(url, "/v1/live/sessions", KEYS["shop"], resume=token)
        for key, code in (("bank", 404), ("shop", 101)):
            with contextlib.suppress(InvalidStatus):
                time.sleep(0.3)
                again = Client(url, "/v1/realtime", KEYS[key], resume=token)
                break
            assert code == 404
        assert again.until("session.created")[-1]["session"]["id"] == session["id"]
        again.say(*[LOUD] * 14, pace_s=0.08)
        assert again.until("response.function_call_arguments.done")
        again.socket.close()


def test_another_engine_goes_on_when_one_is_killed(tmp_path: Path) -> None:
    addresses = [f"ipc://{tmp_path}/{name}" for name in ("first", "second")]
    with (
        scripted_engine(addresses[0]) as first,
        scripted_engine(addresses[1]),
        gateway(",".join(addresses)) as url,
        client(url) as caller,
    ):
        caller.configure()
        caller.say(*[QUIET] * 5, pace_s=0.08)
        first.send_signal(signal.SIGKILL)
        caller.say(*[LOUD] * 20, pace_s=0.08)
        assert caller.until("response.function_call_arguments.done")
        assert "duologue_gateway_takeovers_total 1.0" in fetched(f"{url}/metrics")[1]


def test_a_server_that_ends_lets_calls_end() -> None:
    with scripted_server("gateway.drain_s=1") as url, client(url) as caller:
        caller.until("session.created")
        from_other = fetched(f"{url}/readyz")
        assert from_other == (200, "ok")
    with pytest.raises(ConnectionClosed):
        caller.socket.recv(5)


def test_what_operators_ask(url: str) -> None:
    assert fetched(f"{url}/healthz") == (200, "ok")
    assert fetched(f"{url}/readyz") == (200, "ok")
    with client(url) as caller:
        caller.until("session.created")
        told = fetched(f"{url}/metrics")[1]
        assert 'duologue_gateway_sessions{dialect="realtime"} 1.0' in told
    assert json.loads(fetched(f"{url}/v1/models")[1])["data"][0]["id"] == "nano"


def test_bad_messages_are_answered_and_disturb_nobody(url: str) -> None:
    with client(url) as caller, client(url) as other:
        other.configure()
        for data in ("{", "[]", "null", '{"type": "nope"}', b"\xff\x00", "9" * 100_000):
            caller.socket.send(data)
            assert caller.until("error")[-1]["error"]["type"] == "invalid_request_error"
        other.say(*[LOUD] * 14, pace_s=0.08)
        assert other.until("response.function_call_arguments.done")
        with contextlib.suppress(ConnectionClosed):
            caller.socket.send("x" * 2**23)  # more than a message may be
            caller.until("error")
        assert other.socket.ping().wait(5)


def test_a_client_who_does_not_read_is_dropped_alone(url: str) -> None:
    """His socket is full, and then what may wait for him."""
    with client(url, "/v1/live/sessions") as slow, client(url) as other:
        slow.send("session.start", session={"type": "live", "model": "gpt-live"})
        other.configure()
        slow.socket.recv_bufsize = 1
        other.say(*[LOUD] * 14, pace_s=0.08)
        assert other.until("response.function_call_arguments.done")
