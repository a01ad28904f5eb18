"""A few samples in the place of a split, as `data.limit` wants them."""

from __future__ import annotations

from collections import Counter

from segfocal.config.task import TaskConfig
from segfocal.data.measure import SampleStats
from segfocal.data.scan import measured, spread
from segfocal.data.source import Array, Source

LOOKED_AT = 200  # samples, for a class that the few do not show
AT_ONCE = 16  # of them, spread over the split as well: where every class is found the rest need not be read


class Few:
    """Some samples of a source.

    Args:
        source: of the split.
        places: which of its samples.
    """

    def __init__(self, source: Source, places: list[int]) -> None:
        self.source, self.places = source, places
        self.names = [source.names[place] for place in places]
        self.settings = source.settings

    def __len__(self) -> int:
        return len(self.places)

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(self.places[index])

    def identity(self, index: int) -> str:
        return self.source.identity(self.places[index])

    def read(self, index: int) -> tuple[Array, Array]:
        return self.source.read(self.places[index])

    def known(self, index: int) -> SampleStats | None:
        return self.source.known(self.places[index])


def few(source: Source, limit: int, task: TaskConfig) -> Few:
    """So many samples, spread evenly over the split, in its order.

    Where they show nothing of a class, the last that can be spared give way to others that do: files are often sorted by what is in them, and
    what is rare is in few.
    """
    places, wider = spread(len(source), limit), spread(len(source), LOOKED_AT)
    if limit >= len(wider):
        return Few(source, places)
    chosen = _classes(source, places, task)
    shown = Counter(label for labels in chosen.values() for label in labels)
    parts = -(-len(wider) // AT_ONCE)
    for part in range(parts):
        others = _classes(source, wider[part::parts], task) if len(+shown) < task.num_classes else {}
        for place, labels in others.items():
            spared = next(
                (old for old in sorted(chosen, reverse=True) if all(shown[label] > 1 or label in labels for label in chosen[old])), None
            )
            if spared is not None and not labels <= (+shown).keys():
                shown.subtract(chosen.pop(spared))
                shown.update(labels)
                chosen[place] = labels
    return Few(source, sorted(chosen))


def _classes(source: Source, places: list[int], task: TaskConfig) -> dict[int, set[int]]:
    """Those that each sample shows; none of one that cannot be read, which the check of the data is going to name."""
    found = measured([(source, place) for place in places], task)
    return {
        place: {label for label, pixels in enumerate(stats.pixels) if pixels} if isinstance(stats, SampleStats) else set()
        for place, stats in zip(places, found, strict=True)
    }
