"""`data=streaming`: a pack of shards, in a folder or behind a URL."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Positive
from segfocal.config.data import DATA, DataConfig
from segfocal.config.task import TaskConfig

SCHEMES = ("s3://", "gs://", "local:")  # `local:/path` is a folder whose files are copied as from the others


def is_url(root: str) -> bool:
    """Whether shards are copied from there before they are read."""
    return root.startswith(SCHEMES)


@DATA.config("streaming")
@dataclass(config=STRICT, kw_only=True)
class StreamingConfig(DataConfig):
    """What `python -m segfocal.pack` wrote.

    Args:
        root: the pack: a folder, or a URL as s3://bucket/pack or gs://bucket/pack.
        shards_dir: where shards of a URL are kept, also for the next run; null takes `segfocal/shards` in the user's cache folder.
        shards_gb: the most that they may take there, in gigabytes; those not used for longest go first. null takes half of what is free.
    """

    name: Literal["streaming"] = "streaming"
    root: str | None = None
    shards_dir: str | None = None
    shards_gb: Positive | None = None

    def problems(self, task: TaskConfig) -> list[str]:
        if not self.root:
            return ["data.root is not said: where the pack is, as in data.root=/path/to/pack or data.root=s3://bucket/pack"]
        if "://" in self.root and not is_url(self.root):
            return [f"data.root={self.root}: a pack is read from a folder or from {', '.join(SCHEMES[:-1])}"]
        return []
