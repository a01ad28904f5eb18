"""Two processes that meet, as on two machines."""

from __future__ import annotations

import multiprocessing as mp
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from segfocal.parallel import team
from segfocal.parallel.place import OURS, Place

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
