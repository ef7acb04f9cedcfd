"""The synthesisers that are programs: Debian's flite, festival and espeak-ng, and Piper.

They are called as programs, never linked (espeak-ng and Piper are GPL-3). Each function takes text
and the engine's own voice name and returns an `Utterance` without its voice prefix.
"""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from data.voices.phones import from_radio
from data.voices.store import cache_dir
from data.voices.utterance import Phone, Utterance, at_24khz

_FESTIVAL_VOICES = {
    "slt_hts": "voice_cmu_us_slt_arctic_hts",
    "kal": "voice_kal_diphone",
    "ked": "voice_ked_diphone",
}
_DONE = "spoken and saved"


def run_program(command: list[str], text: str | None = None) -> str:
    """Runs a synthesiser and returns what it prints; a missing one says what to install."""
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"{command[0]} is not installed: run `make setup`")
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]} failed: {done.stderr.strip()[:400]}")
    return done.stdout


def read_24khz(path: Path) -> NDArray[np.float32]:
    """Reads a mono sound file and resamples it to 24 kHz float32 [T]."""
    audio, rate_hz = soundfile.read(path, dtype="float32")
    return at_24khz(np.asarray(audio, np.float32), rate_hz)


def _phones_from_ends(ends: list[tuple[str, float]]) -> tuple[Phone, ...]:
    starts = [0.0, *(end for _, end in ends)]
    return tuple(
        Phone(from_radio(symbol), start, end)
        for (symbol, end), start in zip(ends, starts, strict=False)
    )


def flite(text: str, voice: str) -> Utterance:
    """CMU flite; `-psdur` prints `phone:end` in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.wav"
        printed = run_program(["flite", "-voice", voice, "-t", text, "-o", str(path), "-psdur"])
        ends = [(symbol, float(end)) for symbol, end in re.findall(r"(\S+):([\d.]+)", printed)]
        return Utterance(text, voice, read_24khz(path), _phones_from_ends(ends))


@functools.cache
def _festival_of(process: int) -> subprocess.Popen[str]:
    """The Festival that one of our processes keeps: to load a voice takes longer than to speak."""
    if shutil.which("festival") is None:
        raise FileNotFoundError("festival is not installed: run `make setup`")
    pipe, printed = subprocess.PIPE, subprocess.STDOUT
    command = ["festival", "--pipe"]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=printed, text=True)


def _run_festival(script: str) -> None:
    """Starts Festival anew where it has ended since the last time. Raises RuntimeError where the
    new one ends as well; what fails within the script it only prints."""
    if not _is_run(script):
        _festival_of.cache_clear()
        if not _is_run(script):
            _festival_of.cache_clear()
            raise RuntimeError(f"festival ended at {script!r}")


def _is_run(script: str) -> bool:
    """Whether Festival still ran when it was done."""
    running = _festival_of(os.getpid())
    assert running.stdin is not None
    assert running.stdout is not None
    try:
        print(f'{script}\n(print "{_DONE}")\n(fflush nil)', file=running.stdin, flush=True)
        return any(_DONE in line for line in running.stdout)
    except BrokenPipeError:
        return False


def festival(text: str, voice: str) -> Utterance:
    """Festival; the segment file has `end 100 phone` lines."""
    if voice not in _FESTIVAL_VOICES:
        raise ValueError(f"festival voice {voice!r}: choose from {sorted(_FESTIVAL_VOICES)}")
    quoted = text.replace("\\", "").replace('"', "")
    with tempfile.TemporaryDirectory() as folder:
        wav, segments = Path(folder) / "out.wav", Path(folder) / "out.seg"
        _run_festival(
            f'({_FESTIVAL_VOICES[voice]})\n(set! spoken (SynthText "{quoted}"))\n'
            f'(utt.save.wave spoken "{wav}" \'riff)\n(utt.save.segs spoken "{segments}")\n'
        )
        if not segments.exists():
            raise RuntimeError(f"festival could not say {text!r}")
        rows = [line.split() for line in segments.read_text().splitlines()[1:]]
        ends = [(row[2], float(row[0])) for row in rows if len(row) == 3]
        return Utterance(text, voice, read_24khz(wav), _phones_from_ends(ends))


def espeak(text: str, voice: str) -> Utterance:
    """espeak-ng; the program gives no phone times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.wav"
        run_program(["espeak-ng", "-v", voice, "-w", str(path)], text)
        return Utterance(text, voice, read_24khz(path), ())


def piper(text: str, voice: str) -> Utterance:
    """Piper, where it is installed (`pip install piper-tts`) and `$DUOLOGUE_CACHE/piper` holds
    `VOICE.onnx` and `VOICE.onnx.json`; it tells no times.

    Its noise is turned off, so that the same text always sounds the same.
    """
    model = cache_dir() / "piper" / f"{voice}.onnx"
    if not model.exists() or shutil.which("piper") is None:
        raise FileNotFoundError(f"piper:{voice} needs the program piper and the weights {model}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.wav"
        silent = ["--noise-scale", "0", "--noise-w-scale", "0"]
        run_program(["piper", "--model", str(model), *silent, "--output-file", str(path)], text)
        return Utterance(text, voice, read_24khz(path), ())
