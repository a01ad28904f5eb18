"""From a configuration, or from a training that has just ended, to figures."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from segfocal import checkpoint as checkpoints
from segfocal.config.run import EvaluateConfig, Split, TrainConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.errors import UserError
from segfocal.evaluation.answer import answer
from segfocal.evaluation.data import check, check_same, open_data
from segfocal.evaluation.judge import Wanted, judge
from segfocal.memory import memory_told
from segfocal.parallel.devices import PlacedDevice, placed
from segfocal.parallel.share import check_share
from segfocal.parallel.team import join
from segfocal.quiet import quieten, talk_on_stderr
from segfocal.rundir import shown_path
from segfocal.switches import kernels_told
from segfocal.wholefile import refusal

GALLERY = 24  # images in the report of a training
DRAWS = 1000


@memory_told()
@kernels_told()
def evaluate(config: EvaluateConfig, run_dir: Path) -> float:
    """Evaluate checkpoints on a split of their own data or of other data.

    Args:
        config: which checkpoints, which split, which data.
        run_dir: a directory of its own for figures, tables, report and pictures. Of several processes the leading one's is taken by all.

    Returns:
        The mean IoU of the first; NaN where no class is there.

    Raises:
        UserError: anything that the user can mend.
    """
    quieten()
    if config.json:
        talk_on_stderr()
    paths = [checkpoints.locate(ckpt, "best") for ckpt in config.ckpts]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"ckpt=[{','.join(config.ckpts)}]: the same checkpoint twice")
    contents = [checkpoints.read(path) for path in paths]
    models = [checkpoints.rebuild(content, path) for content, path in zip(contents, paths, strict=True)]
    opened = [open_data(config, *each) for each in zip(contents, models, paths, strict=True)]
    for path, data in zip(paths[1:], opened[1:], strict=True):
        check_same(opened[0], data, config.split, (paths[0], path))
    wanted = Wanted(
        config.split, config.inference, config.boundary, config.bootstrap, config.overlays, config.gallery if config.report else 0
    )
    device = placed(config.profile)
    team = join(device.place, device.accelerator, device.torch_device)
    run_dir, judged = Path(team.told(str(run_dir.absolute()))), []
    with all_or_nothing(run_dir) if team.leads else nullcontext():
        for number, (path, content, model, data) in enumerate(zip(paths, contents, models, opened, strict=True)):
            with team.one_first():
                check(data, config.split)
            check_share(config.split, len(data.sources[config.split]), device.place)
            judged.append(judge(path, content, model, device, data, wanted, run_dir if len(paths) == 1 else run_dir / str(number)))
        if team.leads:
            answer(judged, run_dir, config.bootstrap, config.report, config.json)
    value = judged[0].evaluated.figures["iou_macro"]
    return math.nan if value is None else value


@contextmanager
def all_or_nothing(run_dir: Path) -> Iterator[None]:
    """What the block writes into a directory is gone where it does not end well.

    Raises:
        UserError: the disk takes no more.
    """
    before = set(run_dir.iterdir())
    try:
        yield
    except BaseException as error:
        for path in set(run_dir.iterdir()) - before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if reason := refusal(error):
            raise UserError(f"out={shown_path(run_dir)}: cannot be written: {reason}") from None
        raise


def evaluate_trained(path: Path, split: Split, config: TrainConfig, device: PlacedDevice, data: SegmentationData, run_dir: Path) -> None:
    """Evaluate the checkpoint that a training has come to, into its own directory."""
    wanted = Wanted(split, config.inference, bootstrap=DRAWS, overlays=config.callbacks.overlays, gallery=GALLERY if config.report else 0)
    content = checkpoints.read(path)
    judged = judge(path, content, checkpoints.rebuild(content, path), device, data, wanted, run_dir)
    if device.place.rank == 0:
        answer([judged], run_dir, DRAWS, config.report)
