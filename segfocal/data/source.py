"""What a split is to the rest of the program: names, sizes, and a way to read a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from segfocal.data.faults import Fault
    from segfocal.data.measure import SampleStats

Array = NDArray[Any]
Point = tuple[int, int]  # row and column of a pixel


class Source(Protocol):
    """Samples of a split, in an order that never changes."""

    names: list[str]
    """A name for each sample, unique in the split."""
    settings: str
    """What samples depend on beside the files: two sources of the same settings read the same file alike."""

    def __len__(self) -> int: ...

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a sample without decoding it."""

    def identity(self, index: int) -> str:
        """A text that changes when the sample does, found without reading it."""

    def read(self, index: int) -> tuple[Array, Array]:
        """Image (H, W, channels) uint8 or float32, and mask uint8: class ids (H, W), or 0/1 (H, W, classes) for multilabel.

        ignore_index stands in the mask as it is.
        """

    def known(self, index: int) -> SampleStats | None:
        """What was measured of a sample when it was stored; None where it has to be read for that."""


class Sources(dict[str, Source]):
    """The splits of a data set by their names.

    Args:
        sources: of each split.
        faults: what is wrong with names, pairs and splits, found without reading a sample.
        drawn: nothing but the seed says which sample is in which split.
        reading: how a pack has read the files that it was made of: `exif` and `scale`.
    """

    def __init__(
        self, sources: dict[str, Source], faults: Sequence[Fault] = (), drawn: bool = False, reading: dict[str, Any] | None = None
    ) -> None:
        super().__init__(sources)
        self.faults, self.drawn, self.reading = list(faults), drawn, reading

    def names(self) -> dict[str, list[str]]:
        """Which sample is in which split."""
        return {split: source.names for split, source in self.items()}
