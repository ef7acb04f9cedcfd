"""Calls over WebRTC: aiortc as the client, the real server in front of a scripted agent."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Coroutine, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.jitterbuffer import JitterBuffer
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket
from av import AudioFrame
from scripted_server import scripted_server
from starlette.requests import Request
from test_gateway import KEYS, TOOL, tenants  # noqa: F401

from serve.dialects.live import Live
from serve.dialects.realtime import Realtime
from serve.gateway.events import Configure, Heard, Settings, Started
from serve.gateway.link import Link
from serve.gateway.metrics import Metrics
from serve.gateway.refusal import Refusal
from serve.gateway.rtc_doors import _offered
from serve.gateway.session import Session, SessionConfig
from serve.gateway.socket import ClientSocket
from serve.gateway.webrtc import Peer, SoundApart, Voice, _InOrder
from serve.tools.runtime import ToolRuntime, ToolsConfig

SESSION = {"type": "realtime", "tools": [TOOL]}
FRAME = (np.sin(np.arange(1920) / 5) * 8000).astype("<i2").tobytes()


class Microphone(MediaStreamTrack):
    """A tone while `is_loud`, else silence."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.is_loud = False
        self._packets = 0
        self._start_s = 0.0

    async def recv(self) -> AudioFrame:
        loop = asyncio.get_running_loop()
        self._start_s = self._start_s or loop.time()
        await asyncio.sleep(self._start_s + self._packets * 0.02 - loop.time())
        time = np.arange(960) + 960 * self._packets
        tone = np.sin(time / 48_000 * 2 * np.pi * 200) * 8000 * self.is_loud
        frame = AudioFrame.from_ndarray(tone.astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
        frame.pts, self._packets = 960 * self._packets, self._packets + 1
        return frame


class Caller:
    """A client: what it is told, and how loud each packet of the agent is."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.microphone = Microphone()
        self.connection.addTrack(self.microphone)
        self.connection.on("track", self._hear)
        self.channel: RTCDataChannel = self.connection.createDataChannel("oai-events")
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.channel.on("message", lambda data: self.events.put_nowait(json.loads(data)))
        self.path = ""  # of his call
        self.is_closed = asyncio.Event()
        self.channel.on("close", self.is_closed.set)
        self.packets: asyncio.Queue[np.ndarray] = asyncio.Queue()
        self.loud = 0  # packets so far
        self._hearing: list[asyncio.Task[None]] = []

    def _hear(self, track: MediaStreamTrack) -> None:
        async def hear() -> None:
            with contextlib.suppress(MediaStreamError):
                while True:
                    frame = await track.recv()
                    assert isinstance(frame, AudioFrame)
                    self.packets.put_nowait(frame.to_ndarray()[0, ::2])  # of two channels

        self._hearing.append(asyncio.create_task(hear()))

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def connect(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def send(self, kind: str, **fields: Any) -> None:
        self.channel.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """All events up to the first of that kind."""
        events = []
        async with asyncio.timeout(20):
            while not events or events[-1]["type"] != kind:
                events.append(await self.events.get())
        return events

    async def until_heard(self, is_tone: bool, packets: int = 10) -> np.ndarray:
        """So many packets in a row that are loud, or are not."""
        run: list[np.ndarray] = []
        async with asyncio.timeout(20):
            while len(run) < packets:
                packet = await self.packets.get()
                self.loud += np.abs(packet).max() > 500
                run = [*run, packet] if (np.abs(packet).max() > 500) == is_tone else []
        return np.concatenate(run)


async def posted(
    url: str, body: str | bytes, kind: str = "application/sdp", **headers: str
) -> tuple[int, str, str]:
    """Status, Location and body."""
    data = body.encode() if isinstance(body, str) else body
    sent = {"Content-Type": kind, **headers}
    request = urllib.request.Request(url, data, sent, method="POST")

    def fetch() -> tuple[int, str, str]:
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status, reply.headers.get("Location", ""), reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, "", error.read().decode()

    return await asyncio.to_thread(fetch)


@contextlib.asynccontextmanager
async def caller(url: str) -> AsyncIterator[Caller]:
    """One who is connected."""
    one = Caller()
    try:
        status, location, answer = await posted(f"{url}/v1/realtime/calls", await one.offer())
        assert status == 201
        assert location.startswith("/v1/realtime/calls/")
        one.path = url + location
        await one.connect(answer)
        yield one
    finally:
        await one.connection.close()


def run(test: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(test, 60))


def code_of(told: str) -> tuple[str, str | None]:
    error = json.loads(told)["error"]
    return error["code"], error["param"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scripted_server(slots=2) as url:
        yield url


def test_a_call_over_webrtc(url: str) -> None:
    async def test() -> None:
        async with caller(url) as one:
            created = (await one.until("session.created"))[-1]
            assert created["session"]["audio"]["output"]["format"]["rate"] == 24_000
            one.send("session.update", session=SESSION)
            await one.until("session.updated")
            one.microphone.is_loud = True
            events = await one.until("response.function_call_arguments.done")
            kinds = [event["type"] for event in events]
            assert "input_audio_buffer.speech_started" in kinds
            assert "input_audio_buffer.speech_stopped" not in kinds  # he is speaking still
            call = events[-1]
            assert json.loads(call["arguments"]) == {"order_id": "48192"}
            one.microphone.is_loud = False
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": "{}"}
            one.send("conversation.item.create", item=output)
            one.send("response.create")
            await one.until("output_audio_buffer.started")
            heard = await one.until_heard(True, 50)
            assert np.sqrt(np.mean(heard**2.0)) == pytest.approx(0.2 / np.sqrt(2) * 32768, rel=0.1)
            spectrum = np.abs(np.fft.rfft(heard))
            assert np.fft.rfftfreq(len(heard), 1 / 48_000)[spectrum.argmax()] == pytest.approx(
                440, abs=5
            )
            told = [event["type"] for event in await one.until("output_audio_buffer.stopped")]
            assert "response.output_audio_transcript.delta" in told
            assert "response.output_audio.delta" not in told

    run(test())


def test_push_to_talk_over_webrtc(url: str) -> None:
    async def test() -> None:
        async with caller(url) as one:
            await one.until("session.created")
            asked = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
            one.send("session.update", session=asked)
            await one.until("session.updated")
            one.microphone.is_loud = True
            told = {"type": "error"}
            while told["type"] == "error":  # until a frame of his was heard
                one.send("input_audio_buffer.commit")
                told = await one.events.get()
            assert told["type"] == "input_audio_buffer.committed"

    run(test())


async def answered(one: Caller) -> None:
    """The agent begins to say what a call has brought: 120 packets."""
    await one.until("session.created")
    one.send("session.update", session=SESSION)
    one.microphone.is_loud = True
    call = (await one.until("response.function_call_arguments.done"))[-1]
    one.microphone.is_loud = False
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "{}"}
    one.send("conversation.item.create", item=output)
    await one.until("output_audio_buffer.started")
    await one.until_heard(True)


def test_who_cancels_or_interrupts_the_agent_hears_no_more_of_it(url: str) -> None:
    async def test() -> None:
        async with caller(url) as one:
            await answered(one)
            one.send("response.cancel")  # the agent goes on, heard by nobody
            done = (await one.until("response.done"))[-1]["response"]
            assert done["status"] == "cancelled"
            await one.until_heard(False, 25)
            assert one.loud < 60
        async with caller(url) as one:
            await answered(one)
            one.microphone.is_loud = True
            events = await one.until("response.done")
            assert "input_audio_buffer.speech_started" in [event["type"] for event in events]
            assert events[-1]["response"]["status"] == "cancelled"
            await one.until_heard(False, 25)
            assert one.loud < 90

    run(test())


def test_a_live_session_over_webrtc(url: str) -> None:
    async def test() -> None:
        one = Caller()
        session = {"type": "live", "model": "gpt-live", "delegation": {
            "type": "responses", "responses": {"tools": [TOOL]},
        }}  # fmt: skip
        transport = {"type": "webrtc", "sdp": await one.offer()}
        body = json.dumps({"session": session, "transport": transport})
        status, _, told = await posted(f"{url}/v1/live/sessions", body, "application/json")
        assert status == 201
        answer = json.loads(told)
        assert answer["transport"]["type"] == "webrtc"
        await one.connect(answer["transport"]["sdp"])
        started = (await one.until("session.started"))[-1]["session"]
        assert started["id"] == answer["session"]["id"]
        one.microphone.is_loud = True
        created = (await one.until("session.delegation.created"))[-1]["delegation"]
        one.microphone.is_loud = False
        call_id = created["response_id"].removeprefix("resp_")
        item = {"type": "function_call_output", "call_id": call_id, "output": "{}"}
        one.send("response.item.create", item=item)
        await one.until_heard(True, 50)
        one.send("session.input_audio.append", audio="AAAA")
        assert (await one.until("error"))[-1]["error"]["code"] == "not_allowed"
        one.send("session.close")
        assert (await one.until("session.closed"))[-1]["reason"] == "close_requested"
        await one.is_closed.wait()
        await one.connection.close()

    run(test())


def test_a_call_ends_by_a_request_or_with_its_client(url: str) -> None:
    async def test() -> None:
        for _ in range(3):  # more than there is room for at once
            async with caller(url) as one:
                await one.until("session.created")
                status, _, _ = await posted(f"{one.path}/hangup", "")
                assert status == 200
                await asyncio.wait_for(one.is_closed.wait(), 10)
                status, _, told = await posted(f"{one.path}/hangup", "")
                assert (status, code_of(told)[0]) == (404, "session_not_found")
        for _ in range(3):
            async with caller(url) as one:
                await one.until("session.created")
            async with asyncio.timeout(10):  # it is over soon
                while (await posted(f"{one.path}/hangup", ""))[0] != 404:
                    await asyncio.sleep(0.1)

    run(test())


def test_who_cannot_be_answered_is_told_why(url: str) -> None:
    async def test() -> None:
        one = Caller()
        offer, calls = await one.offer(), f"{url}/v1/realtime/calls"
        lines = offer.splitlines(keepends=True)
        without_opus = "".join(line for line in lines if "opus" not in line)
        no_channel = offer[: offer.index("m=application")]
        twice = offer + offer[offer.index("m=audio") : offer.index("m=application")]
        no_setup = "".join(line for line in lines if "a=setup" not in line)
        wrong = {
            "a=ice-ufrag": "a=x",
            "m=audio ": "m=audio x",
            "opus/48000": "opus/x",
            " UDP": " x",
        }
        for sdp in (
            "", "hello", "v=0\r\n", without_opus, no_channel, twice, no_setup,
            *(offer.replace(one, other) for one, other in wrong.items()),
            offer + "a=candidate:1\r\n", offer + "x" * 70_000, offer.encode()[:300] + b"\xff\x00",
        ):  # fmt: skip
            status, _, told = await posted(calls, sdp)
            assert status == 400, sdp
            assert code_of(told) == ("invalid_offer", "sdp")
        assert (await posted(f"{calls}?model=none", offer))[0] == 404
        assert (await posted(calls, offer + "x" * 300_000))[0] == 413
        elsewhere = await posted(calls, offer, Origin="https://evil.example")
        assert elsewhere[0] == 403
        live = f"{url}/v1/live/sessions"
        transport = {"type": "webrtc", "sdp": offer}
        for session, param in (({"model": 1}, "session.model"), ({}, "model")):
            body = json.dumps({"session": session, "transport": transport})
            status, _, told = await posted(live, body, "application/json")
            assert status == 400
            assert param in str(code_of(told)[1])
        for body in ("{", "[]", json.dumps({"session": {}, "transport": {"type": "sip"}})):
            assert (await posted(live, body, "application/json"))[0] == 400
        async with caller(url) as first, caller(url) as second:  # nobody has kept a place
            await first.until("session.created")
            await second.until("session.created")

    run(test())


def test_a_server_that_is_full_refuses_calls(url: str) -> None:
    async def test() -> None:
        async with caller(url), caller(url):
            status, _, told = await posted(f"{url}/v1/realtime/calls", await Caller().offer())
            assert (status, code_of(told)[0]) == (503, "at_capacity")

    run(test())


def test_a_key_is_needed_and_a_secret_sets_the_session(tenants: Path) -> None:  # noqa: F811
    with scripted_server(f"tenants={tenants}") as url:

        async def test() -> None:
            one, calls = Caller(), f"{url}/v1/realtime/calls"
            offer = await one.offer()
            for key in ("", "wrong"):
                status, _, told = await posted(calls, offer, Authorization=f"Bearer {key}")
                assert (status, code_of(told)[0]) == (401, "invalid_api_key")
            asked = json.dumps({"session": SESSION | {"instructions": "Be brief."}})
            shop = {"Authorization": f"Bearer {KEYS['shop']}"}
            _, _, told = await posted(f"{url}/v1/realtime/client_secrets", asked, "", **shop)
            secret = {"Authorization": f"Bearer {json.loads(told)['value']}"}
            status, location, answer = await posted(calls, offer, **secret)
            assert status == 201
            await one.connect(answer)
            session = (await one.until("session.created"))[-1]["session"]
            assert session["instructions"] == "Be brief."
            assert session["tools"] == [TOOL]
            bank = {"Authorization": f"Bearer {KEYS['bank']}"}
            assert (await posted(f"{url}{location}/hangup", "", **bank))[0] == 404
            assert (await posted(f"{url}{location}/hangup", "", **shop))[0] == 200
            await one.connection.close()

        run(test())


def test_pages_that_may_call_are_told_so() -> None:
    page = "https://shop.example"
    with scripted_server(f"gateway.origins=[{page}]") as url:
        for origin, allowed in ((page, page), ("https://evil.example", None)):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            asked |= {"Access-Control-Request-Headers": "authorization,content-type"}
            calls = f"{url}/v1/realtime/calls"
            request = urllib.request.Request(calls, headers=asked, method="OPTIONS")
            try:
                headers = urllib.request.urlopen(request).headers
            except urllib.error.HTTPError as error:
                headers = error.headers
            assert headers.get("Access-Control-Allow-Origin") == allowed


def request_of(kind: str, body: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "headers": [(b"content-type", kind.encode())]}, receive)


@pytest.mark.parametrize("filename", ["", '; filename="blob"'])
def test_an_offer_comes_alone_or_in_a_form(filename: str) -> None:
    alone = request_of("application/sdp", b"v=0\r\na=b\r\n")
    assert run(_offered(alone)) == ("v=0\r\na=b\r\n", {})
    body = (
        f'--x\r\nContent-Disposition: form-data; name="sdp"{filename}\r\n'
        "Content-Type: application/sdp\r\n\r\nv=0\r\na=b\r\n\r\n"
        f'--x\r\nContent-Disposition: form-data; name="session"{filename}'
        '\r\n\r\n{"voice": "ava"}\r\n--x--\r\n'
    )
    form = request_of("multipart/form-data; boundary=x", body.encode())
    assert run(_offered(form)) == ("v=0\r\na=b\r\n", {"voice": "ava"})
    damaged = body.replace("}", "").encode()
    with pytest.raises(Refusal, match="truncated") as refused:
        run(_offered(request_of("multipart/form-data; boundary=x", damaged)))
    assert refused.value.status == 400


def test_whose_session_has_ended_before_he_listens_is_told(tmp_path: Path) -> None:
    class Deaf:
        closed: tuple[int, str] | None = None

        async def receive(self) -> str | bytes | None:
            await asyncio.Event().wait()

        async def send(self, data: str | bytes) -> bool:
            return True

        async def close(self, code: int, reason: str) -> None:
            self.closed = code, reason

    async def test() -> None:
        metrics, channel = Metrics(), Deaf()
        tools = ToolRuntime(ToolsConfig(audit=str(tmp_path / "audit.sqlite")))
        about = ("local", Link([], metrics), SessionConfig(), metrics, tools)
        session = Session("s", "t", 0, *about)
        session.end("server_ends")
        dialect = Realtime("m", None, False)
        await ClientSocket(channel, dialect, session, lambda size_bytes: 0.0, metrics).run()
        assert channel.closed is not None
        await tools.close()
        assert channel.closed[1] == "server_ends"

    run(test())


def packets_of(voice: Voice, count: int) -> list[np.ndarray]:
    """The next ones."""

    async def take() -> list[np.ndarray]:
        return [(await voice.recv()).to_ndarray()[0, ::2] for _ in range(count)]

    return asyncio.run(take())


def is_loud(packet: np.ndarray) -> bool:
    return float(np.abs(packet).mean()) > 2000


def test_the_agents_voice_is_never_late() -> None:
    async def make() -> Voice:
        return Voice()

    voice = asyncio.run(make())
    assert not np.any(packets_of(voice, 2))  # silence where there is nothing
    voice.play(FRAME, True)
    loud = packets_of(voice, 5)
    assert [len(packet) for packet in loud] == [960] * 5
    assert [is_loud(packet) for packet in loud] == [True] * 4 + [False]
    for _ in range(3):
        voice.play(bytes(3840), False)  # the third silence is left out
    voice.play(FRAME, True)
    assert [is_loud(one) for one in packets_of(voice, 6)] == [False] * 4 + [True] * 2
    for _ in range(20):
        voice.play(FRAME, True)
    assert [bool(np.any(one)) for one in packets_of(voice, 21)] == [True] * 20 + [False]
    voice.play(FRAME, True)
    voice.hush()
    assert not np.any(packets_of(voice, 2))


def test_sound_goes_apart() -> None:
    class Played(Voice):
        def __init__(self) -> None:
            self.frames = 0

        def play(self, audio: bytes, is_voiced: bool) -> None:
            self.frames += 1

        def hush(self) -> None:
            self.frames = 0

    started = Started("s", Settings(), "")
    update = {"type": "session.update", "session": {
        "type": "realtime", "instructions": "Hi.",
        "audio": {"input": {"format": {"type": "audio/pcmu"}}},
    }}  # fmt: skip
    append = {"type": "input_audio_buffer.append", "audio": "AAAA"}
    for dialect, stays in (
        (Realtime("m", {"audio": update["session"]["audio"]}, False, False), 0),
        (Live("m", False, False), 3),
    ):
        voice = Played()
        apart = SoundApart(dialect, voice)
        assert apart.opening.input_format is None
        list(apart.told(started))
        if isinstance(dialect, Realtime):
            commands = list(apart.received(json.dumps(update)))
            assert commands == [Configure(instructions="Hi.")]
            assert list(apart.received(json.dumps(append))) == []
        for number in range(3):
            list(apart.told(Heard(number, FRAME, True, "word", "", "agent")))
        assert voice.frames == 3
        list(apart.received('{"type": "response.cancel"}'))
        assert voice.frames == stays
        list(apart.told(Heard(3, FRAME, True, "word", "", "agent")))
        assert voice.frames == (stays and stays + 1)


def test_a_lost_packet_keeps_nobody_waiting() -> None:
    def packet(number: int) -> RtpPacket:
        made = RtpPacket(sequence_number=number % 2**16, timestamp=960 * number)
        made._data = bytes([number % 256])  # pyright: ignore
        return made

    buffer = _InOrder()
    order = [65534, 65535, 65536, 65538, 65537, 65538, 65540, 7 + 65536 - 20_000]
    given = [buffer.add(packet(number))[1] for number in order]
    assert [bool(one) for one in given] == [True, True, True, True, False, False, True, True]
    assert given[3] is not None
    assert given[3].data == bytes([65538 % 256])


def test_aiortcs_own_jitter_buffer_is_not_used() -> None:
    place = "_RTCRtpReceiver__jitter_buffer"

    async def test() -> None:
        peer, one = Peer(), Caller()
        await peer.take(await one.offer())
        ours, theirs = (
            vars(connection.getTransceivers()[0].receiver)
            for connection in (peer._connection, one.connection)
        )
        assert isinstance(theirs[place], JitterBuffer)  # else another place is used now
        assert isinstance(ours[place], _InOrder)
        await peer.end()
        await one.connection.close()

    run(test())
