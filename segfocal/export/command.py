"""From a configuration to a file that has been compared with the checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from segfocal import checkpoint as checkpoints
from segfocal import shared_weights
from segfocal.config.export import STRIDE, ExportConfig
from segfocal.errors import UserError
from segfocal.export.files import OPSET, needs, write_onnx, write_torch_export
from segfocal.export.graph import traced
from segfocal.export.parity import check
from segfocal.export.place import in_place_of, target
from segfocal.export.source import Source, description, open_source
from segfocal.rundir import shown_path


def export(config: ExportConfig) -> dict[str, str]:
    """Write a checkpoint in another format.

    Returns:
        What there is to say of it, by name.

    Raises:
        UserError: anything that the user can mend; nothing is left then.
    """
    needs(config.format)
    assert config.ckpt is not None
    out = target(config, checkpoints.locate(config.ckpt, "best"))
    source = open_source(config.ckpt)
    with in_place_of(out) as file:
        said = as_weights(source, file) if config.format == "safetensors" else as_graph(source, config, file)
    return {
        "written": f"{shown_path(out)} ({config.format}, {out.stat().st_size / 1e6:.1f} MB)",
        **said,
        "sha256": checkpoints.checksum(out),
        "checkpoint": f"{shown_path(source.path)}, sha256 {source.sha256}",
    }


def as_weights(source: Source, file: Path) -> dict[str, str]:
    """The weights alone, with what is needed to use them."""
    shared_weights.write(source.content, file)
    state = shared_weights.read(file)["state_dict"]
    kept = {name: value for name, value in source.content["state_dict"].items() if name in state}
    if len(kept) != len(state) or not all(torch.equal(kept[name], value) for name, value in state.items()):
        raise UserError(f"{source.path}: weights that were read again are not those that were written: nothing is kept")
    return {"weights": f"{len(state)} tensors, the same when read again; evaluate.py and predict take them as ckpt="}


def as_graph(source: Source, config: ExportConfig, file: Path) -> dict[str, str]:
    """A graph that computes logits and probabilities."""
    write = write_onnx if config.format == "onnx" else write_torch_export
    run = write(traced(source, config), description(source, config), file)
    height, width = config.size or ("height", "width")
    pixels = "pixels of 0..255" if config.normalise else "normalised: (pixel / 255 - mean) / std"
    sizes = "" if config.size else f"; height and width are multiples of {STRIDE}"
    return {
        **({"opset": str(OPSET)} if config.format == "onnx" else {}),
        "image": f"float32 (batch, {source.architecture.in_channels}, {height}, {width}), {pixels}{sizes}",
        "gives": f"logits and probabilities, float32 (batch, {source.task.num_classes}, {height}, {width})",
        "parity": check(source, config, run),
    }
