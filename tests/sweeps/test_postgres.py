"""Studies in a database server that several processes work on at once: a real PostgreSQL."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from segfocal.errors import UserError
from segfocal.sweeps.storage import open_storage
from tests.conftest import installed
from tests.sweeps.postgres import PASSWORD, server
from tests.sweeps.test_launcher import TINY, Sweep, environment, spawned_sweep  # noqa: F401  # a fixture

pytestmark = pytest.mark.xdist_group("postgres")

SEARCH = ("sweep.sampler=tpe", "loss.gamma=interval(0,5)", "report=false")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    installed("psycopg", "postgresql")
    with server() as found:
        yield found


def trials_of(directory: Path) -> list[int]:
    """Of the study, that the jobs of a sweep were."""
    return [number for job in json.loads((directory / "sweep.json").read_text())["jobs"] for number in job["trials"]]


def test_two_sweeps_on_one_study_neither_repeat_nor_lose_a_trial(address: str, spawned_sweep: Sweep, tmp_path: Path) -> None:  # noqa: F811
    storage = f"sweep.storage=postgresql://{address}"
    env = {"PGPASSWORD": PASSWORD, "TINY_SECONDS": "0.5"}
    command = [*TINY, "profile=cpu", *SEARCH, storage, "sweep.trials=3"]
    both = [
        subprocess.Popen([*command, f"sweep.dir={name}"], cwd=tmp_path, env=environment(**env), stdout=subprocess.PIPE, text=True)
        for name in ("one", "other")
    ]
    for process in both:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
    again = spawned_sweep(*SEARCH, storage, "sweep.trials=4", "sweep.dir=one", PGPASSWORD=PASSWORD)
    assert (again.code, "trials, in postgresql://" in again.out) == (0, True), again.err

    one, other = trials_of(tmp_path / "one"), trials_of(tmp_path / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        trials = optuna.load_study(study_name="segfocal", storage=open_storage(f"postgresql://{address}")).trials
    assert one and other
    assert Counter(one + other) == Counter(range(len(trials)))  # none twice, none that nobody ran
    assert len(trials) in (4, 5)  # where both ask in the same moment, one more
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert len({trial.params["loss.gamma"] for trial in trials}) == len(trials)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("postgresql://ours:wrong@{host}", r"postgresql://ours:\*\*\*@{host}: cannot be opened \(.*password authentication failed.*\)"),
        ("postgresql://ours@127.0.0.1:1/x", r"postgresql://ours@127.0.0.1:1/x: cannot be opened \(.*[Cc]onnection refused.*\)"),
        ("postgresql+nowhere://x@{host}", r"postgresql\+nowhere://x@{host}: there is no such database, or no such driver of one"),
        ("mysql://x@{host}", r"mysql://x@{host}: its driver is not installed"),
    ],
)
def test_a_server_that_is_not_to_be_had_is_one_line(address: str, storage: str, said: str) -> None:
    host = address.partition("@")[2]
    with pytest.raises(UserError) as raised:
        open_storage(storage.format(host=host))
    assert re.fullmatch(f"sweep.storage={said.format(host=host)}", str(raised.value)), raised.value


def test_the_extra_of_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"its driver is not installed: pip install 'segfocal\[postgresql\]'"):
        open_storage("postgresql://x@127.0.0.1:1/x")
