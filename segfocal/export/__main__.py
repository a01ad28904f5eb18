"""Write a trained model as a file that others can use: ONNX, PyTorch's own export, or bare weights.

    python -m segfocal.export ckpt=runs/<run>                                  the best checkpoint as ONNX, beside it
    python -m segfocal.export ckpt=runs/<run> normalise=true out=crack.onnx    which takes pixels of 0..255
    python -m segfocal.export ckpt=best.ckpt format=torch_export out=crack.pt2
    python -m segfocal.export ckpt=best.ckpt format=safetensors out=crack.safetensors

format     onnx (default), torch_export, safetensors
out        the file; beside the checkpoint where it is not said
normalise  true puts the division by 255, mean and std of the data into the graph
size       [H,W] for the few models that take one size alone; else height and width are any multiples of 32
overwrite  true replaces a file that is there

What is written is compared with the model that it was made of, in several sizes and numbers of images, and kept only where they agree.
The exit code is 2 for what cannot be exported. More in docs/export.md.
"""

from __future__ import annotations

import sys

from segfocal.cli import command, refuse_flags
from segfocal.config.export import ExportConfig
from segfocal.config.parse import parse_sweep


def run(overrides: list[str]) -> str:
    """Export what the overrides name; returns what there is to say of it.

    Raises:
        UserError: with a line for each mistake.
    """
    refuse_flags(overrides, "segfocal.export")
    ((_, config),) = parse_sweep(ExportConfig, "export", overrides, 1)
    from segfocal.export.command import export  # torch comes with it: not before the configuration is right

    return "\n".join(f"{name:<11} {text}" for name, text in export(config).items())


if __name__ == "__main__":
    command(run, sys.argv[1:], __doc__)
