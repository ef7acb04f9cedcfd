"""`python -m train.tokenizer`: learns the vocabulary from scripts made on the fly, without sound.

It learns from the texts as the streams of a small model hold them (train.positions): the agent's
words, the user's plain ones, actions and results, the role and the tools' signatures.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import hydra
from omegaconf import DictConfig

from data.sentences import sentences
from model.tokens import END, DialogueTokenizer, serialize, serialize_context, train_tokenizer
from train.text_dialogues import TextDialogues, TextDialoguesConfig
from train.text_streams import Row, plain


def texts_of(row: Row) -> Iterator[str]:
    """Every text of a dialogue, without special tokens."""
    yield " ".join(word["text"] for word in row["agent_words"])
    yield " ".join(plain(word["text"]) for word in row["user_words"])
    given = serialize_context(row["system"], json.loads(row["tools"]), describe=False)
    acted = [
        serialize(a["kind"], a["number"], a["tool"], json.loads(a["arguments"]))
        for a in row["actions"]
    ]
    for text in (*given, *acted):
        yield text.partition(" ")[2].removesuffix(f" {END}")


def learn(
    domains: Mapping[str, float], dialogues: int, other: int, vocabulary_size: int
) -> DialogueTokenizer:
    """A vocabulary from so many dialogues and `other` sentences; always the same."""
    config = TextDialoguesConfig(domains, codebooks=1, latent_dim=0, any_values=0.0)
    makes = TextDialogues(config, "train", words=())
    rows = (makes.row(f"tokenizer {number}") for number in range(dialogues))
    texts = itertools.chain.from_iterable(map(texts_of, rows))
    general = itertools.islice(sentences("train", "tokenizer"), other)
    return train_tokenizer(itertools.chain(texts, general), vocabulary_size)


@hydra.main(version_base=None, config_path="../conf", config_name="tokenizer")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    tokenizer = learn(dict(cfg.domains), cfg.dialogues, cfg.sentences, cfg.vocabulary_size)
    out = Path(cfg.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(out)
    print(f"{out}: {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
