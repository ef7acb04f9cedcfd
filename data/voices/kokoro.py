"""Kokoro-82M (Apache-2.0) through onnxruntime, with espeak-ng's phonemes and its own phone times.

Looks for `kokoro-v1.0.onnx` (or `.int8.onnx`) and `voices/NAME.bin` (float32 [510, 1, 256]) in
`$DUOLOGUE_CACHE/kokoro`; `make voices` puts them there.
"""

import functools
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.voices.engines import run_program
from data.voices.phones import SILENCE, from_ipa
from data.voices.store import cache_dir
from data.voices.utterance import Phone, Utterance

_DURATIONS = "/encoder/Clip_output_0"  # the rounded duration predictor, in units of 25 ms
_UNIT_S = 0.025
_LATE_S = 0.08  # its phone times lag a plosive's burst by this much against flite's and festival's
_PAUSE_S = 0.1  # a shorter gap between words is not heard as one
_MAX_TOKENS = 510
# Kokoro's own alphabet (hexgrad/Kokoro-82M, config.json "vocab").
_VOCABULARY = {
    symbol: index
    for index, symbol in [
        *enumerate(';:,.!?', 1), (9, "—"), (10, "…"), (16, " "), (43, "a"), (44, "b"), (45, "c"),
        (46, "d"), (47, "e"), (48, "f"), (50, "h"), (51, "i"), (52, "j"), (53, "k"), (54, "l"),
        (55, "m"), (56, "n"), (57, "o"), (58, "p"), (60, "r"), (61, "s"), (62, "t"), (63, "u"),
        (64, "v"), (65, "w"), (66, "x"), (68, "z"), (69, "ɑ"), (70, "ɐ"), (71, "ɒ"), (72, "æ"),
        (76, "ɔ"), (81, "ð"), (83, "ə"), (85, "ɚ"), (86, "ɛ"), (87, "ɜ"), (92, "ɡ"), (102, "ɪ"),
        (112, "ŋ"), (119, "θ"), (123, "ɹ"), (125, "ɾ"), (131, "ʃ"), (135, "ʊ"), (138, "ʌ"),
        (147, "ʒ"), (148, "ʔ"), (156, "ˈ"), (157, "ˌ"), (158, "ː"), (164, "ʲ"), (177, "ᵻ"),
    ]
}  # fmt: skip


@functools.cache
def _session(folder: Path):
    import onnx  # heavy, and only needed to speak
    import onnxruntime

    paths = [folder / "kokoro-v1.0.onnx", folder / "kokoro-v1.0.int8.onnx"]
    path = next((p for p in paths if p.exists()), None)
    if path is None:
        raise FileNotFoundError(f"no Kokoro weights at {paths[0]}: run `make voices`")
    graph = onnx.load(path)
    # The export returns audio only: the duration predictor becomes a second output.
    graph.graph.output.append(
        onnx.helper.make_tensor_value_info(_DURATIONS, onnx.TensorProto.FLOAT, None)
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # voices are made by many processes, one thread each
    return onnxruntime.InferenceSession(graph.SerializeToString(), options)


@functools.cache
def _style(path: Path) -> NDArray[np.float32]:
    if not path.exists():
        raise FileNotFoundError(f"no Kokoro voice at {path}: run `make voices`")
    return np.fromfile(path, np.float32).reshape(-1, 1, 256)  # [length, 1, 256]


def phonemize(text: str, accent: str) -> str:
    """Text -> Kokoro's IPA, clause by clause so that punctuation (its pauses) is kept."""
    pieces = re.split(r"\s*([;:,.!?])\s*", text.strip())
    spoken = []
    for clause, mark in zip(pieces[0::2], [*pieces[1::2], ""], strict=False):
        if clause:
            ipa = run_program(["espeak-ng", "-q", "--ipa", "-v", accent], clause)
            spoken.append(" ".join(ipa.split()) + mark)
    return re.sub(r"\([a-z-]+\)", "", " ".join(spoken))


def kokoro(text: str, voice: str) -> Utterance:
    """Speaks text in a Kokoro voice (`af_heart`) or the mean of two (`af_bella+am_adam`)."""
    folder = cache_dir() / "kokoro"
    names = voice.split("+")
    ipa = phonemize(text, "en-gb" if names[0].startswith("b") else "en-us")
    symbols = [symbol for symbol in ipa if symbol in _VOCABULARY][: _MAX_TOKENS - 2]
    tokens = [0, *(_VOCABULARY[symbol] for symbol in symbols), 0]
    style = np.mean([_style(folder / "voices" / f"{n}.bin")[len(symbols)] for n in names], axis=0)
    outputs = _session(folder).run(
        ["audio", _DURATIONS],
        {"tokens": np.array([tokens]), "style": style, "speed": np.ones(1, np.float32)},
    )
    audio, durations = (np.asarray(output, np.float32).reshape(-1) for output in outputs)
    audio = audio / np.float32(max(1.0, np.abs(audio).max() / 0.95))  # some voices clip
    return Utterance(text, voice, audio, _phones(symbols, durations * np.float32(_UNIT_S)))


def _phones(symbols: list[str], durations_s: NDArray[np.float32]) -> tuple[Phone, ...]:
    """Token durations (with the two boundary tokens) -> phones.

    A stress mark's time belongs to the phone after it; a space's, unless it is a pause, to the
    phone before it.
    """
    ends = (np.cumsum(durations_s) - _LATE_S).clip(min=0.0)
    phones = [Phone(SILENCE, 0.0, float(ends[0]))]
    start = phones[0].end_s
    for symbol, first, last in from_ipa("".join(symbols)):
        end = float(ends[last])
        if symbols[first] in "ˈˌ":
            continue
        if symbol == SILENCE and end - start < _PAUSE_S:
            phones[-1] = phones[-1]._replace(end_s=end)
        elif end > start:
            phones.append(Phone(symbol, start, end))
        start = end
    return (*phones, Phone(SILENCE, start, float(ends[-1])))
