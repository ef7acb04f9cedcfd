"""suite=codec: how well a codec keeps speech, beside Opus and Codec 2."""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from data import recordings
from data.corpus import CorpusConfig, made, read_phones
from data.voices.engines import read_24khz
from data.voices.utterance import Phone
from model.checkpoint import load_codec
from model.codec import Codec
from train import intervals
from train.intervals import Metric
from train.parallel import run_all
from train.report import Outcome
from train.scoring import baseline_codecs, codec_figures, codec_jobs, recognizers
from train.scoring.baseline_codecs import Coded
from train.scoring.codec_jobs import ORIGINAL, OURS, Heard
from train.scoring.codec_measures import code_use, encode_all, real_time_factors, reconstruct_all
from train.scoring.test_sets import Item, human_item, human_items, spoken_items

_MIN_RTF_STEPS = 60
_RTF_NAMES = {1: "rtf_b1", 16: "rtf_b16_per_stream", 64: "rtf_b64_per_stream"}
Sets = dict[str, list[Item]]


@dataclass(frozen=True)
class CodecSuite:
    """What is measured, and on how much; conf/suite/codec.yaml says what each field is."""

    corpus: CorpusConfig
    items_per_voice: int
    subset_per_voice: int
    human_seconds: float
    clip_seconds: float
    recognizers: tuple[str, ...]
    probe_phrases: int
    rtf_steps: int

    def __post_init__(self) -> None:
        for name in ("items_per_voice", "subset_per_voice", "probe_phrases", "clip_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: must be positive")
        if self.human_seconds < 0:
            raise ValueError(f"human_seconds is {self.human_seconds}: must not be negative")
        if self.rtf_steps < _MIN_RTF_STEPS:
            raise ValueError(f"rtf_steps is {self.rtf_steps}: must be at least {_MIN_RTF_STEPS}")
        if unknown := [n for n in self.recognizers if n not in recognizers.RECOGNIZERS]:
            known = sorted(recognizers.RECOGNIZERS)
            raise ValueError(f"recognizers has {unknown}: must be of {known}")

    def check(self, checkpoint: Path) -> None:
        """Raises ValueError where `checkpoint` is no codec's directory."""
        try:
            load_codec(checkpoint)
        except (OSError, ValueError, TypeError, RuntimeError) as error:  # no files, wrong contents
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"checkpoint is {str(checkpoint)!r}: {reason}") from error

    def run(self, checkpoint: Path, processes: int) -> Outcome:
        """Measures everything."""
        torch.set_num_threads(1)
        codec = load_codec(checkpoint)
        names, notes = recognizers.usable(tuple(self.recognizers))
        sets, missing = self._sets(processes)
        baselines, absent = baseline_codecs.usable()
        coded = codec_jobs.through_baselines(sets, baselines, processes)
        heard = self._heard(codec, sets, coded)
        jobs = self._probes(codec, sets)
        for one in heard:
            jobs |= codec_jobs.listening(one, names, self.clip_seconds) | codec_jobs.scoring(one)
        results = run_all(jobs, processes, "scoring")
        metrics = {"bitrate_bps": intervals.exact(codec.bitrate_bps, 1, "bit/s")}
        metrics |= codec_figures.rate_figures(coded)
        for one in heard:
            metrics |= codec_figures.score_figures(one, results)
            metrics |= codec_figures.dnsmos_figures(one, self.clip_seconds, results)
            metrics |= codec_figures.word_error_figures(one, names, self.clip_seconds, results)
        metrics |= codec_figures.probe_figures(results)
        metrics |= self._code_figures(codec, sets)
        metrics |= self._speed(codec, sets)
        tables = codec_figures.tables(heard, names, codec.num_codebooks)
        return Outcome(metrics, tables, (*notes, *missing, *absent))

    def _sets(self, processes: int) -> tuple[Sets, list[str]]:
        """The sets that have items, and a line for each voice that is missing."""
        sets, missing = {}, []
        for name, voices in (
            ("agent", self.corpus.agent_voices),
            ("heldout", self.corpus.heldout_voices),
        ):
            sets[name], silent = spoken_items(self.corpus, voices, self.items_per_voice, processes)
            missing += silent
        sets["human"], silent = human_items(self.human_seconds)
        missing += silent
        sets = {name: items for name, items in sets.items() if items}
        if not sets:
            raise ValueError("there is no test audio: " + "; ".join(missing or ["no voices"]))
        return sets, missing

    def _heard(
        self, codec: Codec, sets: Sets, coded: Mapping[tuple[str, str], Sequence[Coded]]
    ) -> list[Heard]:
        """Every set, clean and over the telephone, through ours and the baselines."""
        found = []
        with tqdm(total=2 * sum(map(len, sets.values())), desc="codec", unit="item") as bar:
            for name, items in sets.items():
                for label, said in (
                    (name, tuple(items)),
                    (f"{name}_mulaw", codec_jobs.over_telephone(items)),
                ):
                    original = tuple(item.audio for item in said)
                    audio = {
                        ORIGINAL: original,
                        OURS: tuple(reconstruct_all(codec, original, bar.update)),
                    }
                    slow: tuple[int, ...] = ()
                    if label == name:
                        slow = codec_jobs.subset(items, self.subset_per_voice)
                        for (of, system), outputs in coded.items():
                            if of == name:
                                audio[system] = tuple(output.audio for output in outputs)
                    found.append(Heard(label, said, audio, slow))
        return found

    def _probes(self, codec: Codec, sets: Sets) -> dict[Hashable, Callable]:
        """Jobs of the phone probe: trained on training phrases, tested on held-out voices."""
        phrases = [(path, read_phones(path)) for _, path in made(self.corpus, "train")]
        phrases = [(path, phones) for path, phones in phrases if phones][: self.probe_phrases]
        audios = [read_24khz(path) for path, _ in phrases]
        with tqdm(total=len(audios), desc="phone probe", unit="phrase") as bar:
            codes = encode_all(codec, audios, bar.update)
        train = [
            (code, [Phone(*phone) for phone in phones])
            for code, (_, phones) in zip(codes, phrases, strict=True)
        ]
        items = [item for item in sets.get("heldout", []) if item.phones]
        test_codes = encode_all(codec, [item.audio for item in items])
        test = [(code, item.phones) for code, item in zip(test_codes, items, strict=True)]
        return codec_jobs.probing(train, test, codec.codebook_size)

    def _code_figures(self, codec: Codec, sets: Sets) -> dict[str, Metric]:
        """Code use over all test audio there is, every test recording included."""
        audios = [item.audio for name, items in sets.items() if name != "human" for item in items]
        if "human" in sets:
            audios += [human_item(one).audio for one in recordings.test_recordings()]
        with tqdm(total=len(audios), desc="code use", unit="item") as bar:
            use = code_use(encode_all(codec, audios, bar.update), codec.codebook_size)
        return codec_figures.code_figures(use)

    def _speed(self, codec: Codec, sets: Sets) -> dict[str, Metric]:
        """Real-time factors, after everything else has ended; the load of the minute before."""
        audio = next(iter(sets.values()))[0].audio
        metrics = {"rtf_load": intervals.exact(os.getloadavg()[0], 1, "processes")}
        for batch, name in _RTF_NAMES.items():
            factors = real_time_factors(codec, audio, batch, self.rtf_steps)
            metrics[name] = intervals.median(factors, "s/s")
        return metrics
