"""Images a second that are read from a data set and from its pack: python -m benchmarks.streaming data=folder data.root=/path ...

Overrides are those of train.py; the default is the generated data set, whose own rate says nothing: it is kept in memory. One process reads
the training samples in a random order, decodes them and does nothing else. Medians of interleaved rounds, files in the page cache.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from segfocal.cli import command, refuse_flags
from segfocal.config.data import DATA
from segfocal.config.parse import parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.config.streaming import StreamingConfig
from segfocal.data.source import Source
from segfocal.pack import pack

ROUNDS = 5
SAMPLES = 400


def rate(source: Source, seed: int) -> float:
    order = np.random.default_rng(seed).permutation(len(source))[:SAMPLES]
    started = time.perf_counter()
    for index in order:
        source.read(int(index))
    return len(order) / (time.perf_counter() - started)


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def table(overrides: list[str]) -> str:
    """A row a source."""
    refuse_flags(overrides, "benchmarks.streaming")
    ((_, config),) = parse_sweep(TrainConfig, "train", overrides, 1)
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "pack"
        started = time.perf_counter()
        pack(config, packed)
        print(f"packed in {time.perf_counter() - started:.1f} s: {size(packed):.1f} MB")
        streaming = StreamingConfig(root=str(packed))
        channels = config.model.in_channels
        sources = {
            f"data={chosen.name}": DATA.build(chosen, config.task, channels, config.seed)["train"] for chosen in (config.data, streaming)
        }
        taken: dict[str, list[float]] = {name: [] for name in sources}
        for seed in range(ROUNDS):
            for name, source in sources.items():
                taken[name].append(rate(source, seed))
    rows = [f"| `{name}` | {statistics.median(rates):.0f} |" for name, rates in taken.items()]
    return "\n".join([f"| source, {len(source)} samples | images/s |", "| --- | --- |", *rows])


if __name__ == "__main__":
    command(table, sys.argv[1:], __doc__)
