"""The evaluation's parts on small examples, and the whole codec suite on a coarse fake codec."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data.corpus import CorpusConfig
from data.recordings import Recording
from data.voices.engines import flite
from data.voices.phones import ARPABET
from data.voices.utterance import Phone
from model.codec import Codec, check_codes, check_pcm
from model.frame import FRAME_SIZE, SAMPLE_RATE_HZ
from model.streaming import State
from train import intervals
from train.evaluate import evaluate
from train.parallel import run_all
from train.scoring import codec_suite, recognizers, speech_metrics, test_sets
from train.scoring.baseline_codecs import BASELINES, align, delay_of
from train.scoring.codec_measures import code_use, encode_all, real_time_factors, reconstruct_all
from train.scoring.codec_suite import CodecSuite
from train.scoring.moonshine import read_tokens
from train.scoring.phone_probe import Labelled, phone_labels, probe
from train.scoring.recognizers import word_errors
from train.scoring.test_sets import Item, clips, join
from train.scoring.text_normalizer import normalize


def tones(seconds: float, seed: int = 0) -> np.ndarray:
    """Bursts of harmonics with pauses, float32 [T] at 24 kHz: an envelope like speech's."""
    rng = np.random.default_rng(seed)
    times = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    bursts = np.repeat(rng.uniform(0, 1, int(seconds * 10) + 1), SAMPLE_RATE_HZ // 10)[: len(times)]
    voice = sum(np.sin(2 * np.pi * 120 * k * times) / k for k in range(1, 20))
    return (0.2 * bursts * voice).astype(np.float32)


# What was said, however it is written.


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("Order four eight one nine two.", "order 481 92"),
        ("Order 48,192", "order four eight one nine two"),
        ("four oh nine", "4 0 9"),
        ("Press 1, or 2", "press one or two"),
        ("at 3:30 p.m.", "At three thirty PM!"),
        ("ten a.m.", "10 am"),
        ("nine o'clock", "9 O'Clock"),
        ("I can't, it's late", "i cannot it is late"),
        ("twenty-five boxes", "25 boxes"),
        ("Um, the Dr. said", "the doctor said"),
    ],
)
def test_normalizer_makes_writings_equal(said, written):
    assert normalize(said) == normalize(written)


def test_normalizer_keeps_what_differs():
    assert normalize("twenty five") == "2 5"
    assert normalize("O'Brien") == "obrien"
    assert normalize("the third of May") != normalize("the three of May")
    assert normalize("...") == ""


def test_word_errors_count_normalised_words():
    assert word_errors("Order four eight one.", "order 481") == (0, 4)
    assert word_errors("Order four eight one.", "a border 482") == (3, 4)
    assert word_errors("nobody heard it", "") == (3, 3)
    with pytest.raises(ValueError, match="holds no word"):
        word_errors("...", "something")


# Figures and their intervals.


def test_ratio_pools_over_words_and_is_deterministic():
    errors, words = [1, 0, 4, 2, 0, 1], [10, 5, 10, 8, 4, 3]
    metric = intervals.ratio(errors, words, "%", 100.0)
    assert metric.value == pytest.approx(100 * 8 / 40)
    assert metric.low is not None
    assert metric.high is not None
    assert metric.low < metric.value < metric.high
    assert metric == intervals.ratio(errors, words, "%", 100.0)
    assert metric.n == 6


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        metric = intervals.mean(rng.normal(5.0, 2.0, 40), "x")
        covered += (metric.low or 0) <= 5.0 <= (metric.high or 0)
    assert 85 <= covered <= 100


def test_median_and_bad_input():
    metric = intervals.median([3.0, 1.0, 2.0], "s")
    assert metric.value == 2.0
    with pytest.raises(ValueError, match="items > 0"):
        intervals.mean([], "x")
    with pytest.raises(ValueError, match="positive"):
        intervals.ratio([1], [0], "x")
    with pytest.raises(ValueError, match="finite"):
        intervals.exact(float("nan"), 1, "x")


# Baselines.


