"""`python -m data.synthesize experiment=NAME`: makes an experiment's data; a second run makes only
what is missing.

`experiment=codec` speaks the codec's sentences into the phrase cache. `experiment=front_desk
hours=H seed=S` makes dialogues and writes them, tokenised, as Parquet shards. On several machines
with one file system each makes its share: `node=0 nodes=4`, `node=1 nodes=4` ...
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from data.corpus import CorpusConfig, Line, plan
from data.dialogue import Dialogue
from data.dialogue_corpus import DialogueCorpus
from data.shards import shard_path, write_shard
from data.voices import say
from data.voices.store import is_made, phrase_path
from model.checkpoint import load_codec


def speak(line: Line) -> None:
    """Speaks one line into the cache."""
    say(line.text, line.voice)


def synthesize(config: CorpusConfig, processes: int) -> None:
    """Speaks every missing line; lines that fail are named at the end, the others are kept."""
    missing = [line for line in plan(config) if not is_made(phrase_path(line.text, line.voice))]
    _run(speak, [(line,) for line in missing], processes, "phrase")


def make_shard(config: DialogueCorpus, folder: str, shard: int) -> None:
    """Makes one shard of a corpus. It depends on the corpus and its number only, so any worker of
    any machine may make it (Ray Data maps it as well as a pool of processes does)."""
    torch.set_num_threads(1)  # a process a core; and sums in one order
    dialogues: list[Dialogue] = []
    while sum(dialogue.seconds for dialogue in dialogues) < config.shard_minutes * 60:
        dialogues.append(config.dialogue(shard, len(dialogues)))
    write_shard(shard_path(Path(folder), shard), dialogues, load_codec(), config.with_latents)


def synthesize_dialogues(
    config: DialogueCorpus, folder: Path, processes: int, node: int = 0, nodes: int = 1
) -> None:
    """Makes every missing shard of this node's; those that fail are named at the end.

    Raises SystemExit where the folder holds shards of another corpus.
    """
    if not 0 <= node < nodes:
        raise SystemExit(f"node is {node}: must be in 0..{nodes - 1} (nodes={nodes})")
    _check_folder(config, folder)
    mine = range(node, config.shards, nodes)
    missing = [shard for shard in mine if not shard_path(folder, shard).exists()]
    _run(make_shard, [(config, str(folder), shard) for shard in missing], processes, "shard")


def _check_folder(config: DialogueCorpus, folder: Path) -> None:
    """What the folder was begun with must be what is asked for now, but for its hours."""
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    del wanted["hours"]
    path = folder / "corpus.json"
    if path.exists():
        found = json.loads(path.read_text())
        changed = [key for key in wanted if found.get(key) != wanted[key]]
        if changed:
            raise SystemExit(
                f"{folder} holds another corpus: {', '.join(changed)} differ; say out=ANOTHER, or "
                "remove it"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(wanted, indent=1) + "\n")
        partial.rename(path)


def _run(
    function: Callable[..., None], tasks: Sequence[tuple[Any, ...]], processes: int, unit: str
) -> None:
    """Runs every task; exits naming those that failed, once the others are done."""
    failures: list[str] = []
    with ProcessPoolExecutor(processes) as pool:
        waiting = {pool.submit(function, *task): task for task in tasks}
        for done in tqdm(as_completed(waiting), total=len(waiting), unit=unit):
            if error := done.exception():
                failures.append(f"{waiting[done][-1]}: {error}")
    if failures:
        raise SystemExit(f"{len(failures)} {unit}s failed:\n" + "\n".join(failures[:20]))


@hydra.main(version_base=None, config_path="../conf", config_name="synthesize")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    corpus = instantiate(cfg.corpus, _convert_="object")
    if isinstance(corpus, CorpusConfig):
        synthesize(corpus, cfg.processes)
    else:
        synthesize_dialogues(corpus, Path(cfg.out), cfg.processes, cfg.node, cfg.nodes)


if __name__ == "__main__":
    main()
