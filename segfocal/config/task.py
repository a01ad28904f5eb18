"""What is to be segmented. Said once: head size, loss mode, metrics and reports follow from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT

Mode = Literal["binary", "multiclass", "multilabel"]
MOST, LONGEST = 1000, 100  # classes, and signs in a name: each class takes 256 KiB of counts, and its name stands in tables and file names


@dataclass(config=STRICT, kw_only=True)
class TaskConfig:
    """
    Args:
        name: `binary` one foreground class against the rest; `multiclass` one class a pixel; `multilabel` any number of classes a pixel.
        classes: names in the order of the mask's ids: binary the foreground class alone, multiclass ids 0, 1, ...; null takes them from
            the data where the data knows them (`data=synthetic`).
        ignore_index: the mask value of pixels that count nowhere: not in the loss, not in the metrics. Also what padding is filled with.
    """

    name: Mode = "binary"
    classes: list[str] | None = None
    ignore_index: Annotated[int, Field(strict=True, ge=0, le=255)] = 255

    def __post_init__(self) -> None:
        if self.classes is None:
            return
        if len(set(self.classes)) != len(self.classes) or not all(self.classes):
            raise ValueError(f"task.classes={self.classes}: names must be different and not empty")
        if len(self.classes) > MOST or any(len(name) > LONGEST or not name.isprintable() for name in self.classes):
            raise ValueError(f"task.classes: at most {MOST} names of at most {LONGEST} signs that can be printed")
        if self.name == "binary" and len(self.classes) != 1:
            raise ValueError(
                f"task=binary has one class, the foreground; task.classes names {len(self.classes)}: "
                "choose task=multiclass or task=multilabel, or name one"
            )
        if self.name == "multiclass" and len(self.classes) < 2:
            raise ValueError(
                "task=multiclass needs two classes or more, the background included: name them in task.classes, or choose task=binary"
            )
        if self.name == "multilabel" and not self.classes:
            raise ValueError("task=multilabel needs a class or more in task.classes")
        if self.ignore_index < self.num_ids:
            raise ValueError(f"task.ignore_index={self.ignore_index} is the id of a class: choose a value from {self.num_ids} to 255")

    @property
    def class_names(self) -> list[str]:
        """The names; raises where nobody has said them."""
        if self.classes is None:
            raise ValueError("the classes are not known yet")
        return self.classes

    @property
    def num_classes(self) -> int:
        """Channels of the head: 1 for binary."""
        return len(self.class_names)

    @property
    def num_ids(self) -> int:
        """How many label values a mask may hold: 0 .. num_ids - 1, and ignore_index."""
        return len(self.class_names) if self.name == "multiclass" else 2