@pytest.mark.parametrize("delay", [-700, 0, 480, 1500])
def test_align_undoes_a_delay(delay):
    audio = tones(2.0)
    late = np.roll(np.pad(audio, 2000), delay)[2000:-2000]
    assert abs(delay_of(audio, late) - delay) <= 1
    inner = slice(2000, -2000)
    np.testing.assert_allclose(align(audio, late)[inner], audio[inner], atol=0.02)
    assert len(align(audio, late)) == len(audio)


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_round_trip(name):
    audio = tones(1.53)
    heard, bits = BASELINES[name](audio)
    assert heard.shape == audio.shape
    assert heard.dtype == np.float32
    assert abs(delay_of(audio, heard)) <= 24  # 1 ms
    assert bits / 1.53 <= 1.15 * BASELINES[name].rate_bps
    assert bits / 1.53 >= 0.5 * BASELINES[name].rate_bps


# Measures.


def test_scores_fall_with_noise():
    rng = np.random.default_rng(1)
    audio = tones(3.0)
    noisy = audio + 0.05 * rng.standard_normal(len(audio)).astype(np.float32)
    same = speech_metrics.score(audio, audio)
    worse = speech_metrics.score(audio, noisy)
    assert same["estoi"] == pytest.approx(1.0, abs=1e-3)
    assert same["speaker_similarity"] == pytest.approx(1.0, abs=1e-3)
    assert same["log_mel_distance"] == 0
    assert same["pesq_wb"] > 4.5
    assert worse["log_mel_distance"] > 0.5
    assert all(worse[name] < same[name] for name in ("estoi", "speaker_similarity", "pesq_wb"))


def test_scores_of_silence_and_of_wrong_shapes():
    audio = tones(1.0)
    silent = speech_metrics.score(audio, np.zeros_like(audio))
    assert silent["pesq_wb"] <= 1.3
    assert np.isfinite(list(silent.values())).all()
    with pytest.raises(ValueError, match="same"):
        speech_metrics.score(audio, audio[:-1])


def test_dnsmos_agrees_with_its_package():
    from speechmos import dnsmos

    for seconds in (4.9, 10.5):
        audio = speech_metrics.at_16khz(tones(seconds))
        theirs = dnsmos.run(audio, 16_000)["ovrl_mos"]  # pyright: ignore
        assert speech_metrics.dnsmos(audio) == pytest.approx(theirs, abs=1e-4)


def test_moonshine_reads_its_tokens_and_hears_words():
    assert read_tokens(b"\x03<s>\x01a\x80\x02" + b"x" * 128) == [b"<s>", b"a", b"x" * 128]
    spoken = flite("I can help with orders, appointments and messages.", "slt").audio
    heard = recognizers.transcribe("moonshine", speech_metrics.at_16khz(spoken))
    assert word_errors("I can help with orders, appointments and messages.", heard).errors <= 1


# Test sets.


def item(voice: str, seconds: float) -> Item:
    return Item(f"{voice} {seconds}", voice, "some words here", tones(seconds))


def test_clips_join_one_voice_up_to_a_length():
    items = [item("a", 3.0), item("a", 3.0), item("a", 3.0), item("b", 1.0), item("b", 9.5)]
    assert clips(items, 7.0) == [[0, 1], [2], [3], [4]]
    joined = join([items[0].audio, items[3].audio])
    assert len(joined) == int(4.3 * SAMPLE_RATE_HZ)


def test_human_items_put_rare_speakers_first(monkeypatch):
    found = [Recording(Path(f"a{n}"), "common", "two words") for n in range(9)]
    found += [Recording(Path(f"b{n}"), "rare", "two words") for n in range(2)]
    monkeypatch.setattr(test_sets.recordings, "test_recordings", lambda: list(found))
    monkeypatch.setattr(test_sets.recordings, "read", lambda path: tones(1.0))
    items, problems = test_sets.human_items(5.0)
    assert [item.voice for item in items] == ["rare"] * 2 + ["common"] * 3
    assert [item.name for item in items] == [item.name for item in test_sets.human_items(5.0)[0]]
    assert problems == []


# A codec of which everything is known.


@dataclass
class NoState(State):
    """No memory."""


class PeakCodec(Codec[NoState]):
    """Codes are the mean levels of each eighth of the frame; decodes to a buzz of those levels."""

    num_codebooks, codebook_size, latent_dim, delay_samples = 8, 64, 8, 0

    def init_state(self, batch: int) -> NoState:
        return NoState()

    def hear(self, pcm: Tensor, state: NoState, active: Tensor | None = None) -> Tensor:
        check_pcm(pcm)
        return pcm.view(len(pcm), 8, -1).abs().mean(2)  # [B, 8]

    def quantize(self, latent: Tensor) -> Tensor:
        return (latent.clamp(0, 0.999) * 64).long()

    def decode(self, codes: Tensor, state: NoState, active: Tensor | None = None) -> Tensor:
        check_codes(codes, self)
        buzz = torch.sin(torch.arange(FRAME_SIZE) * 0.1).view(8, -1)
        return ((codes / 64).unsqueeze(2) * buzz * 1.5).flatten(1).float()


