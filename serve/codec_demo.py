"""`python -m serve.codec_demo`: a human recording through the codec in 80 ms steps.

Prints what each step took and a table beside Opus and Codec 2; leaves the recording, what came back
and a picture of both in demo/.
"""

import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from data.recordings import read, test_recordings
from model.checkpoint import DEFAULT_CODEC, load_codec
from model.codec import Codec, frames_of
from model.frame import FRAME_SIZE, SAMPLE_RATE_HZ
from train.codec_samples import draw_spectrograms
from train.scoring import baseline_codecs, recognizers
from train.scoring.speech_metrics import at_16khz, score

_FOLDER = Path("demo")
_MAX_SECONDS = 12.0
_RECOGNIZER = "moonshine"  # its weights come with its package

Audio = NDArray[np.float32]


def stream(codec: Codec, audio: Audio) -> tuple[Audio, NDArray[np.float64]]:
    """Frame by frame through the codec: what came back, on the original's clock, and the seconds
    each step took."""
    state = codec.init_state(1)
    heard, seconds = [], []
    pcm = torch.from_numpy(np.pad(audio, (0, codec.delay_samples)))[None]
    with torch.inference_mode():
        for frame in frames_of(pcm):
            start = time.perf_counter()
            heard.append(codec.decode(codec.encode(frame, state).codes, state)[0])
            seconds.append(time.perf_counter() - start)
    whole = torch.cat(heard).numpy()
    return whole[codec.delay_samples :][: len(audio)], np.array(seconds)


def row(name: str, text: str, original: Audio, heard: Audio, rate_bps: float | None) -> str:
    """One line of the table."""
    scores = score(original, heard)
    transcript = recognizers.transcribe(_RECOGNIZER, at_16khz(heard))
    wrong, words = recognizers.word_errors(text, transcript)
    rate = f"{rate_bps:7.0f}" if rate_bps is not None else "      –"
    return (
        f"{name:14} {rate}  {scores['pesq_wb']:7.2f}  {scores['estoi']:5.2f}  "
        f"{scores['speaker_similarity']:7.2f}  {100 * wrong / words:4.0f} %   {transcript}"
    )


def main() -> None:
    """Streams the longest test prompt that is at most 12 s long."""
    torch.set_num_threads(1)
    codec = load_codec(DEFAULT_CODEC)
    sounds = {recording: read(recording.path) for recording in test_recordings()}
    fitting = {r: a for r, a in sounds.items() if len(a) <= _MAX_SECONDS * SAMPLE_RATE_HZ}
    recording = max(fitting, key=lambda r: len(fitting[r]))
    original = fitting[recording]
    print(f"{recording.path.name}, {recording.speaker}: {recording.text!r}")
    heard, seconds = stream(codec, original)
    frame_ms = 1000 * FRAME_SIZE / SAMPLE_RATE_HZ
    print(
        f"{len(seconds)} steps of {frame_ms:.0f} ms, one thread: median "
        f"{1000 * np.median(seconds):.1f} ms, slowest {1000 * seconds.max():.1f} ms\n"
    )
    print("codec            bit/s  PESQ-wb  ESTOI  speaker    WER   heard by " + _RECOGNIZER)
    print(row("original", recording.text, original, original, None))
    print(row("duologue", recording.text, original, heard, codec.bitrate_bps))
    for name, baseline in baseline_codecs.usable()[0].items():
        coded = baseline(original)
        rate_bps = coded.bits * SAMPLE_RATE_HZ / len(original)
        print(row(name, recording.text, original, coded.audio, rate_bps))
    _FOLDER.mkdir(exist_ok=True)
    soundfile.write(_FOLDER / "before.wav", original, SAMPLE_RATE_HZ)
    soundfile.write(_FOLDER / "after.wav", heard, SAMPLE_RATE_HZ)
    title = f"after {codec.bitrate_bps:.0f} bit/s"
    draw_spectrograms({"before": original, title: heard}, _FOLDER / "spectrogram.png")
    print(f"\nleft in {_FOLDER}/: before.wav, after.wav, spectrogram.png")


if __name__ == "__main__":
    main()
