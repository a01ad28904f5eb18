"""The class names of the generated data (`data=synthetic`), known before anything is drawn."""

from __future__ import annotations

from segfocal.config.task import Mode

SYNTHETIC_CLASSES: dict[Mode, list[str]] = {
    "binary": ["crack"],
    "multiclass": ["background", "panel", "weld", "rust", "pore"],
    "multilabel": ["crack", "stain", "lane"],
}
