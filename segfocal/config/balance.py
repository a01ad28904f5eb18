"""Class weights from the counts of the training data. No torch here."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Literal

from segfocal.config.task import Mode

MOST = 100.0  # a few stray pixels of a class would weigh more than all else

FromData = Literal["auto", "inverse", "sqrt_inverse", "median_frequency", "effective_number"]


@dataclass(frozen=True)
class ClassCounts:
    """What the training split holds of each class.

    Args:
        pixels: labelled with the class.
        valid: labels on the class that are not ignored; in multiclass all valid pixels.
        present: images that show the class.
        pixels_where_present: valid labels in the images that show the class.
        images: of the split.
        whole: these are all pixels of the split; else a class that none of them shows may yet come.
    """

    pixels: list[int]
    valid: list[int]
    present: list[int]
    pixels_where_present: list[int]
    images: int
    whole: bool = True

    def weights(self, how: FromData, beta: float, mode: Mode) -> tuple[list[float], list[float] | None]:
        """Weights of the classes, and where each is decided on by itself, of what is not of the class.

            inverse            n / (C n_c)                     mean over the pixels 1
            sqrt_inverse       sqrt(n / n_c), likewise scaled to a mean of 1 over the pixels
            median_frequency   median(f) / f_c                 f_c = pixels of c / valid pixels of the images that show c
            effective_number   (1 - b) / (1 - b^m_c)           m_c images that show c; scaled to a mean of 1 over the classes
            auto               median_frequency where classes exclude each other, sqrt_inverse where each is decided on by itself;
                               at most 100 times the class in the middle, or what is not of the class

        With n valid pixels, of which n_c are of class c. A class without a pixel weighs 0: there is nothing to learn it from; but where
        the counts are those of a part of the split, as much as the rarest class in it. Where every class is decided on by itself, it is
        one class and what is not of it the other.

        Args:
            how: one of the above.
            beta: b, in (0, 1).
            mode: of the task.

        Reference:
            median_frequency: Eigen and Fergus, arXiv 1411.4734, section 6.3. effective_number: Cui et al., arXiv 1901.05555,
            equation 3, with images for samples: with its usual b = .999, counts of pixels would give every class the same weight.
        """
        most = MOST if how == "auto" else math.inf
        if how == "auto":
            how = "median_frequency" if mode == "multiclass" else "sqrt_inverse"
        if mode == "multiclass":
            every = self._weigh(how, beta, self.pixels, max(self.valid, default=0), self.present, self.pixels_where_present)
            return [min(weight, most) for weight in every], None
        pairs = [
            self._weigh(how, beta, [valid - pixels, pixels], valid, [self.images, present], [valid, where])
            for pixels, valid, present, where in zip(self.pixels, self.valid, self.present, self.pixels_where_present, strict=True)
        ]
        bounded = [min(positive, most * negative) if negative else positive for negative, positive in pairs]
        return bounded, [negative for negative, _ in pairs]

    def _weigh(self, how: FromData, beta: float, pixels: list[int], valid: int, present: list[int], where: list[int]) -> list[float]:
        shown = [index for index, count in enumerate(pixels) if count > 0]
        if how == "effective_number":
            raw = {c: 1 / -math.expm1(present[c] * math.log(beta)) for c in shown}
            scale = len(shown) / math.fsum(raw.values()) if shown else 1.0
        elif how == "median_frequency":
            frequency = {c: pixels[c] / where[c] for c in shown}
            raw = {c: statistics.median(frequency.values()) / frequency[c] for c in shown}
            scale = 1.0
        else:
            power = 1.0 if how == "inverse" else 0.5
            raw = {c: (valid / pixels[c]) ** power for c in shown}
            scale = valid / math.fsum(raw[c] * pixels[c] for c in shown) if shown else 1.0
        unseen = 0.0 if self.whole else max(raw.values(), default=1.0)
        return [scale * raw.get(c, unseen) for c in range(len(pixels))]
