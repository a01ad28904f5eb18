"""What libraries say that nobody here can act on."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings

from segfocal.wholefile import refusal


def quieten() -> None:
    """Leave out what libraries say that nobody here can act on; each with its reason."""
    for name in ("lightning.pytorch", "lightning.fabric"):  # which devices there are and are not: said in one line of ours
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that there is no CUDA where it is not used
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each of its five tries; what comes of them is said in one line
    for message in (
        ".*does not have many workers.*",  # their number is the profile's
        ".*Checkpoint directory .* exists and is not empty.*",  # the run directory is ours
        ".*Experiment logs directory .* exists.*",  # likewise
        ".*sync_dist=True.*",  # figures are the same in all processes already
        ".*LeafSpec.*",  # deprecated in torch, used by Lightning
        ".*callbacks used to create the checkpoint.*",  # an average or early stopping that a command leaves out is not wanted
        ".*lr_scheduler.step.*",  # Lightning's order under mixed precision is right
    ):
        warnings.filterwarnings("ignore", message)
    threading.excepthook = _unless_told
    logging.raiseExceptions = False  # a log that cannot be written to, as on a full disk, would say so with a traceback for each line
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard's writer, where TensorFlow happens to be installed


def _unless_told(thread: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread, where the disk is full: its error comes to the main thread, which says so."""
    if thread.exc_value is None or refusal(thread.exc_value) is None:
        threading.__excepthook__(thread)


def talk_on_stderr() -> None:
    """Leave standard output to an answer that another program reads."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
