"""Classes of public data sets whose layouts have an option of their own."""

from __future__ import annotations

from segfocal.config.labels import Label

# labelIds of the classes that are evaluated; all others are void (Cordts et al., arXiv 1604.01685, and the authors' scripts).
_CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19, "traffic sign": 20,
    "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31,
    "motorcycle": 32, "bicycle": 33,
}  # fmt: skip

CITYSCAPES_CLASSES = list(_CITYSCAPES)
CITYSCAPES_LABELS: dict[int | str, Label] = {**{value: label for label, value in enumerate(_CITYSCAPES.values())}, "else": "ignore"}

# In the order of the palette's indices (Everingham et al., The PASCAL Visual Object Classes Challenge).
VOC_CLASSES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
