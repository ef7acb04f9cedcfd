"""Sound of clients; FFmpeg and libsndfile judge the codes of G.711, soxr the rates."""

import io
from typing import cast

import av
import numpy as np
import pytest
import soundfile
import soxr

from model.frame import FRAME_SIZE, SAMPLE_RATE_HZ
from serve.gateway.audio import AudioFormat, Incoming, Outgoing, decoded, encoded

PCM24 = AudioFormat("pcm16", 24_000)
FORMATS = [
    *(AudioFormat("pcm16", rate_hz) for rate_hz in (8_000, 16_000, 24_000, 48_000)),
    AudioFormat("mulaw", 8_000),
    AudioFormat("alaw", 8_000),
]
PHONE = FORMATS[-2:]
ALL_SAMPLES = np.arange(-32768, 32768).astype("<i2")
DELAY_MS = {8_000: 7.25, 16_000: 3.625, 24_000: 0.0, 48_000: 3.625}  # each way


def name(sound: AudioFormat) -> str:
    return f"{sound.encoding}-{sound.rate_hz}"


def samples_of(frames: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(frames), "<i2").astype(float)


def speech_band(rate_hz: int, seconds: int) -> np.ndarray:
    """Noise up to 0.88 of what fits at both rates, in int16."""
    noise = np.random.default_rng(0).standard_normal(rate_hz * seconds)
    spectrum = np.fft.rfft(noise)
    spectrum[int(0.44 * min(rate_hz, SAMPLE_RATE_HZ) * seconds) :] = 0
    shaped = np.fft.irfft(spectrum)
    return (shaped / np.abs(shaped).max() * 20_000).round().astype("<i2")


def heard(sound: AudioFormat, audio: bytes, sizes: list[int] | None = None) -> list[bytes]:
    """What the engine gets of `audio` that comes in pieces of these sizes, over and over."""
    incoming, frames, sizes = Incoming(sound), [], sizes or [len(audio)]
    start = number = 0
    while start < len(audio):
        size = sizes[number % len(sizes)]
        frames += incoming.feed(audio[start : start + size])
        start, number = start + size, number + 1
    return frames


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "what"),
    [
        ("opus", 48_000, "encoding 'opus' must be one of pcm16, mulaw, alaw"),
        ("pcm16", 44_100, "rate_hz 44100 of pcm16 must be of 8000, 16000, 24000, 48000"),
        ("mulaw", 16_000, "rate_hz 16000 of mulaw must be of 8000"),
        ("alaw", 0, "rate_hz 0 of alaw"),
    ],
)
def test_other_formats_are_refused(encoding, rate_hz, what):
    with pytest.raises(ValueError, match=what):
        AudioFormat(encoding, rate_hz)


@pytest.mark.parametrize("sound", FORMATS, ids=name)
def test_a_frame_is_80_ms(sound):
    assert sound.frame_bytes == sound.rate_hz * 80 // 1000 * sound.sample_bytes
    assert len(Outgoing(sound).encode(bytes(2 * FRAME_SIZE))) == sound.frame_bytes
    incoming = Incoming(sound)
    assert incoming.feed(bytes(sound.frame_bytes - 1)) == []
    assert [len(frame) for frame in incoming.feed(bytes(2))] == [2 * FRAME_SIZE]
    assert [len(frame) for frame in incoming.feed(bytes(3 * sound.frame_bytes))] == [3840] * 3


def test_pcm16_at_24_khz_stays_as_it_is_both_ways():
    audio = np.random.default_rng(1).bytes(2 * FRAME_SIZE * 50)
    assert b"".join(heard(PCM24, audio, [1, 4093, 7])) == audio
    outgoing = Outgoing(PCM24)
    frames = [audio[i : i + 2 * FRAME_SIZE] for i in range(0, len(audio), 2 * FRAME_SIZE)]
    assert b"".join(map(outgoing.encode, frames)) == audio


