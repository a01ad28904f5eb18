"""What an evaluation found, as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from segfocal.report import summary, tables
from segfocal.report.charts import chart_data
from segfocal.report.evaluated import Evaluated, Shown
from segfocal.report.pictures import gallery

if TYPE_CHECKING:
    from segfocal.metrics.bootstrap import Difference

HERE = Path(__file__).parent


def page(evaluated: list[Evaluated], shown: list[Shown], differences: Sequence[Mapping[str, Difference]] = ()) -> str:
    """HTML in one file: without a network, in the light and in the dark, on paper.

    Args:
        evaluated: one or more checkpoints on the same split.
        shown: images with what the first of them predicts; without any there is no gallery.
        differences: what each checkpoint after the first has more than the first, by figure.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=select_autoescape(["j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    first = evaluated[0]
    drawn, data = gallery(shown, first.task), chart_data(evaluated)
    return environment.get_template("report.html.j2").render(
        style=_own("report.css"),
        scripts=[_own(name) for name in ("page.js", "charts.js", "gallery.js")],
        plotly=_plotly(),
        data=data | {"shown": [{"name": item.name, "width": item.width, "height": item.height, "labels": item.labels} for item in drawn]},
        drawn=drawn,
        evaluated=evaluated,
        task=first.task,
        images=len(first.images.names),
        pixels=int(first.images.valid.sum()),
        summary=summary,
        tables=tables,
        compared=tables.compared(evaluated, differences),
        trained=any(item["training"] for item in data["checkpoints"]),
    )


@cache
def _plotly() -> str:
    """Packed: it is most of the page."""
    return base64.b64encode(zlib.compress(get_plotlyjs().encode(), 9)).decode()


def _own(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))  # a file of this package