def test_batches_keep_order_length_and_codes():
    codec = PeakCodec()
    audios = [tones(seconds, seed) for seed, seconds in enumerate([0.5, 0.01, 1.21, 0.08, 0.9])]
    codes, heard = encode_all(codec, audios), reconstruct_all(codec, audios)
    for audio, code, out in zip(audios, codes, heard, strict=True):
        assert len(code) == -(-len(audio) // FRAME_SIZE)
        assert len(out) == len(audio)
        np.testing.assert_array_equal(code, encode_all(codec, [audio])[0])


def test_code_use_counts_codes_and_entropy():
    codes = np.array([[0, 5], [1, 5], [2, 5], [3, 5]])
    use = code_use([codes[:2], codes[2:]], codebook_size=8)
    assert use.share == [0.5, 0.125]
    assert use.entropy_bits == pytest.approx([2.0, 0.0])
    assert use.frames == 4


def test_real_time_factors_count_streams():
    assert real_time_factors(PeakCodec(), tones(1.0), batch=3, steps=5).shape == (5,)


# The phone probe.


def test_phone_labels_are_20_ms_late():
    phones = [Phone("SIL", 0.0, 0.1), Phone("AA", 0.1, 0.2), Phone("B", 0.2, 0.24)]
    labels = phone_labels(phones, 4)
    assert labels.shape == (4, 4)
    flat = labels.flatten().tolist()
    assert flat[:6] == [-1] * 6  # 100 ms of silence and 20 ms of delay
    assert len(set(flat[6:11])) == 1
    assert flat[6] == 1 + ARPABET.index("AA")
    assert flat[11:13] == [1 + ARPABET.index("B")] * 2
    assert flat[13:] == [-1] * 3


def utterances(count: int, seed: int, informed: bool) -> Labelled:
    """Random phones, one a frame; the code names the phone, or nothing."""
    rng = np.random.default_rng(seed)
    codes, labels = [], []
    for _ in range(count):
        phones = rng.integers(1, 40, 30)
        codes.append(phones + 40 * rng.integers(0, 3, 30) if informed else rng.integers(0, 200, 30))
        labels.append(np.repeat(phones[:, None], 4, axis=1))
    return Labelled(tuple(codes), tuple(labels))


def test_probe_finds_phones_and_rejects_noise():
    right, counted = probe(utterances(80, 1, True), utterances(10, 2, True), 200).sum(0)
    assert right / counted > 0.9
    right, counted = probe(utterances(80, 1, False), utterances(10, 2, False), 200).sum(0)
    assert right / counted < 0.1
    unlabelled = Labelled((np.zeros(5, np.int64),), (np.full((5, 4), -1),))
    with pytest.raises(ValueError, match="test side has no phone"):
        probe(utterances(2, 1, True), unlabelled, 200)


# Jobs.


def test_run_all_returns_by_key_and_raises():
    jobs = {n: functools.partial(pow, n, 2) for n in range(5)}
    assert run_all(jobs, 1, "squares") == {n: n * n for n in range(5)}
    with pytest.raises(ZeroDivisionError):
        run_all({0: functools.partial(divmod, 1, 0)}, 1, "fails")


# The whole suite.


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> CorpusConfig:
    """Two flite voices, one of them absent Kokoro, in a cache of their own."""
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path / "cache"))
    return CorpusConfig(
        agent_voices=("flite:slt",),
        heldout_voices=("flite:awb", "kokoro:am_eric"),
        train_sentences={"flite:slt": 4},
        test_sentences_per_voice=2,
    )


def suite_of(corpus: CorpusConfig, **changes) -> CodecSuite:
    values = {
        "corpus": corpus,
        "items_per_voice": 2,
        "subset_per_voice": 1,
        "human_seconds": 4.0,
        "clip_seconds": 12.0,
        "recognizers": ("fake", "absent"),
        "probe_phrases": 4,
        "rtf_steps": 60,
    }
    return CodecSuite(**(values | changes))


def fake_recognizer():
    return lambda audio: "some words" if np.abs(audio).max() > 0.3 else "other words"


def absent_recognizer():
    raise ModuleNotFoundError("No module named 'absent'")


