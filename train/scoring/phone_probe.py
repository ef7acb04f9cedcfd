"""Does a codebook carry phones? A linear probe on the codes of one codebook.

Multinomial logistic regression from the one-hot codes of frames t-1, t and t+1 to the phone in each
of the four 20 ms steps of frame t. A codec's decoder is 20 ms late, so that its frames may describe
audio up to 20 ms back: labels are delayed by as much. Silence does not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from data.voices.phones import PHONES, SILENCE
from data.voices.utterance import Phone

STEPS_PER_FRAME = 4
_STEP_S = 0.02
_DELAY_S = 0.02
_IGNORED = -1
_NUMBER = {phone: number for number, phone in enumerate(PHONES) if phone != SILENCE}
_EPOCHS = 80
_LEARNING_RATE = 0.1
_DECAY = 2e-5  # of the sum of squared weights, against codes that were seen once


def phone_labels(phones: Sequence[Phone], frames: int) -> NDArray[np.int64]:
    """The phone in the middle of each step [frames, 4]; -1 where there is silence or nothing."""
    times = (np.arange(frames * STEPS_PER_FRAME) + 0.5) * _STEP_S - _DELAY_S
    labels = np.full(len(times), _IGNORED)
    for phone in phones:
        within = (times >= phone.start_s) & (times < phone.end_s)
        labels[within] = _NUMBER.get(phone.symbol, _IGNORED)
    return labels.reshape(frames, STEPS_PER_FRAME)


@dataclass(frozen=True)
class Labelled:
    """Utterances of one codebook: `codes` [frames] and `labels` [frames, 4] of each."""

    codes: tuple[NDArray[np.int64], ...]
    labels: tuple[NDArray[np.int64], ...]

    def __post_init__(self) -> None:
        for codes, labels in zip(self.codes, self.labels, strict=True):
            if labels.shape != (len(codes), STEPS_PER_FRAME):
                raise ValueError(f"labels {labels.shape} do not fit {len(codes)} frames")

    def windows(self, outside: int) -> Tensor:
        """Codes of frames t-1, t, t+1 [all frames, 3]; `outside` stands beyond the ends."""
        padded = [np.pad(codes, 1, constant_values=outside) for codes in self.codes]
        rows = [np.lib.stride_tricks.sliding_window_view(codes, 3) for codes in padded]
        return torch.from_numpy(np.concatenate(rows))


class _Probe(nn.Module):
    """Logits [frames, 4, phones] as the sum of one table's rows a neighbour."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        size = STEPS_PER_FRAME * len(PHONES)
        self.tables = nn.Parameter(torch.zeros(3, codes, size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, windows: Tensor) -> Tensor:
        logits = self.bias + sum(F.embedding(windows[:, i], self.tables[i]) for i in range(3))
        return logits.view(-1, STEPS_PER_FRAME, len(PHONES))


def probe(train: Labelled, test: Labelled, codebook_size: int) -> NDArray[np.int64]:
    """Trains on `train`; right labels and counted labels of each test utterance [utterances, 2].

    Deterministic: full batches from zero weights. Raises ValueError where a side has no label.
    """
    for name, side in (("train", train), ("test", test)):
        if not any((labels != _IGNORED).any() for labels in side.labels):
            raise ValueError(f"the probe's {name} side has no phone")
    model = _Probe(codebook_size + 1)  # one more, beyond the ends
    windows, labels = train.windows(codebook_size), torch.from_numpy(np.concatenate(train.labels))
    optimizer = torch.optim.Adam(model.parameters(), _LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS)
    for _ in range(_EPOCHS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(windows).flatten(0, 1), labels.flatten(), ignore_index=-1)
        (loss + _DECAY * model.tables.square().sum()).backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        guessed = model(test.windows(codebook_size)).argmax(-1).numpy()  # [frames, 4]
    ends = np.cumsum([len(codes) for codes in test.codes])[:-1]
    pairs = zip(np.split(guessed, ends), test.labels, strict=True)
    return np.array(
        [[((guess == truth) & (truth != _IGNORED)).sum(), (truth != _IGNORED).sum()]
         for guess, truth in pairs]
    )  # fmt: skip
