"""A run that is struck, again and again, ends bit for bit where it would have ended: through the command line, with all that is drawn by chance."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.reliability.chained import CHANCE, differing, kept, train

HOW = {
    "no workers": ["data.num_workers=0", "data.cache=ram", "scheduler=onecycle", "objective=val/loss", "optimizer.encoder_lr_scale=0.3"],
    "two workers": [
        "data.num_workers=2",
        "data.cache=disk",
        "scheduler=plateau",
        "scheduler.patience=1",
        "optimizer.lr=1e-6",
        "trainer.accumulate=2",
        "callbacks.save_every=3",
    ],
}
# An epoch has 8 batches, a validation 2, and the end of an epoch saves the best, then the last.
STRIKES = {
    "no workers": [
        ("step 3 SIGKILL", -9),  # before there is any checkpoint
        ("step 5 SIGTERM", 143),  # in mid-epoch
        ("step 2 SIGKILL", -9),  # with nothing but that checkpoint
        ("save 1 SIGKILL", -9),  # amid the first write of a checkpoint
        ("validation 1 SIGKILL", -9),
        ("validation 2 SIGUSR1", 143),  # once: twice would put averages where they belong again, were they left in the weights' place
        ("validation 1 SIGKILL", -9),  # of a validation that is begun anew
        ("saved 2 SIGKILL", -9),  # between two epochs
        ("step 8 SIGTERM", 143),  # the last of an epoch
        ("saved 1 SIGKILL", -9),  # when the best has been written, and the last has not
        ("step 1 SIGINT", 130),
        ("save 2 SIGKILL", -9),
    ],
    "two workers": [  # what workers, their order and accumulated gradients make harder
        ("step 5 SIGTERM", 143),
        ("validation 2 SIGUSR1", 143),
        ("saved 2 SIGKILL", -9),
        ("step 8 SIGTERM", 143),
        ("step 1 SIGINT", 130),
    ],
}


@pytest.mark.parametrize("how", HOW)
def test_a_run_that_is_struck_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path, how: str) -> None:
    overrides = [*CHANCE, *HOW[how]]
    for fault, code in STRIKES[how]:
        done = train(tmp_path, *overrides, "out=cut", "ckpt=auto", fault=fault)
        assert done.code == code, (fault, done.out, done.err)
        assert "Traceback" not in done.err
    done = train(tmp_path, *overrides, "out=cut", "ckpt=auto")
    assert done.code == 0, done.err
    (cut,) = tmp_path.glob("cut/*")
    assert list(cut.glob("**/.*.part")) == []
    shutil.rmtree(tmp_path / "cache")
    assert train(tmp_path, *overrides, "out=whole").code == 0
    (whole,) = tmp_path.glob("whole/*")
    assert {"state_dict", "current_model_state", "averaging_state", "optimizer_states"} <= kept(cut).keys()
    assert {which: differing(kept(whole, which), kept(cut, which)) for which in ("last", "best")} == {"last": [], "best": []}
    assert (cut / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    again = train(tmp_path, *overrides, "out=cut", "ckpt=auto")
    assert (again.code, len(list(tmp_path.glob("cut/*")))) == (0, 1)
    assert again.out.endswith(
        ": this run has ended: leave out ckpt=auto for another, or ckpt=" + str(cut.relative_to(tmp_path)) + " to go on from it\n"
    )


def test_a_new_run_takes_the_history_and_the_best_along(tmp_path: Path) -> None:
    """`ckpt=<directory>`: the earlier run is left as it was."""
    overrides = [*CHANCE, "data.num_workers=0"]
    assert train(tmp_path, *overrides, "out=cut", fault="step 20 SIGTERM").code == 143
    (cut,) = tmp_path.glob("cut/*")
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    assert train(tmp_path, *overrides, "out=rest", f"ckpt={cut}").code == 0
    assert train(tmp_path, *overrides, "out=whole").code == 0
    (rest,), (whole,) = tmp_path.glob("rest/*"), tmp_path.glob("whole/*")
    assert {which: differing(kept(whole, which), kept(rest, which)) for which in ("last", "best")} == {"last": [], "best": []}
    assert (rest / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()} == before
