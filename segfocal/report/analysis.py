"""What `segfocal.analyze` found, as lines, as JSON and as a page."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from PIL import Image

from segfocal.data.analysis import Analysis
from segfocal.data.datamodule import SegmentationData
from segfocal.report.grid import augmentation_grid, choose, limits_of, shown
from segfocal.report.overlay import class_colours

EXAMPLES = 8  # pictures in a row of the page
LOWEST = 1e-5  # share of the pixels at which a bar is empty
MOST_KINDS = 12  # bars


def lines(found: Analysis) -> list[str]:
    """For the console: a numbered line a step, and under it what there is to say."""
    result = []
    for number, step in enumerate(found.steps, start=1):
        result.append(f"{'✗' if step.faults else '!' if step.warnings else '✓'} {number}. {step.title}")
        result += [f"     {line}" for line in step.found]
        result += [f"   ! {line}" for line in step.warnings]
        result += [f"   ✗ {fault}" for fault in step.faults]
    if found.suggested:
        result += ["", f"suggested: {' '.join(map(quoted, found.suggested))}"]
    return result


def quoted(override: str) -> str:
    """As a shell takes it."""
    return f"'{override}'" if "[" in override or "{" in override else override


def as_json(found: Analysis, data: SegmentationData) -> dict[str, Any]:
    """Plain data, with all numbers."""
    names = data.task.class_names
    return {
        "where": data.where,
        "usable": not found.faults,
        "steps": [dataclasses.asdict(step) for step in found.steps],
        "splits": {
            split: {
                "images": stats.images,
                "pixels": dict(zip(names, stats.positives.tolist(), strict=True)),
                "share": dict(zip(names, (stats.positives / np.maximum(stats.valid, 1)).tolist(), strict=True)),
                "images_with": dict(zip(names, stats.present.tolist(), strict=True)),
                "mean": stats.mean_std[0],
                "std": stats.mean_std[1],
                "sizes": sorted({f"{width}x{height}" for height, width in stats.sizes}),
            }
            for split, stats in found.stats.items()
        },
        "crops": {name: dict(zip(names, shares, strict=True)) for name, shares in found.crops.items()},
        "suggested": found.suggested,
    }


def page(found: Analysis, data: SegmentationData) -> str:
    """HTML in one file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["j2"]), trim_blocks=True, lstrip_blocks=True
    )
    usable = bool(found.crops)
    return environment.get_template("analysis.html.j2").render(
        where=data.where,
        task=data.task,
        steps=found.steps,
        faults=found.faults,
        suggested=" ".join(map(quoted, found.suggested)),
        splits=list(found.stats),
        crops=list(found.crops),
        classes=_classes(found, data) if found.stats else [],
        histogram=_histogram([size for stats in found.stats.values() for size in stats.sizes]) if found.stats else "",
        galleries=_galleries(data) if usable else [],
    )


def _classes(found: Analysis, data: SegmentationData) -> list[dict[str, Any]]:
    rows = []
    for label, (name, colour) in enumerate(class_colours(data.task)):
        shares = {split: stats.positives[label] / max(1, stats.valid[label]) for split, stats in found.stats.items()}
        share = shares.get("train", 0.0)
        rows.append(
            {
                "name": name,
                "colour": "rgb({}, {}, {})".format(*colour),
                "splits": [(_percent(shares[split]), int(stats.present[label])) for split, stats in found.stats.items()],
                "bar": round(100 * max(0.0, 1 - math.log(max(share, LOWEST)) / math.log(LOWEST)), 1),
                "crops": [f"{values[label]:.0%}" for values in found.crops.values()],
            }
        )
    return rows


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 1e-4 or share == 0 else f"{share:.4%}"


def _histogram(sizes: list[tuple[int, int]]) -> str:
    """Images of each size, or where those are many of each number of megapixels, as a picture."""
    kinds = Counter(sizes)
    if len(kinds) <= MOST_KINDS:
        bars = [(f"{width} x {height}", count) for (height, width), count in sorted(kinds.items())]
    else:
        counts, edges = np.histogram([height * width / 1e6 for height, width in sizes], bins=MOST_KINDS)
        bars = [(f"to {edge:.3g} MP", int(count)) for edge, count in zip(edges[1:], counts, strict=True)]
    step, highest = 1000 / MOST_KINDS, max(count for _, count in bars)
    drawn = "".join(
        f'<rect x="{step * place + 4:.0f}" y="{160 - 130 * count / highest:.0f}" width="{step - 8:.0f}" height="{130 * count / highest:.0f}" '
        f'fill="#4878a8"/><text x="{step * (place + 0.5):.0f}" y="{154 - 130 * count / highest:.0f}" text-anchor="middle">{count}</text>'
        f'<text x="{step * (place + 0.5):.0f}" y="178" text-anchor="middle">{name}</text>'
        for place, (name, count) in enumerate(bars)
    )
    return f'<svg viewBox="0 0 1000 190" width="100%">{drawn}</svg>'


def _galleries(data: SegmentationData) -> list[tuple[str, list[tuple[str, str]]]]:
    """Samples from all over the split, those with the rarest classes, and what augmentation makes of them."""
    source, stats = data.sources["train"], data.measured["train"]
    spread = np.unique(np.linspace(0, len(source) - 1, EXAMPLES).round().astype(int)).tolist()
    rare = choose(stats, data.task, EXAMPLES)
    return [
        ("Training samples", [(source.names[index], _sample(data, index)) for index in spread]),
        (
            "With the rarest classes",
            [(f"{data.task.class_names[row.label]}: {source.names[row.sample]}", _sample(data, row.sample)) for row in rare],
        ),
        (f"Crops as the model sees them, augment={data.augment.name}", [("", _embedded(augmentation_grid(data)))]),
    ]


def _sample(data: SegmentationData, index: int) -> str:
    image, mask = data.sources["train"].read(index)
    strength = np.full(data.task.num_classes, 0.5)
    return _embedded(shown(image, mask, limits_of(image), data.task, strength))


def _embedded(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
