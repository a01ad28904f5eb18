"""Sources of images and masks, and orders of training; importing it registers the built-in ones."""

from segfocal.data import folder, sampling, synthetic_source

__all__ = ["folder", "sampling", "synthetic_source"]
