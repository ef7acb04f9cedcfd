"""suite=speech: test sentences, said by the speech transformer at their teacher's word times.

A recogniser hears each three times: the teacher, the teacher through the codec, and the model. What
the model loses against the second is its own; what that loses against the first is the codec's.
"""

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.monologues import scripted_turns
from data.sentences import sentences
from data.voices import Utterance, say
from model.checkpoint import Duplex, load_codec, load_duplex
from model.codec import Codec, decode_file, reconstruct
from model.frame import FRAME_S, FRAME_SIZE
from model.sampling import SamplingConfig, sample, uniforms
from model.speech import SpeechConfig, SpeechTransformer
from model.tokens import DialogueTokenizer, load_tokenizer
from train import intervals
from train.intervals import Metric
from train.parallel import run_all
from train.report import Outcome, Table
from train.scoring import recognizers
from train.scoring.recognizers import WordErrors, word_errors
from train.scoring.speech_metrics import at_16khz
from train.speech_data import lay_text

_SYSTEMS = ("teacher", "codec", "speech")
_AFTER_FRAMES = 12  # of silence behind the last word

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class SpeechSuite:
    """Sentences of a domain's agent and everyday ones, `sentences` of each; conf/suite/speech.yaml
    says what each field is."""

    model: SpeechConfig
    tokenizer: str
    domain: str
    voice: str
    sentences: int
    batch: int
    sampling: SamplingConfig
    recognizer: str

    def __post_init__(self) -> None:
        if min(self.sentences, self.batch) < 1:
            raise ValueError("sentences and batch must be at least 1")

    def check(self, checkpoint: Path) -> None:
        """Raises ValueError where `checkpoint` holds no speech transformer."""
        try:
            self._load(checkpoint)
        except (OSError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"checkpoint is {str(checkpoint)!r}: {reason}") from error

    def run(self, checkpoint: Path, processes: int) -> Outcome:
        """Speaks and listens."""
        torch.set_num_threads(processes)
        speech, tokenizer, codec = self._load(checkpoint)
        found, problems = recognizers.usable((self.recognizer,))
        if not found:
            return Outcome({}, notes=tuple(problems))
        metrics: dict[str, Metric] = {}
        for name, texts in self._texts().items():
            said = [say(text, self.voice) for text in texts]
            spoken = [
                audio
                for some in tqdm([*_batches(said, self.batch)], desc=f"speaking, {name}")
                for audio in synthesize(some, speech, tokenizer, codec, self.sampling)
            ]
            sounds = {
                "teacher": [one.audio for one in said],
                "codec": [_through(codec, one.audio) for one in said],
                "speech": spoken,
            }
            metrics |= self._figures(name, texts, sounds, processes)
        names = ("domain", "everyday")
        table = Table(
            "Words heard wrong, %",
            names,
            tuple((system, tuple(f"wer_{system}_{name}" for name in names)) for system in _SYSTEMS),
        )
        return Outcome(metrics, (table,))

    def _figures(
        self, name: str, texts: Sequence[str], sounds: dict[str, list[Audio]], processes: int
    ) -> dict[str, Metric]:
        jobs = {
            (system, number): functools.partial(_heard, self.recognizer, text, audio)
            for system, audios in sounds.items()
            for number, (text, audio) in enumerate(zip(texts, audios, strict=True))
        }
        results = run_all(jobs, processes, f"recognising, {name}")
        figures: dict[str, Metric] = {}
        for system in _SYSTEMS:
            heard = [results[system, number] for number in range(len(texts))]
            errors, words = zip(*heard, strict=True)
            figures[f"wer_{system}_{name}"] = intervals.ratio(errors, words, "%", 100.0)
        return figures

    def _texts(self) -> dict[str, list[str]]:
        turns = scripted_turns(self.domain, "test", random.Random(f"speech {self.domain}"))
        distinct = dict.fromkeys(turn.text for turn in itertools.islice(turns, 6 * self.sentences))
        return {
            "domain": list(distinct)[: self.sentences],
            "everyday": [*itertools.islice(sentences("test", "speech"), self.sentences)],
        }

    def _load(self, checkpoint: Path) -> tuple[SpeechTransformer, DialogueTokenizer, Codec]:
        """Of a duplex model's directory, or of a file that training left."""
        if checkpoint.is_dir():
            duplex: Duplex = load_duplex(checkpoint)
            if duplex.speech is None:
                raise ValueError(f"checkpoint is {str(checkpoint)!r}: it has no speech transformer")
            return duplex.speech, duplex.tokenizer, duplex.codec
        speech = SpeechTransformer(self.model)
        saved = torch.load(checkpoint, weights_only=True)["state_dict"]
        speech.load_state_dict({name.removeprefix("speech."): w for name, w in saved.items()})
        return speech.eval(), load_tokenizer(self.tokenizer), load_codec()


@torch.inference_mode()
def synthesize(
    said: Sequence[Utterance],
    speech: SpeechTransformer,
    tokenizer: DialogueTokenizer,
    codec: Codec,
    sampling: SamplingConfig,
) -> list[Audio]:
    """The words of each utterance at their times, said anew: float32 [T] at 24 kHz each."""
    lead = speech.config.reader.lead
    frames = [lead + int(len(one.audio) / FRAME_SIZE) + _AFTER_FRAMES for one in said]
    rows = []
    for one in said:
        words = [
            {"text": text, "start_s": start_s + lead * FRAME_S, "end_s": end_s + lead * FRAME_S}
            for text, start_s, end_s in one.words
        ]
        turn = {"start_s": words[0]["start_s"], "style": "neutral"}
        row = {"frames": max(frames), "agent_words": words, "agent_turns": [turn]}
        rows.append(torch.from_numpy(lay_text(row, tokenizer, lead)))
    text = torch.stack(rows)  # [B, T]
    state = speech.init_state(len(text))
    codes = [
        speech.step(token, state, _sampler(len(text), time, sampling))
        for time, token in enumerate(text.unbind(1))
    ]
    pcm = decode_file(codec, torch.stack(codes, dim=1)).numpy()  # [B, samples]
    first = lead * FRAME_SIZE
    return [audio[first : count * FRAME_SIZE] for audio, count in zip(pcm, frames, strict=True)]


def _sampler(rows: int, time: int, sampling: SamplingConfig):
    seed, counter = torch.arange(rows), torch.full((rows,), time)

    def draw(logits: Tensor, step: int) -> Tensor:
        return sample(logits, sampling, uniforms(seed, counter, step))

    return draw


def _through(codec: Codec, audio: Audio) -> Audio:
    return reconstruct(codec, torch.from_numpy(audio)[None])[0].numpy()


def _heard(recognizer: str, text: str, audio: Audio) -> WordErrors:
    return word_errors(text, recognizers.transcribe(recognizer, at_16khz(audio)))


def _batches(said: Sequence[Utterance], size: int):
    return (said[first : first + size] for first in range(0, len(said), size))
