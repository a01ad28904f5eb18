"""The two files with a graph, each written and read again by who will read it."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import torch

from segfocal.data.source import Array
from segfocal.errors import UserError, first_line
from segfocal.export.graph import quietly
from segfocal.export.parity import Run
from segfocal.shared_weights import INSTALL

OPSET = 18
ONE_FILE = 2**31 - 2**24  # bytes; protobuf ends there
EXTRA = "segfocal.json"


def needs(kind: str) -> None:
    """Raise UserError where what a format is written or checked with is not installed."""
    wanted = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",)}.get(kind, ())
    if missing := [name for name in wanted if importlib.util.find_spec(name) is None]:
        raise UserError(f"format={kind}: {' and '.join(missing)} not installed: {INSTALL}")


def write_torch_export(program: torch.export.ExportedProgram, about: dict[str, Any], path: Path) -> Run:
    """Write what torch.export.load reads; returns what runs it."""
    packed = io.BytesIO()  # to memory first: of a full disk torch would make an error of its own
    with quietly():
        torch.export.save(program, packed, extra_files={EXTRA: json.dumps(about)})
    path.write_bytes(packed.getvalue())
    with quietly():
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def run(image: Array) -> tuple[Array, Array]:
        with torch.inference_mode():
            logits, probabilities = module(torch.from_numpy(image))
        return logits.numpy(), probabilities.numpy()

    return run


def write_onnx(program: torch.export.ExportedProgram, about: dict[str, Any], path: Path) -> Run:
    """Write ONNX in one file; returns what runs it.

    Raises:
        UserError: it is too large, an operator has no counterpart, or the file is not valid.
    """
    import onnx
    import onnxruntime

    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if size > ONE_FILE:
        raise UserError(f"format=onnx: {size / 1e9:.1f} GB of weights do not go into one file of ONNX: format=torch_export")
    try:
        with quietly():
            made = torch.onnx.export(
                program, input_names=["image"], output_names=["logits", "probabilities"], opset_version=OPSET, dynamo=True, verbose=False
            )
            assert made is not None
            model = made.model_proto
        tidy(model, about)
        onnx.checker.check_model(model, full_check=True)
        packed = model.SerializeToString(deterministic=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it meets is said in our line
        session = onnxruntime.InferenceSession(packed, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of the exporter, the checker, the runtime
        raise UserError(f"cannot be written as ONNX ({first_line(error)}): format=torch_export may do") from None
    path.write_bytes(packed)

    def run(image: Array) -> tuple[Array, Array]:
        logits, probabilities = session.run(["logits", "probabilities"], {"image": image})
        return logits, probabilities

    return run


def tidy(model: Any, about: dict[str, Any]) -> None:
    """Leave out what the exporter says of its own work, and say what one has to know to use the model."""
    import onnx

    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:]
    dims = [dim for value in (*model.graph.input, *model.graph.output) for dim in value.type.tensor_type.shape.dim]
    names = {dim.dim_param: name for dim, name in zip(dims, ("batch", "channels", "height", "width"), strict=False) if dim.dim_param}
    for dim in dims:
        if dim.dim_param:
            dim.dim_param = names[dim.dim_param]
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
