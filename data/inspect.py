"""`python -m data.inspect manifest=FILE out=FOLDER`: draws recordings and writes what is heard.

Leaves a PNG (both waveforms, words, who speaks, calls) and a stereo wav for each of the first
`count` dialogues of a manifest in moshi-finetune's format, and prints what was dropped.
"""

from pathlib import Path

import hydra
import matplotlib
import numpy as np
import soundfile
from omegaconf import DictConfig

from data.dialogue import AGENT, USER, Dialogue
from data.ingest import Dropped, read_moshi
from data.ingest.dropped import summary
from data.voices.utterance import SAMPLE_RATE_HZ
from model.codec import FRAME_RATE_HZ

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_SIDES = {AGENT: ("agent", "tab:blue"), USER: ("user", "tab:orange")}
_INCHES_A_SECOND = 1.2
_POINTS_A_SECOND = 400  # of a waveform: its envelope, not every sample


def draw(dialogue: Dialogue, path: Path) -> None:
    """One picture of a dialogue: a row a side, calls (named above) and results (below) as lines."""
    width = min(max(8.0, dialogue.seconds * _INCHES_A_SECOND), 60.0)
    figure, axes = plt.subplots(2, 1, figsize=(width, 4.6), sharex=True)
    for side, (name, colour) in _SIDES.items():
        _draw_side(axes[side], dialogue, side, colour)
        axes[side].set(ylabel=name, ylim=(-1.1, 1.7), yticks=[])
    for action in dialogue.actions:
        for axis in axes:
            axis.axvline(action.time_s, color="tab:red", linewidth=1)
        arguments = ", ".join(f"{name}={value}" for name, value in action.arguments.items())
        replaced = f" (for {action.revises})" if action.revises else ""
        label = f"{action.number} {action.kind}{replaced}\n {action.tool} \n {arguments}"
        towards = "right" if action.time_s > 0.8 * dialogue.seconds else "left"
        axes[USER if action.kind == "result" else AGENT].text(
            action.time_s, 1.65, f" {label} ", color="tab:red", size=7, va="top", ha=towards
        )
    axes[-1].set(xlabel="seconds", xlim=(0, dialogue.seconds))
    figure.suptitle(f"{dialogue.name}: {dialogue.source}, {dialogue.licence}", size=9)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw_side(axis: Axes, dialogue: Dialogue, side: int, colour: str) -> None:
    """Envelope, words where they begin, and a bar under the frames in which the side speaks."""
    step = SAMPLE_RATE_HZ // _POINTS_A_SECOND
    audio = dialogue.audio[side]
    blocks = np.pad(audio, (0, -len(audio) % step)).reshape(-1, step)
    times = np.arange(len(blocks)) / _POINTS_A_SECOND
    axis.fill_between(times, blocks.min(1), blocks.max(1), color=colour, alpha=0.7, linewidth=0)
    for word in dialogue.words[side]:
        axis.axvspan(word.start_s, word.end_s, ymax=0.02, color="black", alpha=0.5)
        axis.text(word.start_s, 0.55, word.text, rotation=60, size=7)
    speaking = np.flatnonzero(dialogue.is_speaking()[side]) / FRAME_RATE_HZ
    axis.broken_barh([(float(t), 1 / FRAME_RATE_HZ) for t in speaking], (-1.0, 0.1), color=colour)


def inspect(manifest: Path, out: Path, count: int, licence: str) -> list[Dropped]:
    """Draws the first `count` dialogues of a manifest; returns what was dropped on the way."""
    out.mkdir(parents=True, exist_ok=True)
    dropped: list[Dropped] = []
    drawn = 0
    for found in read_moshi(manifest, licence):
        if isinstance(found, Dropped):
            dropped.append(found)
            continue
        drawn += 1
        stem = f"{drawn:03}-{Path(found.name).stem}"
        draw(found, out / f"{stem}.png")
        soundfile.write(out / f"{stem}.wav", found.audio.T, SAMPLE_RATE_HZ)
        if drawn == count:
            break
    return dropped


@hydra.main(version_base=None, config_path="../conf", config_name="inspect")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    manifest, out = Path(cfg.manifest or ""), Path(cfg.out)
    if not manifest.is_file():
        raise SystemExit(f"manifest is {cfg.manifest!r}: must be a file, one recording a line")
    if cfg.count < 1:
        raise SystemExit(f"count is {cfg.count}: must be at least 1")
    print(summary(inspect(manifest, out, cfg.count, cfg.licence)))
    print(f"left in {out}/:", *sorted(path.name for path in out.glob("*.png")))


if __name__ == "__main__":
    main()
