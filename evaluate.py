"""Evaluate a checkpoint: python evaluate.py --help."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from segfocal.accelerators.installed import require_device
from segfocal.cli import job, run_dir, start
from segfocal.config.parse import parse
from segfocal.config.run import EvaluateConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@job
def main(composed: DictConfig) -> float:
    config = parse(EvaluateConfig, composed)
    require_device(config.profile)
    from segfocal.evaluation import evaluate  # torch comes with it: not before the configuration is right

    return evaluate(config, run_dir())


if __name__ == "__main__":
    start(main, EvaluateConfig, "evaluate")
