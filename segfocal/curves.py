"""Loss and gradient of one pixel against the probability of its label, drawn for any loss that looks at pixels one by one.

    python -m segfocal.curves loss=focal loss.gamma=0,1,2,5
    python -m segfocal.curves loss=focal,ce task=multiclass out=figures

Overrides are those of train.py, but that the loss is focal where none is named. Values with commas are a sweep: every combination is a
curve. Writes curves.png and curves.svg into `out`, or where that is not given into `runs/curves`.

What is drawn is the value of a positive pixel before any mean, in multiclass of a pixel of class 1, with equal logits for all other
classes. A loss that only knows a mean over class weights, as `ce` in multiclass, shows no weight: in the mean of one pixel it cancels.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segfocal.cli import command, refuse_flags
from segfocal.config.parse import parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.config.task import TaskConfig
from segfocal.errors import UserError
from segfocal.rundir import shown_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito: told apart by everybody
STYLES = ("-", "--", ":")
MOST = len(COLOURS) * len(STYLES)
BESIDE = 8  # from so many curves on, the legend stands beside the panels
POINTS = 199  # 0.005, 0.01, ..., 0.995


class Curve(NamedTuple):
    """What one pixel costs.

    Args:
        label: what is swept, with its value; empty where nothing is.
        p: probability of the true label.
        loss: its loss.
        gradient: magnitude of the derivative with respect to the logit of the true label.
    """

    label: str
    p: list[float]
    loss: list[float]
    gradient: list[float]


def curve_of(config: TrainConfig, label: str = "") -> Curve:
    """The curve of one configuration, computed in fp64.

    Raises:
        UserError: for a loss without such a curve.

    Example:
        >>> (_, config), = parse_sweep(TrainConfig, "train", ["loss=focal", "loss.gamma=2"], 1)
        >>> curve = curve_of(config)
        >>> curve.p[99], curve.loss[99]  # -(1 - .5)^2 log .5
        (0.5, 0.17328679513998632)
    """
    import torch

    loss = pixel_loss(config)
    grid = torch.linspace(0, 1, POINTS + 2, dtype=torch.float64)[1:-1]
    values, gradients = [], []
    for p in grid:
        value, gradient = _value_and_gradient(loss, config, p.reshape(1), [True])
        values.append(value)
        gradients.append(abs(gradient))
    return Curve(label, grid.tolist(), values, gradients)


def pixel_loss(config: TrainConfig) -> nn.Module:
    """The loss of a configuration, which sums where it can.

    Raises:
        UserError: where the loss cannot be built without data, or is not a sum over pixels: the gradient at a pixel depends on others.
    """
    import torch

    from segfocal.losses import build_loss

    described = _summing(config.loss, config.task)
    try:
        loss = build_loss(described, config.task)
    except ValueError as error:
        raise UserError(str(error)) from None
    gradients = [
        _value_and_gradient(loss, config, torch.tensor(p, dtype=torch.float64), [True, True, False])[1]
        for p in ([0.3, 0.2, 0.6], [0.3, 0.8, 0.1], [0.3, 0.2, 0.9])  # the last has another order of errors, for losses that sort
    ]
    if max(gradients) - min(gradients) > 1e-4 * max(map(abs, gradients)):
        raise UserError(
            f"loss={config.loss.name}: what a pixel costs depends on the other pixels, so there is no curve of one; "
            "curves are drawn of losses that sum over pixels, such as focal and ce"
        )
    return loss


def _summing(loss: Any, task: TaskConfig) -> Any:
    """The configuration with a sum for a mean: the mean over one pixel's weight would hide the weight.

    Raises:
        UserError: for what has no curve.
    """
    given = {field.name: getattr(loss, field.name) for field in dataclasses.fields(loss)}
    for name in ("alpha", "class_weights"):
        if isinstance(given.get(name), str):
            raise UserError(f"loss.{name}={given[name]}: curves are drawn without training data: give the numbers")
    if task.name == "multiclass" and given.get("form") == "sigmoid":
        raise UserError("loss.form=sigmoid: has a decision for each class; draw one of them with task=binary or task=multilabel")
    if isinstance(given.get("terms"), dict):
        if any(getattr(term, "from_logits", True) is False for term in given["terms"].values()):
            raise UserError("loss.terms: from_logits=false has no curve in a sum: leave it out")
        return dataclasses.replace(loss, terms={name: _summing(term, task) for name, term in given["terms"].items()})
    return dataclasses.replace(loss, reduction="sum") if "reduction" in given else loss


def _value_and_gradient(loss: nn.Module, config: TrainConfig, p: Tensor, yes: list[bool]) -> tuple[float, float]:
    """The loss of an image of one row, and its derivative with respect to the logit that decides on the first pixel.

    Args:
        loss: of logits and labels.
        config: says the task.
        p: for each pixel the probability of the first class (multiclass: of class 1).
        yes: whether that is the true class of the pixel.
    """
    import torch

    task = config.task
    classes = 1 if task.name == "binary" else task.num_classes
    drawn = 1 if task.name == "multiclass" else 0
    logits = torch.zeros(1, classes, 1, len(p), dtype=torch.float64)
    logits[0, drawn, 0] = p.logit() + (math.log(classes - 1) if task.name == "multiclass" else 0.0)
    logits.requires_grad_()
    truth = torch.tensor(yes).long().reshape(1, 1, 1, -1)
    if task.name == "multilabel":
        truth = torch.cat([truth, torch.full((1, classes - 1, 1, len(p)), task.ignore_index)], 1)
    scores = logits
    if getattr(config.loss, "from_logits", True) is False:
        scores = logits.softmax(1) if task.name == "multiclass" else logits.sigmoid()
    value = loss(scores, truth if task.name == "multilabel" else truth.squeeze(1))
    (gradient,) = torch.autograd.grad(value, logits)
    return value.item(), gradient[0, drawn, 0, 0].item()


def configurations(overrides: list[str]) -> list[tuple[dict[str, str], TrainConfig]]:
    """What is swept with its values, and the configuration, for each curve; of loss=focal where no override names a loss.

    Raises:
        UserError: with a line for each mistake.

    Example:
        >>> [(swept, config.loss.name) for swept, config in configurations(["loss.gamma=0,1"])]
        [({'loss.gamma': '0'}, 'focal'), ({'loss.gamma': '1'}, 'focal')]
    """
    named = any(word.lstrip("+").startswith("loss=") for word in overrides)
    return parse_sweep(TrainConfig, "train", overrides if named else ["loss=focal", *overrides], MOST)


def label_of(values: dict[str, str]) -> str:
    """Overrides as a reader of a figure wants them."""
    shown = [value if key == "loss" else f"{key.removeprefix('loss.')} = {value}" for key, value in values.items()]
    return ", ".join(shown)


def draw(drawn: list[Curve], title: str, directory: Path) -> list[Path]:
    """Write the figure as curves.png and curves.svg, the same bytes for the same curves.

    Raises:
        UserError: where matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError:
        raise UserError("curves are drawn by matplotlib, which is not installed: pip install 'matplotlib>=3.9,<4'") from None

    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "segfocal"}):
        beside = len(drawn) >= BESIDE
        figure = Figure(figsize=(11.5 if beside else 9.5, 4.0), layout=ConstrainedLayoutEngine(w_pad=0.12, wspace=0.03))
        panels: list[Axes] = list(figure.subplots(1, 2))
        for number, curve in enumerate(drawn):
            colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS)]
            for panel, values in zip(panels, (curve.loss, curve.gradient), strict=True):
                panel.plot(curve.p, values, color=colour, linestyle=style, linewidth=2.0, label=curve.label)
        for panel, name in zip(panels, ("loss of a pixel", "gradient magnitude, |∂ loss / ∂ logit|"), strict=True):
            panel.set_xlabel("probability of the true label $p_t$", labelpad=6)
            panel.set_ylabel(name, labelpad=8)
            panel.set(xlim=(0, 1))
            panel.set_ylim(bottom=0)
            panel.grid(color="0.9")
            panel.set_axisbelow(True)
        if beside:
            figure.legend(handles=panels[0].get_lines(), frameon=False, loc="outside right upper")
        elif len(drawn) > 1:
            panels[0].legend(frameon=False)
        if title:
            figure.suptitle(title, fontsize=12)
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / "curves.png", directory / "curves.svg"]
        figure.savefig(paths[0], dpi=160)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def main(arguments: list[str]) -> None:
    """What `python -m segfocal.curves` does."""
    overrides = [word for word in arguments if word not in ("-m", "--multirun")]  # as train.py wants it for a sweep
    command(lambda words: "\n".join(shown_path(path) for path in run(words)), overrides, __doc__)


def run(overrides: list[str]) -> list[Path]:
    """Draw what the overrides ask for; returns where it lies.

    Raises:
        UserError: with a line for each mistake.
    """
    refuse_flags(overrides, "segfocal.curves")
    jobs = configurations(overrides)
    swept, config = jobs[0]
    if "out" in swept:
        raise UserError("out: the curves are one figure, which goes into one directory")
    given = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in overrides)}
    fixed = {key: value for key, value in given.items() if key.startswith(("loss.", "task")) and key not in swept}
    if "loss" not in swept:
        fixed = {"loss": given.get("loss", config.loss.name), **fixed}
    drawn = [curve_of(config, label_of(swept)) for swept, config in jobs]
    return draw(drawn, label_of(fixed), Path(config.out) if "out" in given else Path(config.out) / "curves")


if __name__ == "__main__":
    main(sys.argv[1:])
