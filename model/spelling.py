"""How a written word sounds: letters to phones, by a small network instead of a dictionary.

The speech transformer is told phones, so that a name that was never in its training is a new row of
known sounds. The network is trained on a pronouncing dictionary with CTC (Graves et al. 2006): each
letter makes two phones or fewer, so a batch of words is one pass, and no word is unknown.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.ops import pack

ALPHABET = "abcdefghijklmnopqrstuvwxyz'0123456789"  # letter i is number i + 1; 0 is none
PHONES = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW "
    "V W Y Z ZH".split()
)  # phone i is number i + 1; 0 is none
_PER_LETTER = 2


@dataclass(frozen=True)
class SpellingConfig:
    """Sizes; what a word has beyond `letters` or `phones` is left out."""

    dim: int = 96
    layers: int = 4
    kernel: int = 5
    letters: int = 16
    phones: int = 14

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "letters", "phones"):
            assert getattr(self, name) > 0, f"{name} {getattr(self, name)} must be positive"
        assert self.kernel % 2 == 1, f"kernel {self.kernel} must be odd"


def letters_of(text: str) -> list[int]:
    """The numbers of the letters in a text; what is none is left out."""
    return [ALPHABET.index(letter) + 1 for letter in text.lower() if letter in ALPHABET]


class Spelling(nn.Module):
    """Letters int64 [N, letters] -> phones int64 [N, phones], both filled up with 0."""

    def __init__(self, config: SpellingConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(len(ALPHABET) + 1, config.dim)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.dim, 2 * config.dim, config.kernel, padding=config.kernel // 2)
            for _ in range(config.layers)
        )
        self.output = nn.Linear(config.dim, _PER_LETTER * (len(PHONES) + 1))

    def logits(self, letters: Tensor) -> Tensor:
        """Of the phones that each letter makes: float32 [N, 2 * letters, phones + 1]; 0 is none."""
        is_letter = (letters > 0)[:, None]  # [N, 1, letters]
        x = self.embedding(letters).transpose(1, 2) * is_letter  # [N, dim, letters]
        for convolution in self.convolutions:
            x = (x + F.glu(convolution(x), dim=1)) * is_letter
        y = self.output(x.transpose(1, 2))  # [N, letters, 2 * (phones + 1)]
        return y.unflatten(2, (_PER_LETTER, -1)).flatten(1, 2).float()

    def forward(self, letters: Tensor) -> Tensor:
        likeliest = self.logits(letters).argmax(-1)  # [N, 2 * letters]
        likeliest = likeliest * (letters > 0).repeat_interleave(_PER_LETTER, dim=1)
        before = F.pad(likeliest, (1, 0))[:, :-1]
        is_said = (likeliest > 0) & (likeliest != before)
        place = (is_said.cumsum(1) - 1).clamp(min=0)
        place = torch.where(is_said, place, self.config.phones)  # the others fall off the end
        room = likeliest.new_zeros(len(letters), 2 * self.config.letters + self.config.phones + 1)
        return room.scatter_(1, place, likeliest)[:, : self.config.phones]

    def weights(self) -> list[Tensor]:
        """As the operator wants them: three, then two of each convolution."""
        weights = [self.embedding.weight, pack(self.output.weight), self.output.bias]
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv1d)
            assert convolution.bias is not None
            taps = convolution.weight.transpose(1, 2).flatten(1)  # [2 * dim, kernel * dim]
            weights += [pack(taps), convolution.bias]
        return weights
