"""`data=streaming`: the samples of a pack, read from its shards in any order."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from segfocal.config.data import DATA
from segfocal.config.streaming import StreamingConfig, is_url
from segfocal.config.task import TaskConfig
from segfocal.data.cache import cache_dir, from_arrays
from segfocal.data.measure import SampleStats
from segfocal.data.packed import DESCRIPTION, SAMPLES, Description, Shard, decode
from segfocal.data.shards import Copies, Files, FolderFiles, download
from segfocal.data.source import Array, Sources
from segfocal.errors import UserError


class PackSource:
    """The samples of a split.

    A shard is litdata's: the number of its samples and where each starts and the last ends, as uint32; of each sample the lengths
    of image and mask as uint32, then the two.

    Args:
        files: of the pack.
        split: which one.
        pack: its description.
    """

    def __init__(self, files: Files, split: str, pack: Description) -> None:
        self.files, self.split, self.digest, self.shards = files, split, pack.digest, pack.splits[split]
        self.settings = f"streaming {pack.digest}"
        name = f"{split}/{SAMPLES}"
        try:
            with files.open(name) as file, np.load(file, allow_pickle=False) as arrays:
                self.names: list[str] = arrays["names"].tolist()
                self.checksums: Array = arrays["checksums"]
                self.stats = from_arrays(dict(arrays))
        except UserError:
            raise
        except Exception as error:  # whatever NumPy and zipfile meet
            raise UserError(f"{files.directory / name}: damaged ({error}): {files.mend}") from None
        self.blocks = [shard.samples for shard in self.shards]
        """Samples in each shard, for the order of training."""
        self.starts: Array = np.cumsum([0, *self.blocks])
        self.offsets: dict[int, Array] = {}

    def __len__(self) -> int:
        return len(self.names)

    def size(self, index: int) -> tuple[int, int]:
        return self.stats[index].size

    def identity(self, index: int) -> str:
        return f"{self.digest} {self.split} {index}"

    def read(self, index: int) -> tuple[Array, Array]:
        number = int(np.searchsorted(self.starts, index, "right")) - 1
        shard, place = self.shards[number], index - int(self.starts[number])
        with self.files.open(shard.file) as file:
            if number not in self.offsets:
                self.offsets[number] = self._header(file, shard)
            start, end = self.offsets[number][place : place + 2].tolist()
            file.seek(start)
            stored = file.read(end - start)
        if zlib.crc32(stored) != self.checksums[index]:
            raise UserError(f"{self.files.directory / shard.file}: {self.names[index]} is damaged: {self.files.mend}")
        half = 8 + int.from_bytes(stored[:4], "little")
        image, mask = decode(stored[8:half]), decode(stored[half:])
        return image[..., None] if image.ndim == 2 else image, mask

    def known(self, index: int) -> SampleStats:
        return self.stats[index]

    def _header(self, file: BinaryIO, shard: Shard) -> Array:
        length = file.seek(0, 2)
        if length != shard.bytes:
            raise UserError(f"{self.files.directory / shard.file}: {length} bytes, where it had {shard.bytes}: {self.files.mend}")
        file.seek(4)
        return np.frombuffer(file.read(4 * (shard.samples + 1)), "<u4")


@DATA.builder(StreamingConfig)
def streaming_sources(config: StreamingConfig, task: TaskConfig, channels: int, seed: int) -> Sources:
    """The splits of a pack.

    Raises:
        UserError: no pack, one of another version or another task, or a damaged one.
    """
    assert config.root is not None  # checked with the configuration
    where = f"data.root={config.root}"
    pack = _description(config.root)
    pack.check(task, channels, where)
    files: Files = FolderFiles(Path(config.root))
    if is_url(config.root):
        room = Path(config.shards_dir) if config.shards_dir else cache_dir() / "shards"
        files = Copies(config.root, room / pack.digest, room, None if config.shards_gb is None else int(config.shards_gb * 1e9))
    return Sources({split: PackSource(files, split, pack) for split in pack.splits}, reading={"exif": pack.exif, "scale": pack.scale})


def _description(root: str) -> Description:
    """What a pack says of itself; never a copy from an earlier run, for the pack may be another."""
    where = f"{root.rstrip('/')}/{DESCRIPTION}"
    if is_url(root):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / DESCRIPTION
            download(root.rstrip("/"), DESCRIPTION, copy)
            return Description.loads(copy.read_bytes(), where)
    try:
        return Description.loads(Path(root, DESCRIPTION).read_bytes(), where)
    except OSError as error:
        raise UserError(
            f"data.root={root}: no pack: {DESCRIPTION}: {error.strerror} (seen from {Path.cwd()}); python -m segfocal.pack writes one"
        ) from None
