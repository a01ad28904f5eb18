"""The curves of one seeded run for each task, as they were when somebody last meant to change them.

On a processor that they were recorded on they are the same to the last digit; on another one kernels add in another order, and what is
compared is what a change of meaning would move: python -m tests.reliability.test_golden records them anew.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, run

GOLDEN = Path(__file__).with_name("golden.json")
SEEDED = [
    "model=pspnet",
    "model.encoder=tu-test_resnet",
    "data=synthetic",
    "data.size=64",
    "data.train=16",
    "data.val=4",
    "data.test=4",
    "data.batch_size=4",
    "data.crop=[48,48]",
    "data.num_workers=0",
    "augment=medium",
    "sampling=rare_class",
    "callbacks.overlays=0",
    "trainer.test=false",
    "trainer.max_epochs=3",
    "report=false",
    "profile=cpu",
    "profile.threads=1",
    "trainer.precision=32-true",
    "logger=csv",
    "out=golden",
]
TASKS = ("binary", "multiclass", "multilabel")
OTHER = 2e-3  # relative; three epochs of other rounding come to some 1e-5, and what a wrong weight or order does to a few per cent
SHOWN = ("train/loss", "val/loss", "val/iou_macro", "val/auroc_macro")


def processor() -> str:
    """What decides which kernels run: vendor, family and model; of torch its version and what it takes."""
    said = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    found = [re.search(rf"^{key}\s*: (.*)$", said, re.MULTILINE) for key in ("vendor_id", "cpu family", "model")]
    parts = [match[1] for match in found if match]
    return " ".join([*parts, torch.backends.cpu.get_cpu_capability(), str(torch.__version__)])


def curves(task: str, folder: Path) -> dict[str, list[float]]:
    done = run(str(ROOT / "train.py"), *SEEDED, f"task={task}", cwd=folder)
    assert done.code == 0, done.err
    (path,) = folder.glob("golden/*/metrics.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in SHOWN}


@pytest.mark.parametrize("task", TASKS)
def test_a_seeded_run_gives_the_curves_that_it_gave(tmp_path: Path, task: str) -> None:
    recorded = json.loads(GOLDEN.read_text())
    found = curves(task, tmp_path)
    if processor() in recorded:
        assert found == recorded[processor()][task]
        return
    for known in recorded.values():
        for name, values in known[task].items():
            assert found[name] == pytest.approx(values, rel=OTHER, abs=OTHER), name


if __name__ == "__main__":
    there = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    there[processor()] = {}
    for each in TASKS:
        with tempfile.TemporaryDirectory() as place:
            there[processor()][each] = curves(each, Path(place))
    GOLDEN.write_text(json.dumps(there, indent=1) + "\n")
