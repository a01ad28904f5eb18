"""What several tests use: the command line as a user runs it, and small data sets on disk."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.forked import Command, Server

torch.set_num_threads(1)  # what is tested is small: threads would only wait for each other
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script: what is started here would not hear it, either
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Dealt out one by one, the tests of a group would prepare what they share once in each process: some releases do so, and say nothing.

    What has been imported by now stays: looking through it for garbage, again and again, takes a sixth of the time of tests.
    """
    gc.collect()
    gc.freeze()
    if "PYTEST_XDIST_WORKER" in os.environ:
        alone = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        assert not alone, f"pytest and pytest-xdist do not go together: {alone[0]} is in no group"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test knows what another has measured; but matplotlib would look for fonts in each."""
    monkeypatch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@dataclass
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str


def run(*words: str, cwd: Path, env: dict[str, str] | None = None) -> Result:
    """`python <words>` of this program, to its end; in a process of its own that need not import torch first."""
    with started(*words, cwd=cwd, env=env) as process:
        return process.result()


@contextmanager
def started(*words: str, cwd: Path, env: dict[str, str] | None = None) -> Iterator[Started]:
    """`python <words>` of this program, while it runs."""
    with tempfile.TemporaryDirectory() as folder:
        process = Started(Path(folder), [*words], cwd, {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})})
        try:
            yield process
        finally:
            process.end()


class Started:
    """A command that runs.

    Args:
        pid: of its process, which leads a group of its own.
        out, err: what it has printed so far.
    """

    def __init__(self, folder: Path, words: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.out.touch()
        self.err.touch()
        self.server = Server.running()
        self.pid = self.server.start(Command(words, str(cwd), env, str(self.out), str(self.err)))
        self.code: int | None = None

    def result(self) -> Result:
        """What it comes to."""
        if self.code is None:
            self.code = self.server.wait(self.pid)
        return Result(self.code, *(path.read_text(errors="backslashreplace") for path in (self.out, self.err)))

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        if self.code is None:
            self.code = self.server.poll(self.pid)
        return self.code is None

    def kill(self) -> None:
        """It and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Where a test has failed, it may still run."""
        if self.code is None:
            self.kill()
            self.code = self.server.wait(self.pid)


def in_one_process(commands: list[tuple[str, dict[str, str], list[str]]], cwd: Path, env: dict[str, str]) -> list[Result]:
    """What commands come to, each a program, its environment and its arguments, by `tests.commands`."""
    asked = cwd / "commands.json"
    asked.write_text(json.dumps(commands))
    done = run("-m", "tests.commands", str(asked), cwd=cwd, env=env)
    assert done.code == 0, done.err[-3000:]
    return [Result(*answer) for answer in json.loads(asked.with_suffix(".out").read_text())]


def spawn(*words: str, cwd: Path, env: dict[str, str] | None = None) -> Result:
    """`python <words>`, from its first import on."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Result]:
    """`cli("train", "loss=focal")` runs train.py in an empty directory."""

    def call(program: str, *overrides: str, **env: str) -> Result:
        return run(str(ROOT / f"{program}.py"), *overrides, cwd=tmp_path, env=env)

    return call


def blobs(count: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noisy images with a bright rectangle, and its mask of 0 and 1."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        image = rng.integers(0, 90, (*size, 3), dtype=np.uint8)
        mask = np.zeros(size, np.uint8)
        top, left = rng.integers(4, size[0] - 20), rng.integers(4, size[1] - 20)
        mask[top : top + 10, left : left + 14] = 1
        image[mask == 1] += 120
        samples.append((image, mask))
    return samples


def write_folder(root: Path, samples: list[tuple[np.ndarray, np.ndarray]], scale: int = 1, split: str = "") -> list[str]:
    """images/ and masks/ of `data=folder`; mask values are multiplied by `scale`."""
    names = []
    for number, (image, mask) in enumerate(samples):
        name = f"{split or 'photo'}_{number:02d}"
        for folder, array, suffix in (("images", image, "jpg"), ("masks", mask * scale, "png")):
            path = root / folder / split / f"{name}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
        names.append(name)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pairs with masks of 0 and 255 and split files."""
    root = tmp_path / "dataset"
    names = write_folder(root, blobs(12), scale=255)
    for split, part in {"train": names[:6], "val": names[6:9], "test": names[9:]}.items():
        (root / f"{split}.txt").write_text("\n".join(part) + "\n")
    return root


def installed(package: str, extra: str) -> None:
    """Go on only with a package that an extra brings; CI has them all, and says so where it has not."""
    if importlib.util.find_spec(package) is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI without {package}: pip install -c constraints.txt -e '.[{extra}]'")
        pytest.skip(f"NOT TESTED with {package}: pip install -c constraints.txt -e '.[{extra}]'")


@pytest.fixture
def shared() -> Path:
    """The real data sets; CI has them, and says so where it has not."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"CI without the real data sets: {SHARED} is missing")
        pytest.skip(f"NOT TESTED on real photographs: {SHARED} is not there")
    return SHARED
