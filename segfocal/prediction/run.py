"""From a configuration to files."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import Any

from rich.progress import track

from segfocal.config.predict import PredictConfig
from segfocal.data.faults import BadFileError
from segfocal.errors import UserError
from segfocal.memory import memory_told
from segfocal.prediction.inputs import Item, find
from segfocal.prediction.ledger import RECORD, Ledger
from segfocal.prediction.outputs import Outputs, pixels_of
from segfocal.prediction.predictor import NotFiniteError, Predictor
from segfocal.quiet import quieten


@dataclass
class Done:
    """How many images were predicted, were there before, and were skipped; and for how many of these the model gives no numbers."""

    predicted: int = 0
    before: int = 0
    skipped: int = 0
    not_finite: int = 0

    @property
    def summary(self) -> str:
        parts = [f"{self.predicted} predicted", *([f"{self.before} there before"] if self.before else [])]
        return ", ".join([*parts, *([f"{self.skipped} skipped"] if self.skipped else [])])


@memory_told()
def predict(config: PredictConfig) -> Done:
    """Predict for all images; those that cannot be read are named on stderr.

    Raises:
        UserError: anything that the user can mend; nothing has been written then, or only whole predictions.
    """
    quieten()
    logging.getLogger("segfocal").setLevel(logging.WARNING)
    items = find(config.inputs)
    predictor = Predictor(config)
    outputs = Outputs(config, predictor.task, predictor.shares)
    outputs.check(items)
    about: dict[str, Any] = {
        "checkpoint": str(predictor.path.absolute()),
        "task": predictor.task.name,
        "classes": predictor.task.class_names,
    }
    about["decision"] = predictor.decision.as_dict()
    ledger = Ledger(outputs.out, predictor.settings, about, predictor.task.class_names)
    if not (outputs.out / RECORD).exists() and (there := outputs.taken(items)):
        raise BadFileError(there, "is there, and was not made by this command", "choose another out")
    for item in items:
        if (other := ledger.other(item.name, item.path)) is not None:
            raise BadFileError(item.path, f"has the name of another image that was predicted before, {other}", mend="choose another out")
    done = Done()
    try:
        for item in track(items, "predicting", transient=True, disable=not sys.stdout.isatty()):
            _one(item, config, predictor, outputs, ledger, done)
        if items and done.not_finite == len(items):
            raise UserError(f"ckpt={config.ckpt}: the model gives NaN or infinity for every image: take another checkpoint")
        ledger.finish()
    except OSError as error:
        where = f"{error.filename} " if error.filename else ""
        raise UserError(f"out={config.out}: {where}cannot be written: {error.strerror or error}") from None
    finally:
        ledger.close()
    return done


def _one(item: Item, config: PredictConfig, predictor: Predictor, outputs: Outputs, ledger: Ledger, done: Done) -> None:
    if ledger.has(item.name) and outputs.done(item):
        done.before += 1
        return
    try:
        prediction = predictor(item.path, "probabilities" in config.write)
    except BadFileError as error:
        print(error, file=sys.stderr)
        done.skipped += 1
        done.not_finite += isinstance(error, NotFiniteError)
        return
    ledger.start()
    outputs.write(item, prediction)
    ledger.add(item.name, item.path, (prediction.labels.shape[0], prediction.labels.shape[1]), pixels_of(prediction.labels, predictor.task))
    done.predicted += 1
