"""Sources of images and masks; importing it registers the built-in ones."""

from segfocal.data import folder, synthetic_source

__all__ = ["folder", "synthetic_source"]
