"""The study of a search: made, or gone on with where it asks for the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from segfocal.config.sweep import SweepConfig
from segfocal.errors import UserError, first_line
from segfocal.nearest import did_you_mean
from segfocal.sweeps.compare import MINIMISED
from segfocal.sweeps.record import differs
from segfocal.sweeps.samplers import Seeded, build_pruner
from segfocal.sweeps.space import Space
from segfocal.sweeps.storage import JOURNAL, located, open_storage, printable

GIVEN = "given"  # the attribute of a trial that was brought from another study
OURS = "segfocal"  # the attribute of a study that says what it asks
BASE = "configuration"  # and the one that says of what
# Where machines that work on one study may differ.
MACHINES = ("profile", "strategy", "logger", "trainer.devices", "data.root", "data.file", "data.num_workers", "data.cache", "data.cache_gb")


def open_study(config: SweepConfig, space: Space, objectives: list[str], epochs: int, directory: Path, base: dict[str, str]) -> Study:
    """The study that a configuration says.

    Args:
        config: of the sweep.
        space: that is searched.
        objectives: figures of the validation.
        epochs: that a trial trains for.
        directory: of the sweep.
        base: its configuration, as a record has it.

    Raises:
        UserError: the storage cannot be opened, or the study there asks for something else, or of another configuration.
    """
    place = located(config.storage, directory)
    storage = open_storage(place)
    asked = {"objectives": objectives, "space": space.plain()}
    directions = [StudyDirection.MINIMIZE if objective == MINIMISED else StudyDirection.MAXIMIZE for objective in objectives]
    assert config.sampler is not None
    sampler = Seeded(config.sampler, config.seed)
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=config.study,
            directions=directions,
            sampler=sampler,
            pruner=build_pruner(config.pruner, config.prune_after, epochs),
            load_if_exists=True,
        )
        if OURS not in study.user_attrs and not study.get_trials(deepcopy=False):
            study.set_user_attr(OURS, asked)
            study.set_user_attr(BASE, base)
        known, before = study.user_attrs.get(OURS), study.user_attrs.get(BASE, {})
    except Exception as error:  # of SQLAlchemy, the database's driver, the file system
        raise UserError(f"sweep.storage={printable(place)}: the study cannot be read or written ({first_line(error)})") from None
    if known != asked:
        raise UserError(
            f"sweep.study={config.study}: {_difference(known, asked)}: sweep.dir=<another directory>, or sweep.study=<another name>"
        )
    if key := differs(before, base, [*MACHINES, *(parameter.key for parameter in space.parameters)]):
        raise UserError(
            f"sweep.study={config.study}: the configuration has changed since the study was begun ({key}): sweep.study=<another name>, or undo the "
            "change"
        )
    if config.warm_start and not study.get_trials(deepcopy=False):
        begin_with(study, config, space, asked)
    return study


def begin_with(study: Study, config: SweepConfig, space: Space, asked: dict[str, Any]) -> None:
    """Bring what an older study knows: all its trials where it asked the same, else the values of its best as the first trial.

    Raises:
        UserError: there is no such study, or none of its trials has finished.
    """
    said = config.warm_start
    assert said is not None
    place = located(said, Path())
    if "://" not in place:
        place = str(Path(place) / JOURNAL) if Path(place).is_dir() else place
        if not Path(place).is_file():
            raise UserError(f"sweep.warm_start={said}: no journal of a study there")
    storage = open_storage(place, "sweep.warm_start")
    names = optuna.get_all_study_names(storage)
    if config.study not in names and len(names) != 1:
        raise UserError(
            f"sweep.warm_start={printable(said)}: sweep.study={config.study}: no such study there{did_you_mean(config.study, names)}"
        )
    old = optuna.load_study(study_name=config.study if config.study in names else names[0], storage=storage)
    over = old.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    if all(trial.state != TrialState.COMPLETE for trial in over):
        raise UserError(f"sweep.warm_start={printable(said)}: no trial of the study there has finished")
    if old.user_attrs.get(OURS) == asked:
        for trial in over:
            study.add_trial(
                create_trial(
                    state=trial.state,
                    params=trial.params,
                    distributions=trial.distributions,
                    values=trial.values,
                    intermediate_values=trial.intermediate_values,
                    user_attrs={GIVEN: printable(said)},
                )
            )
    else:
        known = {parameter.key: parameter for parameter in space.parameters}
        for trial in old.best_trials[:1]:
            study.enqueue_trial({key: value for key, value in trial.params.items() if key in known and known[key].holds(value)})


def _difference(known: dict[str, Any] | None, asked: dict[str, Any]) -> str:
    if known is None:
        return "the study of that name was not made by a sweep"
    if known["objectives"] != asked["objectives"]:
        return f"the study there has the objective {', '.join(known['objectives'])}, not {', '.join(asked['objectives'])}"
    before, now = ({each["key"]: each for each in content["space"]} for content in (known, asked))
    keys = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    return f"the study there has another space: it differs in {', '.join(keys) or 'the order of its parameters'}"
