"""A program like train.py, but for the training: what its jobs do is said by the environment, so that a job takes a second.

TINY_FAULTS: `kill:2,raise:5` kills the job of loss.gamma=2 and lets that of 5 fail; `wait:1` lets it run until it is told to end,
`nan:0` leaves its objective undefined.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from segfocal.cli import job, run_dir, start
from segfocal.config.parse import parse
from segfocal.config.run import TrainConfig
from segfocal.config.schema import CONF
from segfocal.sweeps.trial import Pruned, Reporter, TrialOfJob


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@job
def main(composed: DictConfig) -> float:
    config = parse(TrainConfig, composed)
    gamma = float(config.loss.gamma)  # type: ignore[attr-defined]  # of the focal loss
    seen = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    started = time.time()
    (run_dir() / "seen.json").write_text(json.dumps({**seen, "ckpt": config.ckpt, "started": started}))
    print("epoch 1 of 2  val/iou_macro 0.5", flush=True)
    faults = dict(fault.split(":")[::-1] for fault in os.environ.get("TINY_FAULTS", "").split(",") if fault)
    match faults.get(f"{gamma:g}"):
        case "raise":
            raise RuntimeError("the network has left the building")
        case "kill":
            (run_dir() / "checkpoints").mkdir()
            (run_dir() / "checkpoints" / "last.ckpt").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        case "wait":
            Path("waiting").touch()
            time.sleep(60)
    value = 1 / (1 + gamma) + config.seed / 100
    if trial := TrialOfJob.of_this_process():  # as the callback of a training does
        reporter = Reporter(trial)
        for epoch in range(1, config.trainer.max_epochs + 1):
            if reporter.report(epoch, {config.objective: value, "val/loss": value}):
                raise Pruned(epoch)
    time.sleep(float(os.environ.get("TINY_SECONDS", "0")))
    (run_dir() / "seen.json").write_text(json.dumps({**seen, "ckpt": config.ckpt, "started": started, "ended": time.time()}))
    return math.nan if faults.get(f"{gamma:g}") == "nan" else value


if __name__ == "__main__":
    start(main, TrainConfig, "train")
