"""A folder of predictions: gone on with, never mixed, never half there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segfocal import predict
from segfocal.decision import Decision
from segfocal.errors import UserError
from segfocal.prediction import ledger
from tests.checkpoints import made
from tests.prediction.made import EVERYTHING, called, files, picture, seen, table


def test_it_goes_on_where_it_was_cut_off(here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        picture(here / f"photos/c{number}.png", seed=number)
    assert called(ckpts["binary"], EVERYTHING, "out=whole") == 0
    original = ledger.Ledger.add

    def cut(self: ledger.Ledger, name: str, *given: Any) -> None:
        if name == "c1.png":
            raise KeyboardInterrupt
        original(self, name, *given)

    monkeypatch.setattr(ledger.Ledger, "add", cut)
    with pytest.raises(SystemExit) as caught:
        predict.main([f"ckpt={ckpts['binary']}", "input=photos", "out=out", "profile=cpu", EVERYTHING])
    assert caught.value.code == 130
    monkeypatch.setattr(ledger.Ledger, "add", original)
    assert [row["image"] for row in table(here / "out")] == ["a.png", "c0.png"]
    with (here / "out/shares.csv").open("a") as file:
        file.write("c1.png,60,90,123,0.02")  # a row that was cut off, too
    names = seen(monkeypatch)
    assert called(ckpts["binary"], EVERYTHING) == 0
    assert names == ["c1.png", "c2.png", "c3.png", "b.jpg"]
    assert files(here / "out") == files(here / "whole")
    assert all((here / "out" / name).read_bytes() == (here / "whole" / name).read_bytes() for name in files(here / "whole"))


def opened(out: Path) -> ledger.Ledger:
    return ledger.Ledger(out, {"checkpoint": "x"}, {}, ["crack"])


def test_a_second_process_is_refused_and_loses_no_rows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second, third = opened(out), opened(out), opened(out)  # all know of nothing there
    first.start()
    first.add("a", Path("a"), (2, 2), [1])
    first.finish()
    first.close()
    hold = f"import fcntl; file = open({str(out / ledger.LOCK)!r}, 'a'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match=r"out: process \d+ is at work there: wait for it, or out=<another directory>$"):
            second.start()
        holder.communicate(b"\n")
    third.start()
    third.add("b", Path("b"), (2, 2), [1])
    third.finish()
    third.close()
    assert [row["image"] for row in table(out)] == ["a", "b"]
    other = ledger.Ledger(tmp_path / "new", {"checkpoint": "y"}, {}, ["crack"])
    out.rename(tmp_path / "new")
    with pytest.raises(UserError, match="holds predictions of another checkpoint"):
        other.start()
    other.close()


def test_names_of_all_kinds_are_found_again_and_are_harmless(tmp_path: Path) -> None:
    names = ["=1+1.png", "a\rb.png", "c\nd.png", "plain.png"]
    made = opened(tmp_path)
    made.start()
    for name in names:
        made.add(name, tmp_path / name, (2, 2), [1])
    for again in (made, opened(tmp_path)):
        assert all(again.has(name) and again.other(name, tmp_path / name) is None for name in names)
    made.finish()
    made.close()
    assert [row["image"] for row in table(tmp_path)] == ["'=1+1.png", *names[1:]]
    (tmp_path / ledger.SHARES).write_text((tmp_path / ledger.SHARES).read_text().replace("'=1", "=1"))  # as it was written before
    assert opened(tmp_path).has("=1+1.png")


def test_only_what_is_new_or_has_changed_is_predicted_again(here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    names = seen(monkeypatch)
    assert called(ckpts["binary"]) == 0
    assert called(ckpts["binary"]) == 0
    assert names == ["a.png", "b.jpg"]
    picture(here / "photos/c.png")
    later = (here / "out/ids/more/b.png").stat().st_mtime + 10
    os.utime(here / "photos/more/b.jpg", (later, later))
    assert called(ckpts["binary"]) == 0
    assert names[2:] == ["c.png", "b.jpg"]
    os.utime(here / "photos/more/b.jpg", (1, 1))
    assert called(ckpts["binary"], "write=[ids,colours]") == 0
    assert names[4:] == ["a.png", "c.png", "b.jpg"], "what is wanted besides is made"
    (here / "out/ids/a.png").unlink()
    assert called(ckpts["binary"], "write=[ids,colours]") == 0
    assert names[7:] == ["a.png"]
    assert [row["image"] for row in table(here / "out")] == ["a.png", "c.png", "more/b.jpg"]


def test_the_prediction_of_another_image_of_the_name_is_not_passed_off_as_its_own(here: Path, ckpts: dict[str, Path]) -> None:
    picture(here / "monday/a.png", seed=1)
    picture(here / "tuesday/a.png", seed=2)
    assert called(ckpts["binary"], given="monday") == 0
    assert [row["file"] for row in table(here / "out")] == [str(here / "monday/a.png")]
    before = (here / "out/ids/a.png").read_bytes()
    with pytest.raises(UserError, match=r"tuesday/a.png: has the name of another image .*monday/a.png; choose another out"):
        called(ckpts["binary"], given="tuesday")
    assert (here / "out/ids/a.png").read_bytes() == before
    assert called(ckpts["binary"], given="./tuesday/../monday") == 0, "the same file, said otherwise"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["decision=plain"], "made with decision=stored (now plain)"),
        (["inference.tile=[64,64]"], "made with inference.tile=[1024, 1024] (now [64, 64])"),
        (["data.exif=ignore"], "made with data.exif=apply (now ignore)"),
        (["ckpt=other.ckpt"], "holds predictions of another checkpoint"),
    ],
)
def test_predictions_of_different_kinds_do_not_mix(here: Path, ckpts: dict[str, Path], other: list[str], said: str) -> None:
    made(here / "other.ckpt", "seed=1", decision=Decision("binary", thresholds=[0.25]).as_dict())
    assert called(ckpts["binary"]) == 0
    before = {name: (here / "out" / name).stat().st_mtime_ns for name in files(here / "out")}
    picture(here / "photos/new.png")
    with pytest.raises(UserError) as caught:
        called(
            ckpts["binary"] if not other[0].startswith("ckpt") else "other.ckpt", *(item for item in other if not item.startswith("ckpt"))
        )
    assert said in str(caught.value)
    assert "choose another folder" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert {name: (here / "out" / name).stat().st_mtime_ns for name in files(here / "out")} == before


def test_a_disk_that_takes_no_more_is_a_line_and_leaves_no_half_file(
    here: Path, ckpts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += stat.S_ISREG(os.fstat(descriptor).st_mode)  # folders are flushed, too
        if count > 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as caught:
        predict.main([f"ckpt={ckpts['binary']}", "input=photos", "out=out", "profile=cpu", "write=[ids,colours]"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == ["out=out: cannot be written: No space left on device"]
    assert files(here / "out") == {"prediction.json", "shares.csv", "ids/a.png", "colours/a.png"}
