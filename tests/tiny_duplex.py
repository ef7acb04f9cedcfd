"""A split duplex model with random weights, small enough for tests, beside the codec that ships."""

from functools import cache

import torch

from model.checkpoint import Duplex, DuplexDirectoryConfig, load_codec
from model.depth import DepthConfig
from model.duplex import DuplexConfig, DuplexModel
from model.reading import ReaderConfig
from model.speech import SpeechConfig, SpeechTransformer
from model.spelling import SpellingConfig
from model.tokens import DialogueTokenizer, train_tokenizer
from model.transformer import TransformerConfig

TOOLS = [
    {
        "name": "order_status",
        "description": "Where an order is.",
        "parameters": {
            "type": "object",
            "properties": {"order_id": {"type": "string", "maxLength": 6}},
            "required": ["order_id"],
        },
    }
]
_TEXTS = ["where is my order please", " order_status ", '{"order_id":"48192"}', "it is shipped"]


@cache
def tiny_tokenizer() -> DialogueTokenizer:
    return train_tokenizer(_TEXTS, 400)


def tiny_duplex(seed: int = 0) -> Duplex:
    """Random weights; the gates of the pointers are open, so that pointing matters."""
    torch.manual_seed(seed)
    tokenizer, codec = tiny_tokenizer(), load_codec()
    trunk = TransformerConfig(32, 2, 2, 1, 48, window=64, pinned=16)
    duplex = DuplexConfig(len(tokenizer), trunk, latent_dim=codec.latent_dim, pointer_dim=8)
    speech = SpeechConfig(
        ReaderConfig(len(tokenizer), spelling=SpellingConfig(dim=16, layers=1)),
        TransformerConfig(16, 1, 2, 1, 24, window=32),
        DepthConfig(16, 16, 1, 2, 24, steps=codec.num_codebooks, codebook=codec.codebook_size),
    )
    model, speaker = DuplexModel(duplex), SpeechTransformer(speech)
    speaker.reader.set_vocabulary(tokenizer)
    for name, parameter in model.named_parameters():
        if name.endswith("gate.weight"):
            torch.nn.init.normal_(parameter)
    return Duplex(
        DuplexDirectoryConfig(duplex, speech),
        model.eval().requires_grad_(False),
        speaker.eval().requires_grad_(False),
        tokenizer,
        codec,
    )
