"""Sources of images and masks, and orders of training; importing it registers the built-in ones."""

from segfocal.data import coco, folder, manifest, public_layouts, sampling, streaming, synthetic_source

__all__ = ["coco", "folder", "manifest", "public_layouts", "sampling", "streaming", "synthetic_source"]
