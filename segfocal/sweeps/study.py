"""The study of a search: made, or gone on with where it asks for the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna import Study

from segfocal.config.sweep import SweepConfig
from segfocal.errors import UserError, first_line
from segfocal.sweep import MINIMISED
from segfocal.sweeps.samplers import Seeded, build_pruner
from segfocal.sweeps.space import Space
from segfocal.sweeps.storage import located, open_storage, printable

OURS = "segfocal"  # the attribute of a study that says what it asks


def open_study(config: SweepConfig, space: Space, objectives: list[str], epochs: int, directory: Path) -> Study:
    """The study that a configuration says.

    Args:
        config: of the sweep.
        space: that is searched.
        objectives: figures of the validation.
        epochs: that a trial trains for.
        directory: of the sweep.

    Raises:
        UserError: the storage cannot be opened, or the study there asks for something else.
    """
    place = located(config.storage, directory)
    storage = open_storage(place)
    asked = {"objectives": objectives, "space": space.plain()}
    directions = ["minimize" if objective == MINIMISED else "maximize" for objective in objectives]
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
        known = study.user_attrs.get(OURS)
    except Exception as error:  # of SQLAlchemy, the database's driver, the file system
        raise UserError(f"sweep.storage={printable(place)}: the study cannot be read or written ({first_line(error)})") from None
    if known != asked:
        raise UserError(
            f"sweep.study={config.study}: {_difference(known, asked)}: sweep.dir=<another directory>, or sweep.study=<another name>"
        )
    return study


def _difference(known: dict[str, Any] | None, asked: dict[str, Any]) -> str:
    if known is None:
        return "the study of that name was not made by a sweep"
    if known["objectives"] != asked["objectives"]:
        return f"the study there has the objective {', '.join(known['objectives'])}, not {', '.join(asked['objectives'])}"
    before, now = ({each["key"]: each for each in content["space"]} for content in (known, asked))
    keys = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    return f"the study there has another space: it differs in {', '.join(keys) or 'the order of its parameters'}"
