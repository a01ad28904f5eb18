"""The classes of the generated data (`data=synthetic`, drawn in `segfocal.data.synthetic`), known before torch is imported.

| mode | mask | rare class, share of the pixels | ignored |
| --- | --- | --- | --- |
| binary | HxW, 0 / 1 | crack, 1 to 2 % | nothing |
| multiclass | HxW, ids 0 .. 4 | pore, below 0.5 % | a border 2 px wide between regions |
| multilabel | HxWxC, 0 / 1 | crack, 1 to 2 %; it may cross a stain or a lane | nothing |
"""

from __future__ import annotations

from segfocal.config.task import Mode

SYNTHETIC_CLASSES: dict[Mode, list[str]] = {
    "binary": ["crack"],
    "multiclass": ["background", "panel", "weld", "rust", "pore"],
    "multilabel": ["crack", "stain", "lane"],
}
