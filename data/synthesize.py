"""`python -m data.synthesize experiment=codec`: speaks the corpus into the phrase cache.

Parallel over processes; a second run makes only what is missing.
"""

from concurrent.futures import ProcessPoolExecutor, as_completed

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from data.corpus import CorpusConfig, Line, plan
from data.voices import say
from data.voices.store import is_made, phrase_path


def speak(line: Line) -> None:
    """Speaks one line into the cache."""
    say(line.text, line.voice)


def synthesize(config: CorpusConfig, processes: int) -> None:
    """Speaks every missing line; lines that fail are named at the end, the others are kept."""
    missing = [line for line in plan(config) if not is_made(phrase_path(line.text, line.voice))]
    failures: list[str] = []
    with ProcessPoolExecutor(processes) as pool:
        waiting = {pool.submit(speak, line): line for line in missing}
        for done in tqdm(as_completed(waiting), total=len(waiting), unit="phrase"):
            if error := done.exception():
                failures.append(f"{waiting[done].voice} {waiting[done].text!r}: {error}")
    if failures:
        raise SystemExit(f"{len(failures)} phrases failed:\n" + "\n".join(failures[:20]))


@hydra.main(version_base=None, config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    synthesize(instantiate(cfg.corpus, _convert_="object"), cfg.processes)


if __name__ == "__main__":
    main()
