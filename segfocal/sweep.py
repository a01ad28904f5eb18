"""Look at a sweep: what is best, how sure that is, what failed.

    python -m segfocal.sweep runs/<sweep>

Prints what the sweep itself prints at its end, also while it runs or after it was interrupted: a table, best first; where seeds are
varied, with mean, standard deviation and a paired comparison to the best over seeds; failures with their last line; the commands that
reproduce the best job and evaluate it. Writes into its directory

    sweep.csv       a row for each job
    importance.csv  which parameters matter, where twenty jobs or more have come to something
    sweep.html      a page that needs no network: parameters against the objective, IoU of the classes, links to the runs

The exit code is 2 where there is no such sweep, or no job of it has finished. More in docs/sweeps.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from segfocal.errors import MISTAKE, UserError, paths_told
from segfocal.sweeps.answer import write_answer
from segfocal.sweeps.outcome import settle
from segfocal.sweeps.record import FILE, Record, read


def main(arguments: list[str]) -> None:
    """What `python -m segfocal.sweep` does."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    try:
        with paths_told():
            write_answer(record_of(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)


def record_of(arguments: list[str]) -> Record:
    """The sweep that a command line names.

    Raises:
        UserError: it names none, or one without an answer.
    """
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise UserError("python -m segfocal.sweep <directory>: one directory of a sweep; see --help")
    directory = Path(arguments[0])
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory")
    record = read(directory)
    if record is None:
        raise UserError(f"{directory}: not the directory of a sweep, {FILE} is not in it")
    settle(record)
    if all(job.state != "finished" for job in record.jobs):
        failed = next((f"; job {job.number} {job.state}: {job.failure}" for job in record.jobs if job.failure), "")
        raise UserError(f"{directory}: none of its {len(record.jobs)} jobs has finished{failed}")
    return record


if __name__ == "__main__":
    main(sys.argv[1:])
