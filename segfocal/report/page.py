"""What an evaluation found, as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segfocal.report import summary, tables
from segfocal.report.charts import chart_data
from segfocal.report.evaluated import Evaluated, Shown
from segfocal.report.html import rendered
from segfocal.report.pictures import gallery
from segfocal.report.table import NARROW

if TYPE_CHECKING:
    from segfocal.metrics.bootstrap import Difference


def page(evaluated: list[Evaluated], shown: list[Shown], differences: Sequence[Mapping[str, Difference]] = ()) -> str:
    """HTML in one file: without a network, in the light and in the dark, on paper.

    Args:
        evaluated: one or more checkpoints on the same split.
        shown: images with what the first of them predicts; without any there is no gallery.
        differences: what each checkpoint after the first has more than the first, by figure.
    """
    first = evaluated[0]
    drawn, data = gallery(shown, first.task), chart_data(evaluated)
    return rendered(
        "report.html.j2",
        ["charts.js", "gallery.js"],
        data=data | {"shown": [{"name": item.name, "width": item.width, "height": item.height, "labels": item.labels} for item in drawn]},
        drawn=drawn,
        evaluated=evaluated,
        task=first.task,
        images=len(first.images.names),
        narrow=NARROW,
        pixels=int(first.images.valid.sum()),
        summary=summary,
        tables=tables,
        compared=tables.compared(evaluated, differences),
        trained=any(item["training"] for item in data["checkpoints"]),
    )
