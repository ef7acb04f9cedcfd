"""`python -m data.ingest format=... manifest=... out=FOLDER`: recordings as tokenised shards.

What cannot be taken in is named in FOLDER/dropped.txt; the rest is there for training as dialogues
of our own are.
"""

from collections.abc import Iterable
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from data.dialogue import Dialogue
from data.ingest import Dropped, read
from data.ingest.dropped import summary
from data.shards import shard_path, write_shard
from model.checkpoint import load_codec


def ingest(
    recordings: Iterable[Dialogue | Dropped], folder: Path, shard_minutes: float, latents: bool
) -> list[Dropped]:
    """Writes recordings into shards of that many minutes or more; returns what was dropped.

    Raises ValueError where the folder holds shards already.
    """
    if any(folder.glob("*.parquet")):
        raise ValueError(f"out {str(folder)!r} holds shards already: name another folder")
    codec = load_codec()
    dropped: list[Dropped] = []
    waiting: list[Dialogue] = []
    shards = 0
    for found in tqdm(recordings, unit="recording"):
        if isinstance(found, Dropped):
            dropped.append(found)
            continue
        waiting.append(found)
        if sum(one.seconds for one in waiting) >= shard_minutes * 60:
            write_shard(shard_path(folder, shards), waiting, codec, latents)
            shards, waiting = shards + 1, []
    if waiting:
        write_shard(shard_path(folder, shards), waiting, codec, latents)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dropped.txt").write_text(summary(dropped) + "\n")
    return dropped


@hydra.main(version_base=None, config_path="../../conf", config_name="ingest")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    torch.set_num_threads(cfg.threads)
    try:
        recordings = read(cfg.format, cfg.manifest or "", cfg.licence, cfg.split, cfg.columns)
        dropped = ingest(recordings, Path(cfg.out), cfg.shard_minutes, cfg.with_latents)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(summary(dropped))


if __name__ == "__main__":
    main()
