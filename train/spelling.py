"""Training of the spelling network on the pronouncing dictionary that Festival comes with.

The words that our own sentences and domains use are drawn as often as all others together: they
are learnt by heart, the others as well as their spelling tells.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from data.sentences import split_of
from data.voices.phones import from_radio
from data.voices.words import pronunciation
from model.spelling import PHONES, Spelling, SpellingConfig, letters_of
from train.optimization import OptimizationConfig, optimizer_of

_DICTIONARY = Path("/usr/share/festival/dicts/cmu/cmudict-0.4.out")
_ENTRY = re.compile(r'\("([a-z\']+)" \S+ (.*)\)')
_DIGITS = "zero one two three four five six seven eight nine".split()
_DATA = Path(__file__).parents[1] / "data"

Pronunciations = Mapping[str, tuple[str, ...]]


def dictionary(path: Path = _DICTIONARY) -> dict[str, tuple[str, ...]]:
    """Word -> ARPAbet phones, the first of several; raises FileNotFoundError without Festival."""
    if not path.exists():
        raise FileNotFoundError(f"no dictionary at {path}: run `make setup`")
    found: dict[str, tuple[str, ...]] = {}
    for word, rest in _ENTRY.findall(path.read_text()):
        found.setdefault(word, tuple(from_radio(phone) for phone in re.findall("[a-z]+", rest)))
    return found


def common_words(known: Pronunciations) -> dict[str, tuple[str, ...]]:
    """The words of our own sentences, talk and domains, and the digits, with their phones."""
    files = [_DATA / "sentences.yaml", *_DATA.glob("scripts/*.yaml"), *_DATA.glob("domains/*.yaml")]
    words = {word for file in files for word in re.findall(r"[a-z']+", file.read_text().lower())}
    words = {word.strip("'") for word in words} - {""}
    found = {word: known.get(word) or pronunciation(word) for word in sorted(words)}
    return found | {str(digit): known[word] for digit, word in enumerate(_DIGITS)}


class Words(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches: letters int64 [N, letters] and phones int64 [N, phones], 0 behind them."""

    def __init__(
        self, known: Pronunciations, common: Pronunciations, config: SpellingConfig, size: int
    ) -> None:
        rare = {w: p for w, p in known.items() if w not in common and split_of(w) == "train"}
        self.groups = [spelled(group, config) for group in (common, rare)]
        self.size = size

    def __iter__(self):
        rng = np.random.default_rng(0)
        while True:
            parts = []
            for letters, phones in self.groups:
                rows = rng.integers(len(letters), size=self.size // 2)
                parts.append((letters[rows], phones[rows]))
            yield tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))


def spelled(
    words: Pronunciations, config: SpellingConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Letters [N, letters] and phones [N, phones] of the words that fit."""
    rows = [
        (letters_of(word), [PHONES.index(phone) + 1 for phone in phones])
        for word, phones in words.items()
    ]
    rows = [
        (letters, phones)
        for letters, phones in rows
        if 0 < len(letters) <= config.letters and 0 < len(phones) <= config.phones
    ]
    return _filled([row[0] for row in rows], config.letters), _filled(
        [row[1] for row in rows], config.phones
    )


def _filled(rows: list[list[int]], width: int) -> NDArray[np.int64]:
    return np.array([row + [0] * (width - len(row)) for row in rows], np.int64)


class SpellingData(lightning.LightningDataModule):
    """The dictionary's words as the network is to spell them."""

    def __init__(self, spelling: SpellingConfig, batch_size: int) -> None:
        super().__init__()
        self.spelling, self.batch_size = spelling, batch_size

    def train_dataloader(self) -> DataLoader:
        """Without end; raises FileNotFoundError as `dictionary` does."""
        known = dictionary()
        words = Words(known, common_words(known), self.spelling, self.batch_size)
        return DataLoader(words, batch_size=None)


class SpellingTraining(lightning.LightningModule):
    """The network under CTC."""

    def __init__(self, spelling: SpellingConfig, optimization: OptimizationConfig) -> None:
        super().__init__()
        self.optimization = optimization
        self.spelling = Spelling(spelling)

    def configure_optimizers(self):
        """AdamW with its schedule."""
        return optimizer_of(self.spelling, self.optimization)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """CTC, in nats a phone."""
        letters, phones = batch
        with torch.autocast(letters.device.type, torch.bfloat16):
            logits = self.spelling.logits(letters)
        loss = F.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            phones,
            2 * (letters > 0).sum(1),
            (phones > 0).sum(1),
            zero_infinity=True,
        )
        self.log("train/ctc", loss.detach(), prog_bar=True)
        return loss

    def on_train_end(self) -> None:
        """Logs the shares of words that it gets wrong."""
        if self.logger is not None:
            self.logger.log_metrics(wrong_words(self.spelling), self.global_step)


@torch.no_grad()
def wrong_words(spelling: Spelling) -> dict[str, float]:
    """The share of words said wrong: our own, and those of the dictionary that are not trained."""
    known = dictionary()
    common = common_words(known)
    unseen = {w: p for w, p in known.items() if w not in common and split_of(w) == "test"}
    shares: dict[str, float] = {}
    for name, words in (("wrong_common", common), ("wrong_unseen", unseen)):
        letters, phones = map(torch.from_numpy, spelled(words, spelling.config))
        said = spelling(letters.to(spelling.output.weight.device)).cpu()
        shares[name] = float((said != phones).any(1).float().mean())
    return shares
