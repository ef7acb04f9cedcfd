"""`python -m data.inspect`: draws dialogues and writes what is heard.

`experiment=front_desk seed=S` makes the first dialogues of our own; `manifest=FILE out=FOLDER`
takes those that a reader of data/ingest finds, and prints what was dropped. Leaves a PNG and a
stereo wav for each of the first `count`.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import hydra
import soundfile
from hydra.utils import instantiate
from omegaconf import DictConfig

from data.dialogue import Dialogue
from data.draw import draw
from data.ingest import Dropped, read
from data.ingest.dropped import summary
from data.voices.utterance import SAMPLE_RATE_HZ


def inspect(recordings: Iterable[Dialogue | Dropped], out: Path, count: int) -> list[Dropped]:
    """Draws the first `count` dialogues of a reader; returns what was dropped on the way."""
    out.mkdir(parents=True, exist_ok=True)
    dropped: list[Dropped] = []
    drawn = 0
    for found in recordings:
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


def _dialogues(cfg: DictConfig) -> Iterator[Dialogue | Dropped]:
    """Our own where an experiment says which, else recordings."""
    if "corpus" in cfg:
        corpus = instantiate(cfg.corpus, _convert_="object")
        return (corpus.dialogue(0, number) for number in itertools.count())
    return read(cfg.format, cfg.manifest or "", cfg.licence, cfg.split, cfg.columns)


@hydra.main(version_base=None, config_path="../conf", config_name="inspect")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    out = Path(cfg.out)
    if cfg.count < 1:
        raise SystemExit(f"count is {cfg.count}: must be at least 1")
    try:
        dropped = inspect(_dialogues(cfg), out, cfg.count)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(summary(dropped))
    print(f"left in {out}/:", *sorted(path.name for path in out.glob("*.png")))


if __name__ == "__main__":
    main()
