"""What every loss, the metrics and the inference do to an NPU, beside the figures that they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch_npu
import yaml
from torch import Tensor, nn

from segfocal.config.inference import InferenceConfig
from segfocal.config.loss import check_loss
from segfocal.config.task import TaskConfig
from segfocal.inference import Inference
from segfocal.losses import build_loss
from segfocal.metrics import SegmentationMetrics
from segfocal.registry import LOSSES
from tests.accelerators.on_npu import answer

CONF = Path(__file__).parents[3] / "conf" / "loss"
TASKS = [
    TaskConfig(name="binary", classes=["crack"]),
    TaskConfig(name="multiclass", classes=["ground", "crack", "hole"]),
    TaskConfig(name="multilabel", classes=["crack", "hole", "rust"]),
]
# What an option needs besides itself, and settings that take other ways through the code.
MORE: dict[str, list[dict[str, Any]]] = {
    "sum": [{"terms": [{"name": "ce"}, {"name": "dice"}]}],
    "ce_dice": [
        {"terms": [{"name": "ce", **more}, {"name": "dice"}], "weights": [1, 2]} for more in ({}, {"class_weights": [1.0, 2.0, 3.0]})
    ],
    "focal_dice": [{"terms": [{"name": "focal"}, {"name": "dice"}]}],
    "logit_adjusted_ce": [{"prior": [0.1]}, {"prior": [0.7, 0.2, 0.1]}],
    "focal": [
        {},
        {"alpha": [0.2, 0.5, 0.3]},
        {"normalized": True},
        {"denominator": "positives"},
        {"reduced_threshold": 0.5},
        {"gamma": 0.5},
    ],
    "ce": [{}, {"class_weights": [1.0, 2.0, 3.0]}, {"label_smoothing": 0.1}],
}


def options() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every YAML of conf/loss as the mapping that it comes to."""
    for path in sorted(CONF.glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        base = next(str(entry) for entry in content.pop("defaults") if "/schema/loss/" in str(entry))
        name = base.split("/schema/loss/")[1].split("@")[0]
        for number, more in enumerate(MORE.get(path.stem, [{}])):
            yield f"{path.stem}#{number}", {"name": name, **content, **more}


def batch(task: TaskConfig) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (2, 16, 24) if task.name == "multiclass" else (2, task.num_classes, 16, 24)
    logits = 2 * torch.randn((2, task.num_classes, 16, 24), generator=generator)
    target = torch.randint(0, task.num_ids, shape, generator=generator)
    return logits, target.masked_fill(torch.rand(shape, generator=generator) < 0.2, 255)


def minded() -> dict[str, int]:
    """What the device has noted, but for operators that are plainly computed."""
    return {name: count for name, count in torch_npu.npu.take_notes().items() if not name.startswith("fallback ")}


def noted(work: Callable[[], object]) -> dict[str, int]:
    """Of the second time: the first may fill caches."""
    work()
    minded()
    work()
    return minded()


def of_loss(loss: nn.Module, logits: Tensor, target: Tensor, device: str) -> tuple[Tensor, Tensor, dict[str, int]]:
    """Value, gradient and notes."""
    loss, target = loss.to(device), target.to(device)
    leaf = logits.clone().to(device).requires_grad_()
    found: list[Tensor] = []

    def step() -> None:
        leaf.grad = None
        with torch.autocast(device, torch.float16, enabled=device == "npu"):
            value = loss(leaf, target)
        value.backward()
        found[:] = [value.detach(), leaf.grad]

    notes = noted(step)
    return found[0].cpu(), found[1].cpu().float(), notes


def losses() -> list[dict[str, Any]]:
    rows = []
    for name, mapping in options():
        for task in TASKS:
            config = LOSSES.validate(mapping)
            if check_loss(config, task):
                continue
            logits, target = batch(task)
            if mapping.get("from_logits") is False:
                logits = logits.softmax(1) if task.name == "multiclass" else logits.sigmoid()
            expected, gradient, _ = of_loss(build_loss(config, task), logits, target, "cpu")
            value, on_npu, notes = of_loss(build_loss(config, task), logits, target, "npu")
            half, _, of_half = of_loss(build_loss(config, task), logits.half(), target, "npu")
            rows.append(
                {
                    "loss": f"{name} {task.name}",
                    "notes": notes | of_half,
                    "fp32": value.dtype == half.dtype == torch.float32,
                    "off": abs(float(value - expected)) / max(1.0, abs(float(expected))),
                    "gradient_off": float((on_npu - gradient).abs().max() / gradient.abs().max().clamp_min(1e-12)),
                }
            )
    return rows


class Spoilt(nn.Module):
    """A loss that does one of the things that must not be done."""

    def __init__(self, how: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.how(logits, target)


SPOILT = {
    "boolean indexing": lambda logits, target: logits[:, 0][target != 255].sum(),
    "item": lambda logits, target: logits.sum() / (target != 255).sum().item(),
    "float64": lambda logits, target: logits.double().sum().float(),
    "if": lambda logits, target: logits.sum() if (target != 255).any() else 0 * logits.sum(),
    "copy to the CPU": lambda logits, target: logits.sum() * target.cpu().sum(),
    "equal": lambda logits, target: logits.sum() * torch.equal(target, target),
    "upload": lambda logits, target: (logits * torch.tensor([2.0], device=logits.device)).sum(),
}


def metrics() -> list[dict[str, Any]]:
    rows = []
    for task in TASKS:
        logits, target = batch(task)
        here, there = (SegmentationMetrics(task.name, task.class_names, task.ignore_index).to(device) for device in ("cpu", "npu"))
        logits_npu, target_npu = logits.to("npu"), target.to("npu")
        notes = noted(lambda metric=there, args=(logits_npu, target_npu): metric.update(*args))
        for _ in range(2):
            here.update(logits, target)
        rows.append({"metrics": task.name, "notes": notes, "same": here.compute() == there.compute()})
    return rows


def inference() -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    image = torch.randn(1, 3, 96, 128)
    config = InferenceConfig(tile=[64, 64], flips=["horizontal", "vertical"])
    with torch.inference_mode():
        expected = Inference(model, config)(image)
        infer, on_npu = Inference(model.to("npu"), config), image.to("npu")
        found = infer(on_npu)
        notes = noted(lambda: infer(on_npu))
    return {"notes": notes, "off": float((found.cpu() - expected).abs().max())}


def device() -> dict[str, bool]:
    """The simulation itself: what it computes, it computes in place."""
    norms = {where: nn.BatchNorm2d(3).to(where) for where in ("cpu", "npu")}
    x = torch.randn(4, 3, 5, 5)
    for where, norm in norms.items():
        norm(x.to(where))
    base = torch.arange(6.0, device="npu").reshape(2, 3)
    base.t()[0].mul_(10)
    out = torch.empty(0, device="npu")
    torch.add(base, 1, out=out)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(torch.rand(4, device="npu"))
    with torch.autocast("npu", torch.bfloat16):
        kinds = [nn.functional.linear(base, base).dtype, base.softmax(1).dtype, (base @ base.t()).exp().dtype]
    return {
        "running statistics": torch.equal(norms["npu"].running_var.cpu(), norms["cpu"].running_var)
        and bool(norms["npu"].running_mean.any()),
        "writes through views": base.cpu().tolist() == [[0.0, 1.0, 2.0], [30.0, 4.0, 5.0]],
        "resizes outputs": torch.equal(out.cpu(), base.cpu() + 1),
        "seeds": torch.equal(*drawn) and not torch.equal(drawn[0], torch.rand(4, device="npu")),
        "autocast": kinds == [torch.bfloat16, torch.float32, torch.float32],
        "stays on the device": all(tensor.device.type == "npu" for tensor in (base, out, *drawn)),
    }


if __name__ == "__main__":
    logits, target = batch(TASKS[1])
    spoilt = {name: of_loss(Spoilt(how), logits, target, "npu")[2] for name, how in SPOILT.items()}
    found = {"device": device(), "spoilt": spoilt, "losses": losses(), "metrics": metrics(), "inference": inference()}
    answer(found)