@pytest.mark.parametrize("sound", FORMATS, ids=name)
@pytest.mark.parametrize("sizes", [[1], [3, 160, 641], [9_999]], ids=str)
def test_sound_in_pieces_is_heard_as_in_one(sound, sizes):
    audio = np.random.default_rng(2).bytes(sound.frame_bytes * 12)
    assert heard(sound, audio, sizes) == heard(sound, audio)


@pytest.mark.parametrize("sound", FORMATS, ids=name)
def test_what_is_missing_of_a_frame_is_silence(sound):
    """The same as if the client had sent silence, and what comes after is whole again."""
    loud = encoded(speech_band(sound.rate_hz, 1), sound)
    quiet = encoded(np.zeros(sound.rate_hz, "<i2"), sound)
    part = sound.sample_bytes * 100
    half = part + sound.sample_bytes - 1  # of PCM, half a sample too much
    incoming = Incoming(sound)
    assert incoming.feed(loud[:half]) == []
    late = [incoming.fill(), incoming.fill()]
    late += incoming.feed(loud[half : half + sound.frame_bytes])

    silence = quiet[: 2 * sound.frame_bytes - part]
    expected = heard(sound, loud[:part] + silence + loud[part : part + sound.frame_bytes])
    zero = 0 if sound.encoding != "alaw" else 10  # it has none: +8 is nearest
    assert np.abs(samples_of(late) - samples_of(expected)).max() <= zero
    assert np.any(samples_of(late[:1]))


@pytest.mark.parametrize("sound", PHONE, ids=name)
def test_codes_stand_for_what_ffmpeg_says(sound):
    codes = bytes(range(256))
    context = cast(av.AudioCodecContext, av.CodecContext.create(f"pcm_{sound.encoding}", "r"))
    context.sample_rate, context.layout = 8_000, "mono"
    [frame] = context.decode(av.Packet(codes))
    assert np.array_equal(decoded(codes, sound), frame.to_ndarray()[0])
    # Of two zeros in mu-law, the positive one is written.
    again = encoded(decoded(codes, sound), sound)
    assert again == (codes.replace(b"\x7f", b"\xff") if sound.encoding == "mulaw" else codes)


@pytest.mark.parametrize("sound", PHONE, ids=name)
def test_samples_become_the_codes_of_ffmpeg_and_libsndfile(sound):
    ours = np.frombuffer(encoded(ALL_SAMPLES, sound), np.uint8)
    context = cast(av.AudioCodecContext, av.CodecContext.create(f"pcm_{sound.encoding}", "w"))
    context.sample_rate, context.layout, context.format = 8_000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(ALL_SAMPLES[None], format="s16", layout="mono")
    frame.sample_rate = 8_000
    packets = context.encode(frame) + context.encode(None)
    ffmpeg = np.frombuffer(b"".join(bytes(packet) for packet in packets), np.uint8)
    # FFmpeg puts its bounds in the middle between values, G.711 at the ends of segments elsewhere.
    assert np.mean(ours == ffmpeg) > 0.985
    ranks = np.argsort(np.argsort(decoded(bytes(range(256)), sound), kind="stable"))
    assert np.abs(ranks[ours] - ranks[ffmpeg]).max() == 1

    written = io.BytesIO()
    subtype = {"mulaw": "ULAW", "alaw": "ALAW"}[sound.encoding]
    soundfile.write(written, ALL_SAMPLES, 8_000, subtype=subtype, format="RAW")
    libsndfile = np.frombuffer(written.getvalue(), np.uint8)
    differ = ALL_SAMPLES[ours != libsndfile]
    # Below zero, exactly on the 127 bounds, either side is right.
    assert len(differ) == 127
    assert np.all(differ < 0)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("is_heard", [True, False], ids=["in", "out"])
