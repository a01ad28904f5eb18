"""Two processes that meet, as on two machines."""

from __future__ import annotations

import dataclasses
import multiprocessing as mp
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]  # types are not told of it

from segfocal import checkpoint as checkpoints
from segfocal import going_on
from segfocal.config.run import AUTO
from segfocal.parallel import team
from segfocal.parallel.place import OURS, Place
from tests.checkpoints import made, train_config

pytestmark = pytest.mark.xdist_group("two processes")
LATE = 3.0  # seconds, of the second


def work(rank: int, fails: bool) -> None:
    joined = team.join(Place(rank, 2, 0, 1, "torchrun", rank), "cpu", torch.device("cpu"))
    with joined.one_first():
        time.sleep(LATE * rank)
    if fails and rank == 1:
        joined.first_to_fail()
        os._exit(2)
    started = time.monotonic()
    try:
        joined.wait()
    except RuntimeError:
        os._exit(3)
    os._exit(0 if rank == 1 or time.monotonic() - started > LATE / 2 else 1)


@pytest.mark.parametrize(("fails", "codes"), [(False, [0, 0]), (True, [3, 2])])
def test_who_is_late_is_waited_for_and_who_fails_is_not(
    fails: bool, codes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "TIMEOUT", timedelta(seconds=LATE / 3))  # of a collective
    monkeypatch.setenv(OURS, str(tmp_path / "store"))
    processes = [mp.get_context("fork").Process(target=work, args=(rank, fails)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == codes


def test_all_go_on_from_the_checkpoint_that_the_leading_process_has_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each put the damaged one aside, which was there for the first alone."""
    for check in ("check_state", "check_loss"):
        monkeypatch.setattr(going_on, check, lambda *_: None)
    monkeypatch.setattr(checkpoints, "check_same_model", lambda *_: None)
    previous = made(tmp_path / "checkpoints" / "previous.ckpt", spoil=lambda content: content.update(global_step=3))
    previous.with_name("last.ckpt").write_bytes(b"damaged")
    config, store = dataclasses.replace(train_config(), ckpt=AUTO), HashStore()
    teams = [team.Team(Place(rank, 2, 0, 1, "torchrun", rank), store) for rank in range(2)]
    with ThreadPoolExecutor(2) as both:
        found = list(both.map(lambda each: going_on.before(config, tmp_path, each), teams))
        told = list(both.map(lambda each: each.told(f"of {each.place.rank}"), teams))
    assert [before and before.path for before in found] == [previous, previous]
    assert {path.name for path in previous.parent.iterdir()} == {"previous.ckpt", "last.damaged"}
    assert told == ["of 0", "of 0"]
