"""`evaluate`: checkpoints on a split; everything that is needed comes out of the checkpoint.

`data` finds what to evaluate on, `judge` counts one checkpoint over it, `answer` writes what came out.
"""

from segfocal.evaluation.run import evaluate, evaluate_trained

__all__ = ["evaluate", "evaluate_trained"]
