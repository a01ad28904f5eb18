"""Two processes, this one and one that runs this file, count seven images as one would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import segfocal
from segfocal.config.task import TaskConfig
from segfocal.decision import Decision
from segfocal.metrics.bootstrap import intervals
from segfocal.metrics.boundary import BoundaryCounts
from segfocal.metrics.images import ImageTable

pytestmark = pytest.mark.xdist_group("images of ranks")

TASK = TaskConfig(name="multiclass", classes=["road", "crack", "patch"])
NAMES = ["e", "b", "g", "a", "f", "c", "d"]


def seven_images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (7, 20, 24), generator=generator).masked_fill(torch.rand(7, 20, 24, generator=generator) < 0.1, 255)
    return 2 * torch.randn(7, 3, 20, 24, generator=generator), target


def counted(mine: list[int]) -> dict[str, Any]:
    """All that is known of these images, and of those of the other process."""
    table, boundary = ImageTable(TASK, Decision("multiclass", offsets=[0.0, 1.0, 0.0])), BoundaryCounts(TASK, tolerance=1.0)
    for number in mine:
        logits, target = (each[[number]] for each in seven_images())
        table.add([NAMES[number]], logits, target)
        boundary.add(table.decision.labels(logits), target)
    table, boundary = table.gathered(), boundary.gathered()
    return {
        "names": table.names,
        "plain": table.plain.tolist(),
        "tuned": table.tuned.tolist(),
        "valid": table.valid.tolist(),
        "score": table.score.tolist(),
        "auroc": table.image_auroc(),
        "chosen": [list(each) for each in table.choose(5)],
        "intervals": {name: list(ends) for name, ends in intervals(table.tuned, TASK.class_names, 50).items()},
        "boundary": boundary.figures(),
    }


def on_rank(rank: int, rendezvous: str) -> dict[str, Any]:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    try:
        return counted([0, 2, 4, 6] if rank == 0 else [1, 3, 5])
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    rendezvous = str(tmp_path_factory.mktemp("gloo") / "rendezvous")  # a file, since a free port may be taken meanwhile
    environment = os.environ | {"PYTHONPATH": str(Path(segfocal.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, __file__, rendezvous], env=environment, stdout=subprocess.PIPE, text=True) as other:
        here = on_rank(0, rendezvous)
        return here, json.loads(other.communicate(timeout=60)[0])


def test_two_processes_count_seven_images_as_one(ranks: tuple[dict[str, Any], dict[str, Any]]) -> None:
    alone = counted(list(range(7)))
    assert alone["names"] == sorted(NAMES)
    for found in ranks:
        assert found == alone


if __name__ == "__main__":
    print(json.dumps(on_rank(1, sys.argv[1])))