def test_rates_change_as_soxr_changes_them(rate_hz, is_heard):
    sound = AudioFormat("pcm16", rate_hz)
    to_hz = SAMPLE_RATE_HZ if is_heard else rate_hz
    said = speech_band(rate_hz if is_heard else SAMPLE_RATE_HZ, 4)
    if not is_heard:  # nothing that does not fit into what goes out
        said = soxr.resample(soxr.resample(said, SAMPLE_RATE_HZ, 7_000), 7_000, SAMPLE_RATE_HZ)
        said = said[: 4 * SAMPLE_RATE_HZ]
    outgoing = Outgoing(sound)
    made = samples_of(
        heard(sound, said.tobytes())
        if is_heard
        else [outgoing.encode(frame.tobytes()) for frame in said.reshape(-1, FRAME_SIZE)]
    )
    expected = soxr.resample(said.astype(float), rate_hz if is_heard else SAMPLE_RATE_HZ, to_hz)
    delay = round(DELAY_MS[rate_hz] * to_hz / 1000)
    inner = slice(to_hz // 10, -to_hz // 10)  # soxr knows of no sound before and after
    error = (made[delay:] - expected[: len(made) - delay])[inner]
    assert np.abs(error).max() < 1.5  # rounding, and no more


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_what_does_not_fit_into_a_rate_is_not_heard_as_something_else(rate_hz):
    outgoing = Outgoing(AudioFormat("pcm16", rate_hz))
    time_s = np.arange(SAMPLE_RATE_HZ * 2) / SAMPLE_RATE_HZ
    tone = (20_000 * np.sin(2 * np.pi * (rate_hz / 2 + 300) * time_s)).round().astype("<i2")
    made = [outgoing.encode(frame.tobytes()) for frame in tone.reshape(-1, FRAME_SIZE)]
    assert np.abs(samples_of(made[1:])).max() <= 2


def test_too_loud_is_cut_off_and_not_turned_over():
    square = np.repeat(np.tile([32767, -32768], 4), 80).astype("<i2")
    made = samples_of(heard(AudioFormat("pcm16", 8_000), square.tobytes()))[174:]
    halves = np.abs(made[: 7 * 240].reshape(7, 240) - np.tile([32767, -32768], 4)[:7, None])
    assert halves[:, 8:-8].max() < 6_000


@pytest.mark.parametrize("sound", FORMATS, ids=name)
def test_ten_minutes_there_and_back_have_no_click_gap_or_drift(sound):
    """Every sample comes back in its place, but for rounding and the steps of G.711."""
    time_s = np.arange(sound.rate_hz) / sound.rate_hz  # whole periods: a second after a second
    tones_hz = np.array([[97], [441], [1_003], [2_718], [3_391]])
    waves = np.sin(2 * np.pi * tones_hz * time_s + tones_hz).mean(0)
    second = encoded((waves * 30_000).round().astype("<i2"), sound)
    incoming, outgoing = Incoming(sound), Outgoing(sound)
    back = []
    for _ in range(600):
        back += map(outgoing.encode, incoming.feed(second))
    assert len(b"".join(back)) == len(second) * 600

    said = decoded(second, sound).astype(np.float32)
    delay = round(2 * DELAY_MS[sound.rate_hz] * sound.rate_hz / 1000)
    returned = decoded(b"".join(back), sound)[sound.rate_hz + delay :].astype(np.float32)
    wrong = returned[: 598 * sound.rate_hz].reshape(598, -1) - said
    largest_step = 0 if sound.encoding == "pcm16" else 1024
    bound = 2 + 0.75 * largest_step  # two roundings; the nearest code or the one beside it
    assert np.abs(wrong).max() <= bound
    snr_db = 10 * np.log10(np.mean(said**2) / max(np.mean(wrong**2), 1e-9))
    assert snr_db > (75 if sound.encoding == "pcm16" else 33)
    assert bend(returned) <= bend(np.tile(said, 2)) + 4 * bound


def bend(samples: np.ndarray) -> float:
    """The largest second difference: what a click is seen by."""
    return np.abs(np.diff(samples, 2)).max()


def test_silence_stays_silence():
    for sound in FORMATS:
        silence = encoded(np.zeros(sound.rate_hz * 80 // 1000, "<i2"), sound)
        frames = heard(sound, silence * 3)
        if sound.encoding != "alaw":  # which has no zero
            assert frames == [bytes(2 * FRAME_SIZE)] * 3
        assert Outgoing(sound).encode(bytes(2 * FRAME_SIZE)) == silence
