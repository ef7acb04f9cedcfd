"""`python -m train.run experiment=NAME`: trains; `resume=true` goes on from runs/NAME."""

import os
from pathlib import Path
from typing import Any

import hydra
import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

NEWEST = "last.ckpt"


@hydra.main(version_base=None, config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Hydra entry point: composes module, data, loggers and callbacks, and fits."""
    if "module" not in cfg:
        raise SystemExit(f"experiment={cfg.experiment_name} makes data: it has nothing to train")
    folder = Path("runs") / cfg.experiment_name
    newest = folder / "checkpoints" / NEWEST
    if newest.exists() and not cfg.resume:
        raise SystemExit(f"{newest} exists: say resume=true to go on, or move {folder} away")
    if cfg.resume and not newest.exists():
        raise SystemExit(f"resume=true, but there is no {newest}")
    os.environ.setdefault("WANDB_MODE", "offline")
    torch.set_num_threads(cfg.threads)
    lightning.seed_everything(cfg.seed)
    trainer = lightning.Trainer(
        default_root_dir=folder,
        logger=_parts(cfg.loggers),
        callbacks=_parts(cfg.callbacks),
        reload_dataloaders_every_n_epochs=1,
        log_every_n_steps=1,
        **instantiate(cfg.trainer, _convert_="object"),
    )
    module = instantiate(cfg.module, _convert_="object")
    data = instantiate(cfg.data, _convert_="object")
    trainer.fit(module, data, ckpt_path=str(newest) if cfg.resume else None)


def _parts(node: DictConfig) -> list[Any]:
    """What stands in a node by name, made; null there leaves one out."""
    parts = instantiate(node, _convert_="object").values()
    return [part for part in parts if part is not None]


if __name__ == "__main__":
    main()
