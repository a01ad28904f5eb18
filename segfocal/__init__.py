"""Dense segmentation of rare pixels: a Hydra-configured Lightning application around the focal loss."""

__version__ = "0.1.0"
