"""Crops of speech for the codec: clean target, damaged input and phone labels."""

from dataclasses import dataclass
from typing import NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data import recordings
from data.augment import add_noise, coloured_noise, fit, reverberate, speed, telephone
from data.corpus import CorpusConfig, made, read_phones
from data.voices.phones import PHONES
from model.frame import FRAME_SIZE, SAMPLE_RATE_HZ

_LABEL_STEP = FRAME_SIZE // 4  # 20 ms
NO_LABEL = -100  # ignored by the loss
_PHONE_INDEX = {symbol: index for index, symbol in enumerate(PHONES)}

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class CodecDataConfig:
    """How crops are drawn; shares are of the crops, probabilities of a crop's damage."""

    crop_frames: int
    batch_size: int
    steps_per_epoch: int
    shares: dict[str, float]  # agent, voices, human, music
    damaged: tuple[str, ...]  # the groups whose crops are damaged
    seed: int = 0

    def __post_init__(self) -> None:
        if set(self.shares) != {"agent", "voices", "human", "music"}:
            raise ValueError(f"shares {sorted(self.shares)}: must be agent, voices, human, music")
        if unknown := set(self.damaged) - set(self.shares):
            raise ValueError(f"damaged {sorted(unknown)}: must be of {sorted(self.shares)}")
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares {self.shares}: must add up to 1")
        if min(self.crop_frames, self.batch_size, self.steps_per_epoch) < 1:
            raise ValueError("crop_frames, batch_size and steps_per_epoch must be at least 1")


class Clip(NamedTuple):
    """One sound file in memory: int16 [T] and a phone index every 20 ms, or None."""

    audio: NDArray[np.int16]
    labels: NDArray[np.int64] | None


class Crop(NamedTuple):
    """`damaged` and `clean` float32 [T]; `labels` int64 [T / 480], -100 where unknown.

    A batch of crops is a Crop of tensors with a batch dimension in front.
    """

    damaged: Tensor
    clean: Tensor
    labels: Tensor


