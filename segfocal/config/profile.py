"""The device of a run, and how it computes."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from segfocal.config.base import STRICT, Count, Flag, Index

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
Compile = Flag | Literal["reduce-overhead"] | None


@dataclass(config=STRICT, kw_only=True)
class ProfileConfig:
    """
    Args:
        name: the option.
        accelerator: the device; `auto` takes a GPU where there is one.
        precision: null takes what is fastest and safe on the device.
        channels_last: memory format of the convolutions.
        compile: the model in the training step, by torch.compile: true wants it, null takes it where there is a compiler, and
            `reduce-overhead` (CUDA) records CUDA graphs besides. Evaluation is not compiled: each size of image would be, anew.
        threads: that torch computes with on the CPU; null takes OMP_NUM_THREADS where it is set, else a thread for each core.
        num_workers: null takes a number from the cores.
        deterministic: true refuses operators that do not give the same bits each time, `warn` names them.
        tf32: CUDA: whether products of fp32 are taken with 10 bits of mantissa; null: yes.
        cudnn_benchmark: CUDA: whether cuDNN tries its algorithms for each new shape; null: unless `deterministic`.
    """

    name: str
    accelerator: Literal["auto", "cpu", "gpu", "npu"] = "auto"
    precision: Precision | None = None
    channels_last: Flag = True
    compile: Compile = False
    threads: Count | None = None
    num_workers: Index | None = None
    deterministic: Flag | Literal["warn"] = False
    tf32: Flag | None = None
    cudnn_benchmark: Flag | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.accelerator in ("cpu", "npu"):
            where = f"profile={self.name}"
            cuda = {"tf32": self.tf32, "cudnn_benchmark": self.cudnn_benchmark}
            problems += [
                f"profile.{key}: is about CUDA GPUs, not {where}: leave it out" for key, value in cuda.items() if value is not None
            ]
            if self.compile == "reduce-overhead":
                problems.append(f"profile.compile=reduce-overhead: records CUDA graphs, which {where} has none of: true or false")
        if self.accelerator == "cpu" and self.precision == "16-mixed":
            problems.append("profile.precision=16-mixed: a CPU does not train in fp16: bf16-mixed or 32-true")
        if self.accelerator == "npu" and self.compile is True:
            problems.append("profile.compile=true: torch.compile knows no NPU: profile.compile=false")
        if self.accelerator == "npu" and self.channels_last:
            problems.append("profile.channels_last=true: torch_npu has no such layout: profile.channels_last=false")
        if self.deterministic and self.cudnn_benchmark:
            problems.append(
                "profile.cudnn_benchmark=true: chooses by the clock, which profile.deterministic does not go with: leave one out"
            )
        if problems:
            raise ValueError("\n".join(problems))
