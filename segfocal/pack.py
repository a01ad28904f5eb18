"""Write a data set as shards that `data=streaming` reads, from a folder or from an object store.

    python -m segfocal.pack data=folder data.root=/path/to/data 'task.classes=[crack]' out=/path/to/pack
    python train.py data=streaming data.root=/path/to/pack 'task.classes=[crack]'

Overrides are those of train.py; what counts are task, data, model.in_channels and seed. The data is checked as before training. The same
data gives the same bytes. `out` is made, and appears when all is written; copy it to an object store by the store's own tool. More in
docs/streaming.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from segfocal.cli import command, refuse_flags
from segfocal.config.parse import parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.config.task import TaskConfig
from segfocal.data.cache import as_arrays
from segfocal.data.measure import SampleStats, measure
from segfocal.data.packed import DESCRIPTION, FORMAT, SAMPLES, Description, Shard, decode, encode
from segfocal.data.shards import INSTALL
from segfocal.data.source import Array, Source
from segfocal.errors import UserError
from segfocal.rundir import shown_path

SHARD_BYTES = 64_000_000  # long enough for a store's throughput, short enough to keep many
AS_SAVED = (b"\xff\xd8\xff", b"\x89PNG")  # how JPEG and PNG begin
AT_ONCE = 64  # samples that are encoded before the first of them is written


class Item(NamedTuple):
    """A sample as it is stored."""

    image: bytes
    mask: bytes
    stats: SampleStats

    @property
    def checksum(self) -> int:
        """Of what litdata makes of it: the lengths of image and mask, then the two."""
        lengths = struct.pack("<II", len(self.image), len(self.mask))
        return zlib.crc32(self.mask, zlib.crc32(self.image, zlib.crc32(lengths)))


def pack(config: TrainConfig, out: Path, shard_bytes: int = SHARD_BYTES) -> Description:
    """Check the data and write it.

    Args:
        config: says task, data and channels.
        out: a folder that is not there, or is empty.
        shard_bytes: length of a shard; a larger sample has one of its own.

    Raises:
        UserError: `out` holds something or cannot be written to, faults in the data, litdata is not installed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out}: is there, and not an empty folder: choose another, or remove it")
    if os.path.ismount(out):  # a folder that is renamed when it is whole cannot become one
        raise UserError(f"out={out}: is a mount point: name a folder in it, as in out={out}/data")
    _writer_class()
    from segfocal.data.datamodule import SegmentationData

    data = SegmentationData(config.data, config.augment, config.task, config.model.in_channels, workers=0, seed=config.seed)
    data.check(to_train=False)
    out = out.absolute()
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        splits = {split: _write_split(source, config.task, part, split, shard_bytes) for split, source in data.sources.items()}
        task, channels = config.task, config.model.in_channels
        found = Description(FORMAT, task.name, task.class_names, task.ignore_index, channels, _digest(part), splits, **data.reading)
        (part / DESCRIPTION).write_text(found.dumps(), encoding="utf-8")
        os.replace(part, out)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def _write_split(source: Source, task: TaskConfig, folder: Path, split: str, shard_bytes: int) -> list[Shard]:
    """The shards of a split, and what is known of its samples."""
    writer = _writer_class()(str(folder / split), chunk_bytes=shard_bytes)
    stats, checksums = [], []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="An item was larger than the target chunk size")
        shown = track(_items(source, task), f"packing {split}", len(source), transient=True, disable=not sys.stdout.isatty())
        for index, item in enumerate(shown):
            writer.add_item(index, (item.image, item.mask))
            stats.append(item.stats)
            checksums.append(item.checksum)
        writer.done()
    index_file = Path(writer.write_chunks_index()).replace(folder / split / "index.json")  # litdata's own merging adds the time of day
    samples: dict[str, Any] = {"names": np.array(source.names), "checksums": np.array(checksums, np.uint32), **as_arrays(stats)}
    np.savez_compressed(folder / split / SAMPLES, **samples)
    chunks = json.loads(index_file.read_text(encoding="utf-8"))["chunks"]
    return [Shard(f"{split}/{chunk['filename']}", chunk["chunk_bytes"], chunk["chunk_size"]) for chunk in chunks]


def _items(source: Source, task: TaskConfig) -> Iterator[Item]:
    """Samples, encoded in threads; never more of them in memory than are encoded at once."""

    def item(index: int) -> Item:
        image, mask = source.read(index)
        pixels = image[..., 0] if image.shape[2] == 1 else image
        return Item(_as_saved(source, index, pixels) or encode(pixels), encode(mask), measure(image, mask, task))

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(source), AT_ONCE):
            yield from pool.map(item, range(start, min(start + AT_ONCE, len(source))))


def _as_saved(source: Source, index: int, pixels: Array) -> bytes | None:
    """The bytes of an image's file, where they decode to these very pixels: a photograph takes four times as many as PNG."""
    original = getattr(source, "original", None)
    content: bytes = b"" if original is None else original(index).read_bytes()
    if not content.startswith(AS_SAVED):
        return None
    decoded = decode(content)
    return content if decoded.dtype == pixels.dtype and np.array_equal(decoded, pixels) else None


def _digest(folder: Path) -> str:
    """Of all files, by their names."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.*")):
        found.update(str(path.relative_to(folder).as_posix()).encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:32]


def _writer_class() -> Any:
    try:
        from litdata.streaming.writer import BinaryWriter
    except ModuleNotFoundError:
        raise UserError(f"packs are written by litdata, which is not installed: {INSTALL}") from None
    return BinaryWriter


def main(arguments: list[str]) -> None:
    """What `python -m segfocal.pack` does."""
    command(lambda words: "\n".join(run(words)), arguments, __doc__)


def run(overrides: list[str]) -> list[str]:
    """Pack what the overrides say; returns what was written, a line a split.

    Raises:
        UserError: with a line for each mistake.
    """
    refuse_flags(overrides, "segfocal.pack")
    ((_, config),) = parse_sweep(TrainConfig, "train", overrides, 1)
    if not any(word.startswith("out=") for word in overrides):
        raise UserError("out is not said: the folder to write, as in out=/path/to/pack")
    if "://" in config.out:
        raise UserError(f"out={config.out}: a pack is written to a folder; copy it to an object store by the store's own tool")
    out = Path(config.out)
    found = pack(config, out)
    lines = [
        f"{split}: {sum(shard.samples for shard in shards)} samples, {sum(shard.bytes for shard in shards) / 1e6:.1f} MB, shards: {len(shards)}"
        for split, shards in found.splits.items()
    ]
    return [*lines, f"data=streaming data.root={shown_path(out)}"]


if __name__ == "__main__":
    main(sys.argv[1:])
