"""A few samples in the place of a split, as `data.limit` wants them."""

from __future__ import annotations

from collections import Counter

from segfocal.config.task import TaskConfig
from segfocal.data.measure import SampleStats, measure
from segfocal.data.source import Array, Source
from segfocal.errors import UserError

LOOKED_AT = 200  # samples, for a class that the few do not show


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
    places = _spread(len(source), limit)
    if limit >= min(len(source), LOOKED_AT):
        return Few(source, places)
    chosen = {place: _classes(source, place, task) for place in places}
    shown = Counter(label for labels in chosen.values() for label in labels)
    for place in _spread(len(source), LOOKED_AT):
        if len(+shown) == task.num_classes:
            break
        labels = set() if place in chosen else _classes(source, place, task)
        spared = next((other for other in sorted(chosen, reverse=True) if all(shown[label] > 1 for label in chosen[other])), None)
        if labels <= (+shown).keys() or spared is None:
            continue
        shown.subtract(chosen.pop(spared))
        shown.update(labels)
        chosen[place] = labels
    return Few(source, sorted(chosen))


def _spread(length: int, count: int) -> list[int]:
    count = min(length, count)
    return [number * length // count for number in range(count)]


def _classes(source: Source, place: int, task: TaskConfig) -> set[int]:
    """Those that a sample shows; none of one that cannot be read, which the check of the data is going to name."""
    try:
        stats = source.known(place) or measure(*source.read(place), task)
    except UserError:
        return set()
    return {label for label, pixels in enumerate(stats.pixels) if pixels}
