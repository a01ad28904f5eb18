"""Look at a data set before training on it: what there is, what is wrong with it, what suits it.

    python -m segfocal.analyze data=folder data.root=/path/to/data 'task.classes=[crack]'
    python -m segfocal.analyze experiment=camvid data.root=/path/to/camvid augment=strong --json

Overrides are those of train.py. Prints numbered steps with a tick, an exclamation mark for what should be looked at, or a cross for
what keeps the data from being used, with the override that mends it; all faults at once. Writes analysis.html into `out`, or where
that is not given into `runs/analysis`: class shares, sizes, pictures, crops as the model sees them.

--json prints everything as JSON instead. The exit code is 2 where there are faults.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from segfocal.cli import refuse_flags
from segfocal.config.parse import parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.errors import MISTAKE, UserError, paths_told
from segfocal.rundir import shown_path


def main(arguments: list[str]) -> None:
    """What `python -m segfocal.analyze` does."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    as_json = "--json" in arguments
    try:
        with paths_told():
            usable = run([word for word in arguments if word != "--json"], as_json)
    except UserError as error:
        print(json.dumps({"usable": False, "error": str(error)}) if as_json else error, file=sys.stdout if as_json else sys.stderr)
        usable = False
    if not usable:
        sys.exit(MISTAKE)


def run(overrides: list[str], as_json: bool = False) -> bool:
    """Analyse what the overrides name; returns whether it can be trained on.

    Raises:
        UserError: with a line for each mistake of the overrides, and for data that cannot even be listed.
    """
    refuse_flags(overrides, "segfocal.analyze")
    ((_, config),) = parse_sweep(TrainConfig, "train", overrides, 1)
    from segfocal.data.analysis import analyse  # torch comes with it: not before the configuration is right
    from segfocal.data.datamodule import SegmentationData
    from segfocal.data.stats import SplitStats
    from segfocal.recipe import settled
    from segfocal.report import analysis as report

    logging.getLogger("segfocal").setLevel(logging.WARNING)
    data = SegmentationData(
        config.data, config.augment, config.task, config.model.in_channels, workers=0, seed=config.seed, sampling=config.sampling
    )

    def settle(train: SplitStats) -> list[str]:
        chosen, lines = settled(config, train, 1)
        data.settle(chosen.data, chosen.augment, chosen.sampling)
        return lines

    found = analyse(data, settle)
    if as_json:
        print(json.dumps(report.as_json(found, data), indent=1))
        return not found.faults
    print("\n".join(report.lines(found)))
    given = any(word.lstrip("+").startswith("out=") for word in overrides)
    directory = Path(config.out) if given else Path(config.out) / "analysis"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "analysis.html"
    path.write_text(report.page(found, data), encoding="utf-8", errors="replace")  # names of files need not be UTF-8
    print(f"\n{shown_path(path)}")
    return not found.faults


if __name__ == "__main__":
    main(sys.argv[1:])
