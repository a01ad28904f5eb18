"""How long the command line takes to answer: python -m benchmarks.startup

Medians of interleaved runs of whole processes, beside a bare interpreter and the import of torch and Lightning that
configuration does without.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 7
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "train.py --help": [str(ROOT / "train.py"), "--help"],
    "train.py --cfg job": [str(ROOT / "train.py"), "--cfg", "job"],
    "train.py loss=focl optimizer.lr=nan": [str(ROOT / "train.py"), "loss=focl", "optimizer.lr=nan"],
    "train.py model.encoder=tu-resnt18": [str(ROOT / "train.py"), "model.encoder=tu-resnt18"],
    "import torch, lightning, smp": ["-c", "import torch, lightning.pytorch, segmentation_models_pytorch"],
}


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False)
    return time.perf_counter() - started


def main() -> None:
    """Print a row a command."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(arguments))
    for name, values in taken.items():
        print(f"| `{name}` | {statistics.median(values):.2f} s |")


if __name__ == "__main__":
    main()
