"""What training leaves to look at and to listen to: spectrograms, sound files and loss curves."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import lightning
import matplotlib
import numpy as np
import soundfile
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from data.corpus import CorpusConfig, made
from data.recordings import read
from model.checkpoint import save_codec
from model.codec import reconstruct
from model.frame import SAMPLE_RATE_HZ
from train.codec import CodecTraining

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw_spectrograms(sounds: dict[str, NDArray[np.float32]], path: Path) -> None:
    """One spectrogram a row, with its title; 24 kHz audio, dB."""
    figure, axes = plt.subplots(len(sounds), 1, figsize=(10, 2.2 * len(sounds)), squeeze=False)
    for axis, (title, audio) in zip(axes[:, 0], sounds.items(), strict=True):
        axis.specgram(audio + 1e-6, NFFT=960, Fs=SAMPLE_RATE_HZ, noverlap=720, vmin=-140, vmax=-40)
        axis.set(title=title, ylabel="Hz")
    axes[-1, 0].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_losses(logs: Sequence[Path], path: Path) -> None:
    """Every `train/...` column of CSV logs, one a start of the run, against the epoch."""
    curves: dict[str, dict[float, float]] = defaultdict(dict)
    for log in logs:
        with log.open() as lines:
            for row in csv.DictReader(lines):
                for name, value in row.items():
                    if name.startswith("train/") and value:
                        curves[name][float(row["epoch"])] = float(value)
    if not curves:
        return
    figure, axes = plt.subplots(1, len(curves), figsize=(3.2 * len(curves), 2.8), squeeze=False)
    for axis, (name, points) in zip(axes[0], sorted(curves.items()), strict=True):
        axis.plot(list(points), list(points.values()))
        axis.set(title=name.removeprefix("train/"), xlabel="epoch")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


class CodecSamples(Callback):
    """Every `every_epochs`: checkpoint, reconstructions of test sentences and a loss picture."""

    def __init__(self, corpus: CorpusConfig, folder: str, every_epochs: int) -> None:
        self.corpus, self.folder, self.every_epochs = corpus, Path(folder), every_epochs

    @rank_zero_only
    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Writes to runs/NAME: codec/ (a checkpoint) and samples/."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if (trainer.current_epoch + 1) % self.every_epochs and not last:
            return
        assert isinstance(pl_module, CodecTraining)
        save_codec(pl_module.codec, self.folder / "codec")
        samples = self.folder / "samples"
        samples.mkdir(parents=True, exist_ok=True)
        first = {line.voice: path for line, path in reversed(made(self.corpus, "test"))}
        for voice, path in first.items():
            original = read(path)
            rebuilt = reconstruct(pl_module.codec, torch.from_numpy(original)[None])[0].numpy()
            name = voice.replace(":", "-")
            soundfile.write(samples / f"{name}-original.wav", original, SAMPLE_RATE_HZ)
            soundfile.write(samples / f"{name}-rebuilt.wav", rebuilt, SAMPLE_RATE_HZ)
            title = f"{voice} after epoch {trainer.current_epoch + 1}"
            draw_spectrograms({voice: original, title: rebuilt}, samples / f"{name}.png")
        self._draw_losses()

    @rank_zero_only
    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Draws the last epoch's losses, which are logged after the epoch's callbacks."""
        self._draw_losses()

    def _draw_losses(self) -> None:
        starts = (self.folder / "csv").glob("version_*/metrics.csv")
        draw_losses(sorted(starts, key=lambda log: log.stat().st_mtime), self.folder / "losses.png")
