"""Apply a checkpoint to images of your own.

    python -m segfocal.predict ckpt=runs/<run> input=photos out=predictions
    python -m segfocal.predict ckpt=best.ckpt 'input=[a.jpg,more/*.png]' out=predictions 'write=[ids,overlays]'
    python -m segfocal.predict ckpt=runs/<run> input=photos out=predictions 'write=[probabilities]' format=npz inference=tta

`input` takes files, folders and patterns (`**` for any number of folders); `out` keeps the names and folders. What is written:

    ids             class ids, 8-bit PNG: 0 and 1, or the class's number; for task=multilabel a folder a class
    colours         the same in colours
    probabilities   of each class, 16-bit PNG in a folder a class, or one npz (format=npz)
    overlays        the image with the colours on it

and shares.csv, the pixels of each class in each image. Images larger than inference.tile are cut into tiles that overlap. The
thresholds that were fitted when the checkpoint was trained decide; decision=plain takes 0.5 and the highest score.

The same command goes on where it was cut off. Images that cannot be read are named and left out: the exit code is then 1. More in
docs/predict.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from segfocal.cli import refuse_flags
from segfocal.config.parse import parse_sweep
from segfocal.config.predict import PredictConfig
from segfocal.errors import INTERRUPTED, MISTAKE, UserError, paths_told
from segfocal.rundir import shown_path

SKIPPED = 1  # exit code where some images could not be read


def main(arguments: list[str]) -> None:
    """What `python -m segfocal.predict` does."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    try:
        with paths_told():
            skipped = run(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if skipped:
        sys.exit(SKIPPED)


def run(overrides: list[str]) -> int:
    """Predict what the overrides say; returns how many images could not be read.

    Raises:
        UserError: with a line for each mistake.
    """
    refuse_flags(overrides, "segfocal.predict")
    for word in overrides:
        key, _, value = word.partition("=")
        if key == "input" and "," in value and value[0] not in "['\"":
            raise UserError(f"{word}: several are a list, quoted for the shell: 'input=[{value}]'")
    ((_, config),) = parse_sweep(PredictConfig, "predict", overrides, 1)
    from segfocal.prediction.run import predict  # torch comes with it: not before the configuration is right

    done = predict(config)
    print(done.summary)
    print(shown_path(Path(config.out or "")))
    return done.skipped


if __name__ == "__main__":
    main(sys.argv[1:])
