"""Train a segmentation model: python train.py --help."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from segfocal.accelerators.installed import require_device
from segfocal.cli import job, run_dir, start
from segfocal.config.parse import parse
from segfocal.config.run import TrainConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@job
def main(composed: DictConfig) -> float:
    config = parse(TrainConfig, composed)
    require_device(config.profile)
    from segfocal.engine import fit  # torch comes with it: not before the configuration is right

    return fit(config, run_dir())


if __name__ == "__main__":
    start(main, TrainConfig, "train")
