"""What commands import before they begin: seconds that everybody waits for, every time."""

from __future__ import annotations

from pathlib import Path

from tests.checkpoints import made
from tests.conftest import blobs, spawn, write_folder


def test_commands_that_train_nothing_do_not_import_what_trains(tmp_path: Path) -> None:
    """To their end, for what is imported late is waited for as well."""
    made(tmp_path / "best.ckpt")
    write_folder(tmp_path, blobs(1))
    program = """
import sys
from segfocal import predict
from segfocal.export.__main__ import run
predict.main(["ckpt=best.ckpt", "input=images", "out=predictions", "profile=cpu", "write=[ids,overlays]"])
run(["ckpt=best.ckpt", "format=safetensors"])
run(["ckpt=best.safetensors", "format=torch_export", "size=[64,64]"])
print(sorted({"lightning", "tensorboard", "torchmetrics"} & set(sys.modules)))
"""
    done = spawn("-c", program, cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "[]"
    assert (tmp_path / "predictions/ids/photo_00.png").is_file()
    assert (tmp_path / "best.pt2").is_file()
