"""The simulated NPU, built once in a session, and processes that see it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from torch.utils import cpp_extension

from tests.conftest import ROOT

SOURCES = Path(__file__).parent / "simulated"


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for PYTHONPATH in which `import torch_npu` gives the simulation."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("CI without a C++ compiler: the simulated NPU cannot be built")
        pytest.skip("NOT TESTED on the simulated NPU: no C++ compiler (g++, or what CXX names)")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "simulated_npu"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:  # the other process of pytest-xdist waits for this one's
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "npu.so").exists():
            build(compiler, folder / "npu.so.part")
            (folder / "npu.so.part").rename(folder / "npu.so")
            (folder / "torch_npu").symlink_to(SOURCES / "torch_npu")
            pretend_installed(folder, metadata.version("torch"))
    return folder


def build(compiler: str, target: Path) -> None:
    includes = [f"-I{path}" for path in cpp_extension.include_paths()]
    libraries = [word for path in cpp_extension.library_paths() for word in (f"-L{path}", f"-Wl,-rpath,{path}")]
    source = [str(SOURCES / "npu.cpp"), "-o", str(target)]
    command = [compiler, "-O0", "-w", "-std=c++20", "-shared", "-fPIC", *includes, *source, *libraries, "-lc10", "-ltorch_cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def pretend_installed(folder: Path, version: str) -> None:
    """What pip leaves of torch_npu beside its code: its version, and that torch is to load it."""
    about = folder / f"torch_npu-{version}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch_npu\nVersion: {version}\n")
    (about / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")


def environment(simulation: Path, **extra: str) -> dict[str, str]:
    path = os.pathsep.join([str(simulation), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {"PYTHONPATH": path, "ASCEND_HOME_PATH": str(simulation), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "OMP_NUM_THREADS": "1", **extra}


@pytest.fixture
def on_npu(simulation: Path, tmp_path: Path) -> Callable[..., Any]:
    """`on_npu("contract", ...)` runs a program of tests.accelerators.on_npu, and returns what it printed."""

    def run(program: str, *arguments: str, **extra: str) -> Any:
        command = [sys.executable, "-m", f"tests.accelerators.on_npu.{program}", str(tmp_path), *arguments]
        env = {**os.environ, **environment(simulation, **extra)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
