"""The whole of a run: what `train.py` and `evaluate.py` are configured by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from segfocal.config.augment import AugmentConfig
from segfocal.config.base import STRICT, Count, Flag, Index, NonNegative, OpenFraction, allowed
from segfocal.config.data import DATA, CheckpointDataConfig, DataConfig
from segfocal.config.encoders import ARCHITECTURES, check_encoder
from segfocal.config.inference import InferenceConfig
from segfocal.config.loss import LossConfig, check_loss
from segfocal.config.metrics import MetricsConfig, objective_problems
from segfocal.config.optim import OPTIMIZERS, SCHEDULERS, OptimizerConfig, SchedulerConfig
from segfocal.config.profile import Precision, ProfileConfig
from segfocal.config.sampling import SAMPLING, SamplingConfig
from segfocal.config.strategy import STRATEGIES, StrategyConfig, strategy_problems
from segfocal.config.sweep import SweepConfig
from segfocal.config.task import TaskConfig
from segfocal.registry import LOSSES
from segfocal.rundir import unwritable


def is_auto(config: Any) -> bool:
    """Whether it is a training that goes on with itself."""
    return isinstance(config, TrainConfig) and config.ckpt == AUTO


def probability_problems(config: Any) -> list[str]:
    """A line for each loss of a training that wants probabilities, which no model here ends in; such a loss is for curves, and other code."""
    loss = getattr(config, "loss", None)
    parts = {"loss": loss, **{f"loss.terms.{name}": term for name, term in getattr(loss, "terms", {}).items()}}
    return [
        f"{key}.from_logits=false: the models here end in logits, and nothing would be learned: {key}.from_logits=true"
        for key, part in parts.items()
        if getattr(part, "from_logits", True) is False
    ]


Split = Literal["train", "val", "test"]
AUTO = "auto"  # of `ckpt`: this very run
FEWEST = 40  # draws of the bootstrap of which one lies beyond each end of a 95 % interval


@dataclass(config=STRICT, kw_only=True)
class ModelConfig:
    """
    Args:
        name: the decoder, one of segmentation-models-pytorch.
        encoder: the backbone: a name of SMP (`resnet34`) or `tu-` and a name of timm (`tu-convnext_tiny`).
        weights: what the encoder starts from: null random; `imagenet` downloaded by SMP; `efficientnet_lite0`, `_lite1` or `_lite2`
            from the packages of the extra `weights`, offline; else the path of a local file.
        in_channels: channels of the image: 1 reads everything as grey, 3 as RGB, more as they are.
        bias_prior: start the head's bias from the class frequencies of the training split (focal paper, arXiv 1708.02002, section 3.3);
            null does so for the losses of pixels that ask for it: focal, cross-entropy and most of their relatives.
    """

    name: Literal[ARCHITECTURES] = "unet"  # type: ignore[valid-type]  # the names of the installed release, tested
    encoder: str = "resnet18"
    weights: str | None = None
    in_channels: Count = 3
    bias_prior: Flag | None = None

    def __post_init__(self) -> None:
        problem = check_encoder(self.encoder)
        if problem:
            raise PydanticCustomError("encoder", "model.encoder={name}: {problem}", {"name": self.encoder, "problem": problem})


@dataclass(config=STRICT, kw_only=True)
class TrainerConfig:
    """
    Args:
        max_epochs: passes over the training split.
        precision: null takes the profile's.
        devices: how many of the machine, or their numbers, as in [0,2]; null is one, or as many as torchrun or srun have started processes.
        gradient_clip: largest norm of the gradient; 0 does not clip.
        accumulate: batches to a step of the optimiser.
        validate_every: epochs between validations; the last epoch has one in any case.
        find_batch_size: look for the largest data.batch_size up to this that fits into memory, by doubling from 2, and take it; null
            takes data.batch_size.
        find_lr: look for the rate at which the loss falls fastest, one for all weights, and take it for optimizer.lr.
        test: evaluate the best checkpoint on the test split at the end.
        nonfinite: what becomes of a step whose loss or gradient is NaN or infinite, which is never taken: `stop` ends the run, with the
            names of the samples and exit code 2; `skip` leaves the step out and goes on.
        nonfinite_limit: skipped steps in a row at which the run stops.
    """

    max_epochs: Count = 20
    precision: Precision | None = None
    devices: Count | list[Index] | None = None
    gradient_clip: NonNegative = 1.0
    accumulate: Count = 1
    validate_every: Count = 1
    find_batch_size: Annotated[int, Field(strict=True, ge=2)] | None = None
    find_lr: Flag = False
    test: Flag = True
    nonfinite: Literal["stop", "skip"] = "stop"
    nonfinite_limit: Count = 10


@dataclass(config=STRICT, kw_only=True)
class CallbacksConfig:
    """
    Args:
        name: the option.
        ema: decay of the moving average of the weights, which is what is validated and kept; `auto` averages over the last 2 % of all
            steps, 1000 at most; null has none.
        early_stopping: stop after so many validations without a better objective, an objective that is no number being none; null goes
            on to the end.
        overlays: draw so many validation images, the same after every validation.
        save_every: so many steps to a checkpoint within an epoch, for epochs of hours; null writes one at the end of each epoch, and when
            a signal ends the run.
        keep_best: so many of the best checkpoints; more than one are kept as best-<steps>.ckpt, beside best.ckpt.
        unlearned_after: after so many steps of the optimiser a line names the classes of which validation finds nothing, and what to change;
            null never does.
    """

    name: str = "default"
    ema: Annotated[OpenFraction | Literal["auto"] | None, allowed("a number between 0 and 1, auto (from the number of steps), or null")] = (
        None
    )
    early_stopping: Count | None = None
    overlays: Index = 6
    save_every: Count | None = None
    keep_best: Count = 1
    unlearned_after: Count | None = 300


@dataclass(config=STRICT, kw_only=True)
class LoggerConfig:
    """
    Args:
        csv: metrics.csv in the run directory.
        tensorboard: curves and overlays in tensorboard/ there.
    """

    csv: Flag = False
    tensorboard: Flag = False


@dataclass(config=STRICT, kw_only=True)
class TrainConfig:
    """
    Args:
        seed: order, augmentation, initial weights and splits are functions of it.
        out: where run directories are made.
        ckpt: a checkpoint or run directory that a new run goes on from; null starts afresh; `auto` goes on with the run that this very
            command has begun and not ended, in its directory, and starts where there is none.
        objective: the validation figure that chooses the best checkpoint, stops early, and is what sweeps compare.
        report: end with report.html, a page on the training and on the evaluation of its best checkpoint.
        plugins: Python modules that register losses of your own.
    """

    task: TaskConfig
    data: Annotated[DataConfig, DATA.field]
    augment: AugmentConfig
    sampling: Annotated[SamplingConfig, SAMPLING.field]
    model: ModelConfig
    loss: Annotated[LossConfig, LOSSES.field]
    optimizer: Annotated[OptimizerConfig, OPTIMIZERS.field]
    scheduler: Annotated[SchedulerConfig, SCHEDULERS.field]
    trainer: TrainerConfig
    strategy: Annotated[StrategyConfig, STRATEGIES.field]
    metrics: MetricsConfig
    inference: InferenceConfig
    profile: ProfileConfig
    callbacks: CallbacksConfig
    logger: LoggerConfig
    sweep: SweepConfig
    seed: Index = 0
    out: str = "runs"
    ckpt: str | None = None
    objective: str = "val/iou_macro"
    report: Flag = True
    plugins: list[str] = Field(default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.data, CheckpointDataConfig):
            raise ValueError("data=checkpoint is for evaluate.py: choose the data to train on, as in data=folder data.root=/path/to/data")
        problems = []
        if self.task.classes is None:
            self.task.classes = self.data.known_classes(self.task.name)
            if self.task.classes is None:
                problems = ["task.classes is not said: name the classes of the masks, as in 'task.classes=[crack]'"]
        if self.augment.rotate90 != "auto" and self.augment.rotate90 > 0 and self.data.crop and self.data.crop[0] != self.data.crop[1]:
            shown = str(self.data.crop).replace(" ", "")
            problems.append(
                f"augment.rotate90={self.augment.rotate90:g}: quarter turns want a square data.crop, not {shown}: augment.rotate90=0"
            )
        problems += self._device_problems() + self._finding_problems()
        if self.task.classes is not None:
            for objective in [self.objective, *self.sweep.also]:
                problems += objective_problems(objective, self.task.name, self.task.classes)
        problems += self.data.problems(self.task) + check_loss(self.loss, self.task) + unwritable(self.out)
        problems += strategy_problems(self.strategy, self.trainer.devices, self.profile, self.trainer.precision, self.callbacks.ema)
        if problems:
            raise ValueError("\n".join(problems))

    def _device_problems(self) -> list[str]:
        """What the profile does not go with."""
        problems = []
        if self.profile.accelerator == "cpu" and self.trainer.precision == "16-mixed":
            problems.append("trainer.precision=16-mixed: a CPU does not train in fp16: bf16-mixed or 32-true")
        if self.profile.compile == "reduce-overhead" and self.trainer.accumulate > 1:
            problems.append(
                f"trainer.accumulate={self.trainer.accumulate}: CUDA graphs overwrite the gradients that are to be summed: profile.compile=true"
            )
        return problems

    def _finding_problems(self) -> list[str]:
        """A run that goes on has its batch size and its schedule, and a search is made by one process."""
        asked = [f"trainer.{key}" for key in ("find_batch_size", "find_lr") if getattr(self.trainer, key)]
        problems = [
            f"{key}: is for a run that starts, not for one that goes on with ckpt=: leave it out"
            for key in asked
            if self.ckpt not in (None, AUTO)
        ]
        if self.strategy.name != "single":
            mend = "find it with strategy=single, then say it"
            problems += [f"{key}: is looked for on one device, not with strategy={self.strategy.name}: {mend}" for key in asked]
        return problems

    @property
    def minimise(self) -> bool:
        """Whether a smaller objective is better."""
        return self.objective == "val/loss"


@dataclass(config=STRICT, kw_only=True)
class EvaluateConfig:
    """
    Args:
        ckpt: a checkpoint file or a run directory (its best), or a list of them, which are compared with the first.
        split: the split to evaluate.
        data: other data than the checkpoint was trained on.
        overlays: draw so many images.
        boundary: also measure how well contours are met: boundary IoU and boundary F.
        bootstrap: how many times the images are drawn anew for the intervals, 40 at least; 0 gives none.
        report: write report.html.
        gallery: so many images in the report: worst, best, and by chance.
        json: print the figures as JSON, and nothing else, on standard output; what `--json` sets.
    """

    data: Annotated[DataConfig | CheckpointDataConfig, DATA.field]
    inference: InferenceConfig
    profile: ProfileConfig
    sweep: SweepConfig
    ckpt: str | list[str] | None = None
    split: Split = "test"
    out: str = "runs"
    overlays: Index = 6
    boundary: Flag = False
    bootstrap: Index = 1000
    report: Flag = True
    gallery: Index = 24
    json: Flag = False

    def __post_init__(self) -> None:
        if not self.ckpt:
            raise ValueError("ckpt is not said: which checkpoint to evaluate, as in ckpt=runs/<run> or ckpt=best.ckpt")
        if self.sweep.sampler:
            raise ValueError(f"sweep.sampler={self.sweep.sampler}: is for train.py: an evaluation has no objective")
        if len(set(self.ckpts)) != len(self.ckpts):
            raise ValueError(f"ckpt={self.ckpt}: the same checkpoint twice")
        if 0 < self.bootstrap < FEWEST:
            raise ValueError(f"bootstrap={self.bootstrap}: so few draws have no 95 % interval: {FEWEST} or more, or 0 for none")
        if problems := unwritable(self.out):
            raise ValueError(problems[0])

    @property
    def ckpts(self) -> list[str]:
        """The checkpoints, one or more."""
        return [self.ckpt] if isinstance(self.ckpt, str) else list(self.ckpt or [])
