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
from segfocal.config import launchers
from segfocal.config.parse import mistakes_of_jobs, parse
from segfocal.config.run import TrainConfig
from segfocal.config.sweep import SweepConfig
from segfocal.errors import MISTAKE, UserError
from segfocal.sweeps.elsewhere import Elsewhere
from segfocal.sweeps.record import Record, of_sweep
from segfocal.sweeps.run import Queue
from segfocal.sweeps.space import Space, read_space


class SearchSweeper(BasicSweeper):
    """Every combination; a search where there is a sampler."""

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        try:
            config = parse(SweepConfig, self.config.sweep)
            if not isinstance(self.launcher, ProcessLauncher):
                self.launcher = self._through(self.launcher, config)
            if config.sampler is not None:
                return self._search(config, arguments)
            _refuse_intervals(arguments)
            return self._grid(config, arguments)
        except UserError as error:
            print(error, file=sys.stderr)
            sys.exit(MISTAKE)

    def _through(self, other: Any, config: SweepConfig) -> ProcessLauncher:
        """Our launcher, whose jobs another one takes elsewhere."""
        assert self.hydra_context is not None and self.config is not None
        name = str(self.config.hydra.runtime.choices[launchers.GROUP])
        limits = not (name in launchers.OTHERS and launchers.OTHERS[name].all_at_once)
        most = None if config.sampler is None and limits else config.jobs or 1
        launcher = ProcessLauncher(Elsewhere(other, name, self.hydra_context, self.config, most))
        launcher.setup(hydra_context=self.hydra_context, task_function=lambda composed: None, config=self.config)
        return launcher

    def _search(self, config: SweepConfig, arguments: list[str]) -> None:
        launcher, composed = self.launcher, self.config
        assert composed is not None and isinstance(launcher, ProcessLauncher)
        if importlib.util.find_spec("optuna") is None:
            raise UserError(f"sweep.sampler={config.sampler}: needs Optuna: pip install 'segfocal[optuna]'")
        space = _space(config, arguments)
        self._check(space.corners())
        epochs = int(composed.trainer.max_epochs)

        def queue_of(record: Record, config: SweepConfig) -> Queue:
            from segfocal.sweeps.search import begin  # Optuna comes with it

            return begin(config, space, record, epochs, launcher.key_of)

        record = launcher.run(queue_of, [parameter.key for parameter in space.parameters])
        states = {job.state for job in record.jobs}
        if "finished" not in states or "interrupted" in states:
            sys.exit(1)

    def _grid(self, config: SweepConfig, arguments: list[str]) -> Any:
        """Every combination, of the command line or of the space, or one value changed at a time.

        Not by Hydra's own `sweep`: it composes each job, which has been checked, and which the launcher composes once more.
        """
        if config.space or config.one_at_a_time:
            space = _space(config, arguments)
            lines = space.one_at_a_time() if config.one_at_a_time else space.grid()
            self._check(lines)
        else:
            (lines,) = self.split_arguments(OverridesParser.create().parse_overrides(arguments), None)
        assert self.launcher is not None
        return self.launcher.launch(lines, 0)

    def _check(self, jobs: list[list[str]]) -> None:
        assert self.config is not None
        if problems := mistakes_of_jobs(TrainConfig, str(self.config.hydra.job.config_name), jobs):
            raise UserError("\n".join(problems))


def _space(config: SweepConfig, arguments: list[str]) -> Space:
    return read_space(config.space, [line for line in arguments if not of_sweep(line)])


def _refuse_intervals(arguments: list[str]) -> None:
    problems = [
        f"{item.input_line}: an interval is for a search: sweep.sampler=tpe"
        for item in OverridesParser.create().parse_overrides(arguments)
        if item.is_interval_sweep()
    ]
    if problems:
        raise UserError("\n".join(problems))
