"""Where a sweep lies."""

from __future__ import annotations

import sys
from pathlib import Path

from segfocal.config.commandline import parted
from segfocal.rundir import new_dir
from segfocal.sweeps.record import command_of, find


def sweep_dir(out: str, suffix: str, chosen: str | None) -> str:
    """The directory of the sweep that this process's command line says: as chosen, or the one it has begun, or a new one.

    Hydra asks for it as `${sweep_dir:...}`.
    """
    if chosen:
        return chosen
    begun = find(Path(out), Path(sys.argv[0]).stem, command_of(parted(sys.argv[1:])[1]))
    return str(begun) if begun else new_dir(out, suffix)
