"""What `python -m segfocal.predict` is configured by."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Positive, Scale
from segfocal.config.inference import InferenceConfig
from segfocal.config.profile import ProfileConfig
from segfocal.rundir import unwritable

Kind = Literal["ids", "colours", "probabilities", "overlays"]


@dataclass(config=STRICT, kw_only=True)
class ReadingConfig:
    """How images are read; null takes what the checkpoint was trained with.

    Args:
        exif: photographs whose EXIF tag asks for a rotation: `apply` rotates the image, so that the mask fits what viewers show;
            `ignore` takes it as stored. `apply` where the training refused them.
        scale: the model sees images at this share of their height and width; what is written has the size of the image.
        max_megapixels: larger images, as stored and at `scale`, are not decoded.
    """

    exif: Literal["apply", "ignore"] | None = None
    scale: Scale | None = None
    max_megapixels: Positive | None = None


@dataclass(config=STRICT, kw_only=True)
class PredictConfig:
    """
    Args:
        ckpt: a checkpoint file, or a run directory (its best).
        input: images, folders of them, patterns such as photos/*.jpg, or a list of these.
        out: the folder to write into.
        write: `ids`: class ids, as masks for training are; `colours`: the same to look at; `probabilities`: of each class; `overlays`:
            the image with the classes' colours on it.
        format: of probabilities: 16-bit PNG, a file a class, or npz.
        decision: `stored` decides by the thresholds, offsets and temperature in the checkpoint, `plain` above 0.5 or for the highest
            score.
        data: how images are read.
    """

    data: ReadingConfig
    inference: InferenceConfig
    profile: ProfileConfig
    ckpt: str | None = None
    input: str | list[str] | None = None
    out: str | None = None
    write: list[Kind] = Field(default_factory=lambda: list[Kind](["ids"]))
    format: Literal["png", "npz"] = "png"
    decision: Literal["stored", "plain"] = "stored"

    def __post_init__(self) -> None:
        said = {
            "ckpt": "which checkpoint predicts, as in ckpt=runs/<run> or ckpt=best.ckpt",
            "input": "the images, as in input=photos, input=photos/*.jpg or 'input=[a.png,b.png]'",
            "out": "the folder to write into, as in out=predictions",
        }
        problems = [f"{key} is not said: {how}" for key, how in said.items() if not getattr(self, key)]
        if not self.write or len(set(self.write)) != len(self.write):
            problems.append(f"write={self.write}: one or more of ids, colours, probabilities, overlays, each once")
        if self.format == "npz" and "probabilities" not in self.write:
            problems.append("format=npz: is about probabilities, which are not written: 'write=[ids,probabilities]'")
        if self.out:
            problems += unwritable(self.out)
        if problems:
            raise ValueError("\n".join(problems))

    @property
    def inputs(self) -> list[str]:
        """One or more."""
        return [self.input] if isinstance(self.input, str) else list(self.input or [])
