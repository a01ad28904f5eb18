"""What each process of a run has to do: enough of everything, or the run is refused."""

from __future__ import annotations

from segfocal.config.run import TrainConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.errors import UserError
from segfocal.parallel.place import Place
from segfocal.recipe import batch_size


def check_share(split: str, images: int, place: Place) -> None:
    """Raise UserError where a split has too few images to evaluate one in each process."""
    if images < place.world:
        raise UserError(
            f"split={split} has {images} image{'s' * (images != 1)} for {place.world} processes: fewer devices, or more images in it"
        )


def check_shares(data: SegmentationData, config: TrainConfig, place: Place) -> str:
    """See that each process has a batch to train on and an image to evaluate.

    Returns:
        What a step of the optimiser sees, for the log.

    Raises:
        UserError: there is less to do than there are processes.
    """
    images = len(data.sources["train"])
    size = batch_size(config, images, place.world)
    batches = max(1, images // size)
    if batches < place.world:
        raise UserError(
            f"data.batch_size={size}, which is of each device: {images} training images are too few for a batch on each of {place.world}: "
            f"data.batch_size={max(1, images // place.world)}, or fewer trainer.devices"
        )
    for split in ("val", "test") if config.trainer.test else ("val",):
        if split in data.sources:
            check_share(split, len(data.sources[split]), place)
    rest = batches % place.world
    of = f"{place.world} processes" + (f" on {place.machines} machines" if place.machines > 1 else "")
    accumulated = f" x {config.trainer.accumulate} accumulated" if config.trainer.accumulate > 1 else ""
    seen = place.world * size * config.trainer.accumulate
    left = f"; {rest} of {batches} batches are left out of each epoch, others each time" if rest else ""
    return f"{of}, strategy={config.strategy.name}: a step sees {place.world} x {size} images{accumulated}, {seen} in all{left}"