@pytest.fixture
def fakes(monkeypatch):
    """Recognisers that need no weights, and a codec for every directory."""
    known = {"fake": fake_recognizer, "absent": absent_recognizer}
    monkeypatch.setattr(recognizers, "RECOGNIZERS", known)
    monkeypatch.setattr(codec_suite, "load_codec", lambda directory: PeakCodec())
    monkeypatch.setattr(codec_suite, "human_items", lambda seconds: ([], ["set human is missing"]))


def test_codec_suite_end_to_end(corpus, fakes, tmp_path):
    from data.corpus import plan
    from data.synthesize import speak

    for line in plan(corpus):
        if line.split == "train":
            speak(line)
    out = tmp_path / "report.json"
    evaluate("codec", suite_of(corpus), Path("anywhere"), out, processes=1, command="test")
    report = json.loads(out.read_text())
    metrics = report["metrics"]
    for name in (
        "bitrate_bps wer_delta_agent wer_agent_original estoi_agent pesq_wb_agent "
        "dnsmos_drop_agent wer_delta_heldout estoi_heldout pesq_wb_heldout code_use_min "
        "speaker_similarity_agent "
        "phone_accuracy_code0 phone_accuracy_acoustic_max phone_accuracy_code0_ratio rtf_b1 "
        "rtf_b16_per_stream rtf_b64_per_stream rtf_load log_mel_distance_heldout "
        "wer_delta_heldout_mulaw estoi_agent_mulaw pesq_wb_heldout_codec2_2400 "
        "wer_delta_heldout_codec2_2400 bitrate_bps_opus_6 dnsmos_heldout_original"
    ).split():
        assert set(metrics[name]) == {"value", "low", "high", "n", "unit"}, name
    assert metrics["bitrate_bps"]["value"] == 12.5 * 8 * 6
    assert metrics["estoi_agent_opus_12"]["value"] > metrics["estoi_agent"]["value"]
    assert metrics["estoi_heldout"]["n"] == 2
    assert metrics["dnsmos_heldout_original"]["n"] == 1
    notes = " ".join(report["notes"])
    assert "recogniser absent is missing" in notes
    assert "voice kokoro:am_eric is missing" in notes
    text = out.with_suffix(".md").read_text()
    assert "| opus_12 |" in text
    assert "| `pesq_wb_agent` |" in text


# Errors come before the work.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items_per_voice": 0}, "items_per_voice is 0: must be positive"),
        ({"clip_seconds": -1.0}, "clip_seconds"),
        ({"human_seconds": -1.0}, "human_seconds"),
        ({"rtf_steps": 10}, "rtf_steps is 10: must be at least 60"),
        ({"recognizers": ("siri",)}, r"recognizers has \['siri'\]: must be of"),
    ],
)
def test_suite_refuses_wrong_values(corpus, fakes, changes, message):
    with pytest.raises(ValueError, match=message):
        suite_of(corpus, **changes)


def test_evaluate_refuses_before_it_works(corpus, monkeypatch, tmp_path):
    known = {"fake": fake_recognizer, "absent": absent_recognizer}
    monkeypatch.setattr(recognizers, "RECOGNIZERS", known)
    suite = suite_of(corpus)
    out = tmp_path / "report.json"
    with pytest.raises(ValueError, match=r"checkpoint is '.*nowhere'"):
        evaluate("codec", suite, tmp_path / "nowhere", out, 1, "test")
    with pytest.raises(ValueError, match=r"must end in \.json"):
        evaluate("codec", suite, tmp_path, tmp_path / "report.txt", 1, "test")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write there"):
        evaluate("codec", suite, tmp_path, tmp_path / "file" / "report.json", 1, "test")
    with pytest.raises(ValueError, match="processes is 0"):
        evaluate("codec", suite, tmp_path, out, 0, "test")
    assert not out.exists()


def test_no_audio_at_all_is_an_error(corpus, fakes, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no synthesiser
    with pytest.raises(ValueError, match="there is no test audio: voice flite:slt is missing"):
        suite_of(corpus).run(Path("anywhere"), 1)


def test_configuration_composes():
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException
    from hydra.utils import instantiate

    with initialize_config_module("conf", version_base=None):
        suite = instantiate(compose("evaluate", ["suite=codec"]).suite, _convert_="object")
        assert isinstance(suite, CodecSuite)
        assert suite.corpus.heldout_voices
        with pytest.raises(HydraException, match="nothing"):
            compose("evaluate", ["suite=nothing"])
