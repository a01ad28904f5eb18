"""Pages that are one file and need nothing else: style, scripts, Plotly and data are in them. Without torch."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs

HERE = Path(__file__).parent
SHARED = ("page.js", "plots.js")


def rendered(template: str, scripts: Sequence[str], data: dict[str, Any], **shown: Any) -> str:
    """HTML in one file: without a network, in the light and in the dark, on paper.

    Args:
        template: of this package; it extends base.html.j2.
        scripts: of this package, after those that all pages share.
        data: that the scripts read, as `report`.
        shown: what the template names.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=select_autoescape(["j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        style=_own("report.css"), scripts=[_own(name) for name in (*SHARED, *scripts)], plotly=_plotly(), data=data, **shown
    )


@cache
def _plotly() -> str:
    """Packed: it is most of the page."""
    return base64.b64encode(zlib.compress(get_plotlyjs().encode())).decode()


def _own(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))  # a file of this package
