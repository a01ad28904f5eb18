"""Every command on every file, in one process that has no network and starts no other: python -m tests.hostile.driver <folder>

For each file below the folder: what each command raises, what it has left, the memory it took. Whatever would leave the process
is refused and written down. Prints JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DENIED = ("socket.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "webbrowser.open", "urllib.")
ROOM = 8 * 2**30  # of addresses, beyond what the process has: what takes more than that would take a machine's memory
told: list[str] = []


def deny(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(DENIED):
        told.append(event)
        raise PermissionError(f"denied: {event}")


def status(name: str) -> int:
    """Of /proc/self/status, in bytes."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def commands() -> dict[str, Callable[[Path, Path], object]]:
    """What each does with a checkpoint and a place to write into."""
    from segfocal.config.export import ExportConfig
    from segfocal.config.parse import parse_sweep
    from segfocal.config.predict import PredictConfig
    from segfocal.engine import fit
    from segfocal.evaluation import evaluate
    from segfocal.export.command import export
    from segfocal.prediction.run import predict
    from tests.checkpoints import train_config
    from tests.test_training import configured

    training = train_config("data.size=64", "data.train=8", "data.val=4", "data.test=4", "data.num_workers=0", "trainer.max_epochs=9")
    evaluation = configured("ckpt=x", "profile=cpu", "bootstrap=0", "data.limit=1", "data.num_workers=0", program="evaluate")

    ((_, prediction),) = parse_sweep(PredictConfig, "predict", ["ckpt=x", "input=photos", "out=x", "profile=cpu"], 1)

    def evaluated(ckpt: Path, out: Path) -> None:
        out.mkdir()
        evaluate(dataclasses.replace(evaluation, ckpt=str(ckpt)), out)

    def trained(ckpt: Path, out: Path) -> None:
        out.mkdir()
        fit(dataclasses.replace(training, ckpt=str(ckpt)), out)

    return {
        "evaluate": evaluated,
        "predict": lambda ckpt, out: predict(dataclasses.replace(prediction, ckpt=str(ckpt), out=str(out))),
        "export": lambda ckpt, out: export(ExportConfig(ckpt=str(ckpt), format="safetensors", out=str(out.with_suffix(".safetensors")))),
        "train": trained,
    }


def tried(command: Callable[[Path, Path], object], ckpt: Path, out: Path) -> dict[str, Any]:
    from segfocal.errors import UserError
    from segfocal.rundir import RUN

    told.clear()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, raised, said = status("VmRSS"), "", ""
    try:
        command(ckpt, out)
    except UserError as error:
        raised, said = "UserError", str(error)
    except BaseException as error:
        raised, said = type(error).__name__, str(error)[:500]
    left = sorted({path.name for path in out.iterdir()} - {RUN}) if out.is_dir() else []  # the command line takes that away
    return {"raised": raised, "said": said, "took": status("VmHWM") - before, "denied": list(told), "left": left}


if __name__ == "__main__":
    sys.addaudithook(deny)
    every = commands()
    most = status("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    here = Path(sys.argv[1])
    os.chdir(here)
    answer: dict[str, dict[str, Any]] = {}
    files = sorted([*here.glob("*/bad.ckpt"), *here.glob("*/bad.safetensors")])
    for number, ckpt in enumerate(files):
        answer[ckpt.parent.name] = {
            name: tried(command, ckpt, here / f"out_{number}_{name}") | {"executed": Path("executed").exists()}
            for name, command in every.items()
        }
    print(json.dumps(answer))