def phone_labels(phones: list[tuple[str, float, float]], samples: int) -> NDArray[np.int64]:
    """Phones in time -> the phone in the middle of every 20 ms step."""
    middles = (np.arange(samples // _LABEL_STEP) + 0.5) * _LABEL_STEP / SAMPLE_RATE_HZ
    ends = np.array([end for _, _, end in phones])
    rows = np.minimum(np.searchsorted(ends, middles, side="right"), len(phones) - 1)
    return np.array([_PHONE_INDEX[symbol] for symbol, _, _ in phones])[rows]


def _as_clip(audio: Audio, phones: list[tuple[str, float, float]]) -> Clip:
    pcm = (audio.clip(-1, 1) * 32767).astype(np.int16)
    return Clip(pcm, phone_labels(phones, len(pcm)) if phones else None)


def load_clips(corpus: CorpusConfig) -> dict[str, dict[str, list[Clip]]]:
    """Group -> voice -> clips, of the training split and of what has been made so far."""
    groups: dict[str, dict[str, list[Clip]]] = {"agent": {}, "voices": {}, "human": {}, "music": {}}
    for line, path in tqdm(made(corpus, "train"), desc="speech", unit="clip"):
        group = "agent" if line.voice in corpus.agent_voices else "voices"
        clip = _as_clip(recordings.read(path), read_phones(path))
        groups[group].setdefault(line.voice, []).append(clip)
    for group, found in (
        ("human", recordings.training_recordings()),
        ("music", recordings.training_music()),
    ):
        for recording in tqdm(found, desc=group, unit="clip"):
            clip = _as_clip(recordings.read(recording.path), [])
            groups[group].setdefault(recording.speaker, []).append(clip)
    return groups


class CropDataset(Dataset[Crop]):
    """Random crops; item i of an epoch is always the same crop."""

    def __init__(
        self, groups: dict[str, dict[str, list[Clip]]], config: CodecDataConfig, epoch: int
    ) -> None:
        self.groups, self.config, self.epoch = groups, config, epoch
        self.samples = config.crop_frames * FRAME_SIZE

    def __len__(self) -> int:
        return self.config.batch_size * self.config.steps_per_epoch

    def __getitem__(self, index: int) -> Crop:
        rng = np.random.default_rng((self.config.seed, self.epoch, index))
        names = [name for name, share in self.config.shares.items() if share and self.groups[name]]
        shares = np.array([self.config.shares[name] for name in names])
        group = str(rng.choice(names, p=shares / shares.sum()))
        clean, labels = self._draw(group, rng)
        is_varied = group in ("voices", "human") and rng.random() < 0.7
        factor = float(rng.uniform(0.85, 1.18)) if is_varied else 1.0
        clean, labels = self._change_speed(clean, labels, factor)
        clean = clean * np.float32(10 ** (rng.uniform(-15, 3) / 20))
        clean = clean / np.float32(max(1.0, np.abs(clean).max() / 0.99))
        damaged = clean
        if group in self.config.damaged:
            damaged = self._damage(clean, rng)
        return Crop(*(torch.from_numpy(array) for array in (damaged, clean, labels)))

    def _draw(self, group: str, rng: np.random.Generator) -> tuple[Audio, NDArray[np.int64]]:
        """Joins clips of one voice, from a random start, until the fastest speed has enough."""
        voices = list(self.groups[group].values())
        clips = voices[rng.integers(len(voices))]
        need = int(self.samples * 1.2) + _LABEL_STEP
        audio: list[NDArray[np.int16]] = []
        labels: list[NDArray[np.int64]] = []
        length = 0
        while length < need:
            clip = clips[rng.integers(len(clips))]
            steps = len(clip.audio) // _LABEL_STEP
            first = int(rng.integers(max(1, steps - 25))) if not audio else 0
            known = clip.labels if clip.labels is not None else np.full(steps, NO_LABEL)
            audio.append(clip.audio[first * _LABEL_STEP : steps * _LABEL_STEP])
            labels.append(known[first:])
            length += len(audio[-1])
        pcm = np.concatenate(audio)[:need].astype(np.float32) / np.float32(32768)
        return pcm, np.concatenate(labels)

    def _change_speed(
        self, clean: Audio, labels: NDArray[np.int64], factor: float
    ) -> tuple[Audio, NDArray[np.int64]]:
        steps = self.samples // _LABEL_STEP
        rows = ((np.arange(steps) + 0.5) * factor).astype(int)
        faster = clean if factor == 1.0 else speed(clean, factor)
        return fit(faster, self.samples), labels[rows]

    def _damage(self, clean: Audio, rng: np.random.Generator) -> Audio:
        """A room, a busy line and a telephone, each now and then."""
        damaged = clean
        if rng.random() < 0.1:
            damaged = reverberate(damaged, float(rng.uniform(0.15, 0.5)), rng)
        if rng.random() < 0.3:
            if rng.random() < 0.3 and self.groups["music"]:
                noise, _ = self._draw("music", rng)
                noise = fit(noise, len(damaged))
            else:
                noise = coloured_noise(len(damaged), rng)
            damaged = add_noise(damaged, noise, float(rng.uniform(8, 40)))
        if rng.random() < 0.12:
            damaged = telephone(damaged)
        return damaged


class CodecData(lightning.LightningDataModule):
    """Loads the corpus once and draws new crops each epoch."""

    def __init__(self, corpus: CorpusConfig, config: CodecDataConfig) -> None:
        super().__init__()
        self.corpus, self.config = corpus, config
        self.groups: dict[str, dict[str, list[Clip]]] = {}

    def setup(self, stage: str) -> None:
        """Reads the corpus; raises FileNotFoundError where nothing has been made yet."""
        if self.groups:
            return
        self.groups = load_clips(self.corpus)
        if not self.groups["agent"]:
            raise FileNotFoundError("no corpus: run `python -m data.synthesize experiment=codec`")

    def train_dataloader(self) -> DataLoader[Crop]:
        """Called anew each epoch (the trainer reloads it)."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        dataset = CropDataset(self.groups, self.config, epoch)
        return DataLoader(dataset, self.config.batch_size, drop_last=True)
