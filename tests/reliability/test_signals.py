"""Signals that come as schedulers and terminals send them: to all processes of a run, and more than one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from segfocal import stopping
from segfocal.data.datamodule import SegmentationData
from segfocal.errors import Interrupted
from tests.conftest import ROOT, started
from tests.reliability.chained import CHANCE, train
from tests.test_training import configured


def children(group: int) -> list[int]:
    """The processes of a group."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[2]) == group and words[0] != "Z":
            found.append(int(place.parent.name))
    return found


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_data_workers_wait_for_the_run_and_end_with_it(tmp_path: Path, name: str) -> None:
    env = {"PYTHONPATH": str(ROOT), "FAULT": f"step 3 group-{name}"}
    with started(str(ROOT / "train.py"), *CHANCE, "data.num_workers=2", cwd=tmp_path, env=env) as process:
        done = process.result()
        assert done.code == stopping.CODES[signal.Signals[name]], done.err
        assert children(process.pid) == []
    assert done.err == ""
    assert "interrupted after step 3: " in done.out


def test_a_data_worker_does_not_listen(tmp_path: Path) -> None:
    """The run may be waiting for its batch."""
    settled = ["sampling=uniform", "augment=light"]  # what is left to the training data is chosen by the run
    small = ["data=synthetic", "data.size=64", "data.train=24", "data.crop=[32,32]", "data.batch_size=2"]
    config = configured(*small, *settled, "profile=cpu")
    data = SegmentationData(config.data, config.augment, config.task, 3, 1, 0)
    batches = iter(data.train_dataloader())
    shown = [next(batches).indices]
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, signal.Signals[name])
        shown.append(next(batches).indices)
    assert len([*shown, *batches]) == 12


def test_outside_of_training_the_first_signal_ends_the_run(tmp_path: Path) -> None:
    """In the evaluation at the end: nothing is left to save, and the same command evaluates again."""
    test = ["trainer.test=true", "trainer.max_epochs=1", "data.num_workers=0"]
    done = train(tmp_path, *CHANCE, *test, "ckpt=auto", fault="test 1 SIGTERM")
    assert (done.code, done.err) == (143, "")
    (run_dir,) = tmp_path.glob("runs/*")
    assert not (run_dir / "result.json").exists()
    again = train(tmp_path, *CHANCE, *test, "ckpt=auto")
    assert again.code == 0, again.err
    assert (run_dir / "metrics.json").exists()


def test_a_second_signal_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    usual = {
        number: signal.signal(number, signal.SIG_DFL) for number in stopping.CODES
    }  # a shell may have told what runs behind it to ignore some
    stopping.listen()
    try:
        with stopping.at_step_ends():
            signal.raise_signal(signal.SIGTERM)
            assert stopping.asked() == 143
            with pytest.raises(Interrupted) as caught:
                signal.raise_signal(signal.SIGINT)
        assert caught.value.code == 130
    finally:
        stopping._ASKED.number = None
        for number, handler in usual.items():
            signal.signal(number, handler)
