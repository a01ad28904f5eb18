"""The sweeper that Hydra hands `-m` to, `hydra/sweeper=search`, the default: every combination, or what `sweep.sampler` asks for.

It stands here for the reason that the launcher does; what it does is in `segfocal.sweeps`.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.segfocal_launcher import ProcessLauncher
from segfocal.config.parse import mistakes_of_jobs, parse
from segfocal.config.run import TrainConfig
from segfocal.config.sweep import SweepConfig
from segfocal.errors import MISTAKE, UserError
from segfocal.sweeps.record import Record
from segfocal.sweeps.run import Queue
from segfocal.sweeps.space import read_space


class SearchSweeper(BasicSweeper):
    """Hydra's own sweeper, and a search where there is a sampler."""

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        try:
            config = parse(SweepConfig, self.config.sweep)
            if config.sampler is None:
                _refuse_intervals(arguments)
            else:
                return self._search(config, arguments)
        except UserError as error:
            print(error, file=sys.stderr)
            sys.exit(MISTAKE)
        return super().sweep(arguments)

    def _search(self, config: SweepConfig, arguments: list[str]) -> None:
        launcher, composed = self.launcher, self.config
        assert composed is not None
        if not isinstance(launcher, ProcessLauncher):
            raise UserError("hydra/launcher: a search runs its jobs by hydra/launcher=processes")
        if importlib.util.find_spec("optuna") is None:
            raise UserError(f"sweep.sampler={config.sampler}: needs Optuna: pip install 'segfocal[optuna]'")
        space = read_space(config.space, [line for line in arguments if not line.startswith(("sweep.", "sweep="))])
        if problems := mistakes_of_jobs(TrainConfig, str(composed.hydra.job.config_name), space.corners()):
            raise UserError("\n".join(problems))
        epochs = int(composed.trainer.max_epochs)

        def queue_of(record: Record, config: SweepConfig) -> Queue:
            from segfocal.sweeps.search import begin  # Optuna comes with it

            return begin(config, space, record, epochs, launcher.key_of)

        record = launcher.run(queue_of, [parameter.key for parameter in space.parameters])
        states = {job.state for job in record.jobs}
        if "finished" not in states or "interrupted" in states:
            sys.exit(1)


def _refuse_intervals(arguments: list[str]) -> None:
    problems = [
        f"{item.input_line}: an interval is for a search: sweep.sampler=tpe"
        for item in OverridesParser.create().parse_overrides(arguments)
        if item.is_interval_sweep()
    ]
    if problems:
        raise UserError("\n".join(problems))
