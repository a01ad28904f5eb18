"""What a sweep costs beside its jobs: python -m benchmarks.sweep

The same small training, by itself, as a sweep of one job and as a sweep of three, one at a time: whole processes, interleaved. What a
job takes in a sweep is half of what two more take; the rest of a sweep of one job is the sweep's own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
JOB = ["profile=cpu", "debug=fast", "model.encoder=resnet18", "data.size=64", "data.val=4", "data.test=4", "callbacks.overlays=0"]
CONTENDERS = {"train.py": ["seed=0"], "a sweep of one": ["-m", "seed=choice(0)"], "a sweep of three": ["-m", "seed=0,1,2"]}


def seconds(arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run([sys.executable, str(ROOT / "train.py"), *JOB, *arguments], cwd=folder, capture_output=True, check=False)
        taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr.decode())
    return taken


def main() -> None:
    """Print a row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(parser.parse_args().rounds):
        for name, arguments in CONTENDERS.items():
            taken[name].append(seconds(arguments))
    alone, one, three = (statistics.median(values) for values in taken.values())
    job = (three - one) / 2
    rows = {"`train.py`": alone, "a job of a sweep": job, "more than `train.py`": job - alone, "the sweep itself": one - job}
    for name, value in rows.items():
        print(f"| {name} | {value:.2f} s |")


if __name__ == "__main__":
    main()
