"""`data=streaming`: a pack gives what was packed, from a folder, from a store, to any number of processes."""

from __future__ import annotations

import functools
import http.server
import json
import multiprocessing
import pickle
import shutil
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tifffile
import torch
from filelock import FileLock
from PIL import Image

from segfocal.config.augment import AugmentConfig
from segfocal.config.data import DataConfig
from segfocal.config.layouts import FolderConfig
from segfocal.config.parse import mistakes, parse_sweep
from segfocal.config.run import TrainConfig
from segfocal.config.sampling import RareClassConfig, UniformConfig
from segfocal.config.streaming import StreamingConfig
from segfocal.config.task import TaskConfig
from segfocal.data.datamodule import SegmentationData
from segfocal.data.measure import measure
from segfocal.data.packed import decode, encode
from segfocal.data.sampling import WINDOW, EpochSampler
from segfocal.data.source import Source
from segfocal.errors import UserError
from segfocal.pack import pack
from tests.conftest import blobs, write_folder
from tests.data.test_pipeline import EVERYTHING

TASK = TaskConfig(name="binary", classes=["blob"])
FOLDER = ["data=folder", "task.classes=[blob]", "data.label_map={0:0,255:1}"]


def opened(config: DataConfig, task: TaskConfig = TASK, channels: int = 3, workers: int = 0, **settings: Any) -> SegmentationData:
    return SegmentationData(config, AugmentConfig(name="none"), task, channels, workers, 0, **settings)


def streamed(root: Path | str, **settings: Any) -> SegmentationData:
    return opened(StreamingConfig(root=str(root), **settings))


def packed(root: Path, out: Path, *overrides: str, shard_bytes: int = 5000) -> Path:
    ((_, config),) = parse_sweep(TrainConfig, "train", [*(overrides or FOLDER), f"data.root={root}"], 1)
    pack(config, out, shard_bytes)
    return out


@pytest.fixture
def made(folder: Path, tmp_path: Path) -> Path:
    return packed(folder, tmp_path / "pack")


def same(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> bool:
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# --- what is read ----------------------------------------------------------------------------------------------------------------


def test_samples_are_those_that_were_packed(folder: Path, made: Path) -> None:
    before = opened(FolderConfig(root=str(folder), label_map={0: 0, 255: 1})).sources
    after = streamed(made).sources
    assert list(after) == list(before)
    for split, source in before.items():
        found = after[split]
        assert found.names == source.names
        for index in range(len(source)):
            assert same(found.read(index), source.read(index))
            assert found.size(index) == source.size(index)
            for one, other in zip(vars(found.known(index)).values(), vars(measure(*source.read(index), TASK)).values(), strict=True):
                assert np.array_equal(one, other)
    assert len({source.identity(index) for source in after.values() for index in range(len(source))}) == 12


@pytest.mark.parametrize(("channels", "kind"), [(1, np.uint8), (3, np.uint16), (5, np.float32)])
@pytest.mark.parametrize("task", ["task=binary 1", "task=multiclass 4", "task=multilabel 1", "task=multilabel 3"])
def test_any_image_and_any_mask(tmp_path: Path, channels: int, kind: type, task: str) -> None:
    mode, count = task.split()
    classes = [f"class{number}" for number in range(int(count))]
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        image = rng.integers(0, 200, (40, 50, channels)).astype(kind)
        (tmp_path / "images" / split).mkdir(parents=True)
        tifffile.imwrite(
            tmp_path / "images" / split / f"{split}.tif", image, photometric="minisblack", planarconfig="contig" if channels > 1 else None
        )
        for name in classes if mode == "task=multilabel" else [""]:
            mask = rng.integers(0, 2 if count == "1" or mode == "task=multilabel" else 4, (40, 50), dtype=np.uint8)
            mask[0] = 255
            (tmp_path / "masks" / split / name).mkdir(parents=True)
            Image.fromarray(mask).save(tmp_path / "masks" / split / name / f"{split}.png")
    settings = [mode, f"task.classes=[{','.join(classes)}]", f"model.in_channels={channels}", "data=folder"]
    out = packed(tmp_path, tmp_path / "pack", *settings)
    wanted = TaskConfig(name=mode.removeprefix("task="), classes=classes)
    before = opened(FolderConfig(root=str(tmp_path)), wanted, channels).sources["train"].read(0)
    found = opened(StreamingConfig(root=str(out)), wanted, channels).sources["train"].read(0)
    assert same(before, found)
    assert found[0].shape == (40, 50, channels)
    assert found[1].shape == ((40, 50, int(count)) if mode == "task=multilabel" else (40, 50))
    torch.from_numpy(found[1])  # warns, and so fails here, of what must not be written to


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (7, 5, 1), (7, 5, 6)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_pixels_are_stored_without_loss(shape: tuple[int, ...], kind: type) -> None:
    array = (np.random.default_rng(0).random(shape) * 255).astype(kind)
    assert same((decode(encode(array)),), (array,))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("sampling", [UniformConfig(), RareClassConfig()], ids=lambda config: config.name)
def test_batches_are_those_of_what_was_packed(folder: Path, made: Path, workers: int, sampling: Any) -> None:
    """Up to `WINDOW` shards, also in their order."""

    def batches(config: DataConfig, workers: int) -> list[torch.Tensor]:
        data = SegmentationData(config, EVERYTHING, TASK, 3, workers, 0, sampling=sampling)
        loader = data.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(2)
        return [tensor for batch in loader for tensor in batch]

    settings: dict[str, Any] = {"crop": [32, 32], "batch_size": 2}
    before = batches(FolderConfig(root=str(folder), label_map={0: 0, 255: 1}, **settings), 0)
    after = batches(StreamingConfig(root=str(made), **settings), workers)
    assert len(before) == 9
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


def reads(data: SegmentationData, monkeypatch: pytest.MonkeyPatch) -> int:
    found = []
    for source in data.sources.values():
        real = source.read
        monkeypatch.setattr(source, "read", lambda index, real=real: found.append(index) or real(index))
    data.check()
    return len(found)


def test_nothing_is_read_in_advance_unless_a_full_check_is_asked_for(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(streamed(made), monkeypatch) == 0
    assert streamed(made).check()["train"].positives.tolist() == [6 * 140]
    assert reads(streamed(made, check="full"), monkeypatch) == 12


def test_a_limit_and_a_pickled_source_are_fine(made: Path) -> None:
    limited = streamed(made, limit=2)
    assert limited.check()["train"].images == 2
    assert len(list(limited.train_dataloader())) == 1
    source = streamed(made).sources["train"]
    first = source.read(5)
    assert same(pickle.loads(pickle.dumps(source)).read(5), first)


def test_a_pack_says_how_its_files_were_read(folder: Path, made: Path, tmp_path: Path) -> None:
    """Also one that was made of a pack."""
    half = packed(folder, tmp_path / "half", *FOLDER, "data.scale=0.5", "data.exif=ignore")
    again = packed(half, tmp_path / "again", "data=streaming", "task.classes=[blob]")
    assert streamed(half).reading == streamed(again).reading == {"exif": "ignore", "scale": 0.5}
    assert streamed(again).sources["train"].size(0) == (32, 32)
    older = json.loads((made / "pack.json").read_text())
    (made / "pack.json").write_text(json.dumps({key: value for key, value in older.items() if key not in ("exif", "scale")}))
    assert streamed(made).reading == {"exif": None, "scale": None}


def test_data_for_testing_alone_can_be_packed(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (folder / f"{split}.txt").unlink()
    out = packed(folder, tmp_path / "pack", *FOLDER)
    assert {split: len(source) for split, source in streamed(out).sources.items()} == {"test": 3}


def test_a_pack_can_be_packed(made: Path, tmp_path: Path) -> None:
    again = packed(made, tmp_path / "again", "data=streaming", "task.classes=[blob]", shard_bytes=100)
    assert len(streamed(again).sources["train"].blocks) == 6
    assert all(same(streamed(made).sources["val"].read(index), streamed(again).sources["val"].read(index)) for index in range(3))


# --- the order of training ---------------------------------------------------------------------------------------------------


BLOCKS = [10, 3, 12, 9, 11] * 8


def drawn(epoch: int = 0, seed: int = 0, blocks: list[int] | None = BLOCKS, share: float = 0.0) -> list[int]:
    total = sum(BLOCKS)
    sampler = EpochSampler(total, seed, share, aimed=(lambda rng: (int(rng.integers(total)), (0, 0))) if share else None)
    sampler.blocks = blocks
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert keys == list(sampler)
    return [key.sample for key in keys]


def fetched(samples: list[int], kept: int) -> int:
    """Shards that are fetched where those last used are kept."""
    shelf: OrderedDict[int, None] = OrderedDict()
    count = 0
    for shard in np.searchsorted(np.cumsum(BLOCKS), samples, "right").tolist():
        count += shard not in shelf
        shelf[shard] = None
        shelf.move_to_end(shard)
        if len(shelf) > kept:
            shelf.popitem(last=False)
    return count


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own() -> None:
    assert sorted(drawn()) == list(range(sum(BLOCKS)))
    assert drawn() == drawn()
    assert len({tuple(drawn(epoch, seed)) for epoch in range(3) for seed in range(3)}) == 9


def test_each_epoch_goes_through_the_shards_in_another_order() -> None:
    firsts = [set(np.searchsorted(np.cumsum(BLOCKS), drawn(epoch)[:40], "right").tolist()) for epoch in range(4)]
    assert all(len(shards) <= 2 * WINDOW for shards in firsts)
    assert all(len(one & other) < WINDOW for number, one in enumerate(firsts) for other in firsts[:number])


@pytest.mark.parametrize(("share", "most"), [(0.0, 1.6), (0.5, 2.0)])
def test_shards_are_fetched_hardly_more_than_once_an_epoch(share: float, most: float) -> None:
    """With room for two windows; without shards in mind nearly every sample fetches one."""
    for epoch in range(5):
        assert fetched(drawn(epoch, share=share), 2 * WINDOW) <= most * len(BLOCKS)
        assert fetched(drawn(epoch, blocks=None, share=share), 2 * WINDOW) > 4 * len(BLOCKS)


def test_neighbours_in_a_shard_are_not_neighbours_in_a_batch() -> None:
    shards = np.searchsorted(np.cumsum(BLOCKS), drawn(), "right")
    batches = shards[: len(shards) // 8 * 8].reshape(-1, 8)
    different = [len(set(batch)) for batch in batches.tolist()]
    assert np.mean(different) > 4
    assert min(different) >= 2


def test_few_shards_are_in_the_order_of_any_other_source() -> None:
    assert drawn(blocks=[sum(BLOCKS) - 7] + [1] * (WINDOW - 1)) == drawn(blocks=None)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_aims_are_as_many_and_spread_as_evenly(share: float) -> None:
    total = sum(BLOCKS)
    sampler = EpochSampler(total, 0, share, aimed=lambda rng: (int(rng.integers(total)), (1, 1)))
    pattern = [key.point is not None for key in sampler]
    sampler.blocks = BLOCKS
    keys = list(sampler)
    assert [key.point is not None for key in keys] == pattern
    assert len(set(keys)) == total  # what is shown again has another number


def test_training_takes_the_order_of_shards(tmp_path: Path) -> None:
    root = tmp_path / "many"
    write_folder(root, blobs(40, size=(32, 32)))
    out = packed(root, tmp_path / "pack", "data=folder", "task.classes=[blob]", "data.fractions=[0.9,0.1,0]", shard_bytes=2500)
    config = StreamingConfig(root=str(out), batch_size=4, crop=[32, 32])
    source = opened(config).sources["train"]
    assert len(source.blocks) > WINDOW
    assert sum(source.blocks) == len(source) == 36

    def indices(workers: int) -> list[int]:
        return [int(index) for batch in opened(config, workers=workers).train_dataloader() for index in batch.indices]

    sampler = EpochSampler(36, 0)
    sampler.blocks = source.blocks
    assert indices(0) == indices(2) == [key.sample for key in sampler]


# --- shards behind a URL -----------------------------------------------------------------------------------------------------


def shards_in(room: Path) -> list[Path]:
    return sorted(room.rglob("*.bin"))


def test_a_shard_is_copied_when_it_is_first_needed(made: Path, tmp_path: Path) -> None:
    room = tmp_path / "room"
    source = streamed(f"local:{made}", shards_dir=str(room)).sources["train"]
    assert shards_in(room) == []
    direct = streamed(made).sources["train"]
    assert same(source.read(5), direct.read(5))
    assert [path.name for path in shards_in(room)] == [Path(source.shards[-1].file).name]
    for path in (made / "train").glob("*.bin"):
        path.unlink()
    assert same(streamed(f"local:{made}", shards_dir=str(room)).sources["train"].read(5), source.read(5))
    with pytest.raises(UserError, match=r"chunk-0-0.bin: cannot be copied: .*No such file") as error:
        source.read(0)
    assert "\n" not in str(error.value)
    assert not list(room.rglob("*.part"))


def test_another_pack_at_the_same_url_is_not_read_from_old_copies(folder: Path, made: Path, tmp_path: Path) -> None:
    room = tmp_path / "room"
    first = streamed(f"local:{made}", shards_dir=str(room)).sources["train"].read(0)
    made.rename(tmp_path / "old")
    packed(folder, made, "data=folder", "task.classes=[blob]", "data.label_map={0:1,255:0}")
    image, mask = streamed(f"local:{made}", shards_dir=str(room)).sources["train"].read(0)
    assert same((image,), first[:1])
    assert np.array_equal(mask, 1 - first[1])


def test_copies_are_kept_in_the_users_cache(made: Path, tmp_path: Path) -> None:
    streamed(f"local:{made}").sources["train"].read(0)
    assert len(shards_in(tmp_path / "cache" / "segfocal" / "shards")) == 1


def test_those_not_used_for_longest_make_room(made: Path, tmp_path: Path) -> None:
    room = tmp_path / "room"
    source = streamed(f"local:{made}", shards_dir=str(room), shards_gb=9e-6).sources["train"]
    direct = streamed(made).sources["train"]
    assert sum(shard.bytes for shard in source.shards) > 9000
    for index in [0, 1, 2, 3, 4, 5, 0, 5, 1, 4]:
        assert same(source.read(index), direct.read(index))
        assert sum(path.stat().st_size for path in shards_in(room)) <= 9000


def test_what_has_been_used_since_stays(made: Path, tmp_path: Path) -> None:
    room = tmp_path / "room"
    lengths = [shard.bytes for shard in streamed(made).sources["train"].shards]
    assert len(lengths) >= 3
    budget = lengths[0] + max(lengths[1:]) + 1
    source = streamed(f"local:{made}", shards_dir=str(room), shards_gb=budget / 1e9).sources["train"]
    firsts = source.starts.tolist()
    for shard in (0, 1, 0, 2):
        source.read(firsts[shard])
    assert [path.name for path in shards_in(room)] == ["chunk-0-0.bin", "chunk-0-2.bin"]


def test_a_copy_that_breaks_off_leaves_nothing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "room"
    source = streamed(f"local:{made}", shards_dir=str(room)).sources["train"]

    def broken(whole: Any, part: Any) -> None:
        part.write(whole.read(100))
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as during:
        during.setattr(shutil, "copyfileobj", broken)
        with pytest.raises(UserError, match="chunk-0-0.bin: cannot be copied: .*Input/output error"):
            source.read(0)
    assert not [path for path in room.rglob("chunk*") if path.suffix != ".lock"]
    assert same(source.read(0), streamed(made).sources["train"].read(0))


def test_room_is_made_of_what_was_left_behind_not_of_what_is_being_copied(made: Path, tmp_path: Path) -> None:
    room = tmp_path / "room"
    source = streamed(f"local:{made}", shards_dir=str(room), shards_gb=1e-9).sources["train"]
    source.read(0)
    (first,) = shards_in(room)
    part = first.with_name("chunk-0-1.bin.1234.part")
    part.write_bytes(b"half of it")
    with FileLock(first.with_name("chunk-0-1.bin.lock")):  # as another process does
        source.read(5)
        assert part.exists()
    source.read(0)
    assert not part.exists()


def _read_all(source: Source, wanted: list[bytes], order: list[int], wrong: Any) -> None:
    for index in order:
        if source.read(index)[0].tobytes() != wanted[index]:
            wrong.put(index)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_share_the_copies_though_they_push_each_other_out(made: Path, tmp_path: Path, start: str) -> None:
    room = tmp_path / "room"
    source = streamed(f"local:{made}", shards_dir=str(room), shards_gb=9e-6).sources["train"]
    wanted = [streamed(made).sources["train"].read(index)[0].tobytes() for index in range(6)]
    context = multiprocessing.get_context(start)
    wrong = context.SimpleQueue()
    orders = [np.random.default_rng(seed).integers(0, 6, 60).tolist() for seed in range(2)]
    processes = [context.Process(target=_read_all, args=(source, wanted, order, wrong)) for order in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert wrong.empty()
    assert not list(room.rglob("*.part"))


class Bucket(http.server.SimpleHTTPRequestHandler):
    """As much of an object store as reading needs."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *_: Any) -> None:
        self.asked.append(f"{self.command} {self.path}")

    def end_headers(self) -> None:
        self.send_header("ETag", '"none"')
        super().end_headers()


@pytest.fixture
def store(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 endpoint whose bucket `bucket` holds the pack."""
    (made.parent / "buckets").mkdir()
    made.rename(made.parent / "buckets" / "bucket")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Bucket, directory=str(made.parent / "buckets")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    Bucket.asked.clear()
    yield "s3://bucket"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_pack_in_an_object_store(store: str, folder: Path, tmp_path: Path) -> None:
    config = StreamingConfig(root=store, shards_dir=str(tmp_path / "room"), batch_size=2, crop=[64, 64])
    data = opened(config, workers=1)
    data.check()
    assert not any("chunk" in request for request in Bucket.asked)
    found = sorted(int(index) for batch in data.train_dataloader() for index in batch.indices)
    assert found == list(range(6))
    shards = [request for request in Bucket.asked if request.startswith("GET") and "train/chunk" in request]
    assert len(shards) == len(set(shards)) == len(data.sources["train"].blocks)
    before = opened(FolderConfig(root=str(folder), label_map={0: 0, 255: 1})).sources["test"].read(1)
    assert same(data.sources["test"].read(1), before)
    with pytest.raises(UserError, match=r"^s3://bucket/no/pack.json: cannot be copied: .*404.*Not Found$"):
        streamed(f"{store}/no")


# --- what cannot be read -----------------------------------------------------------------------------------------------------


def damage(made: Path, kind: str) -> None:
    shard, about = made / "train" / "chunk-0-0.bin", made / "pack.json"
    content = bytearray(shard.read_bytes())
    if kind == "missing shard":
        shard.unlink()
    elif kind == "short shard":
        shard.write_bytes(content[:-100])
    elif kind == "changed byte":
        content[200] ^= 1
        shard.write_bytes(content)
    elif kind == "newer":
        about.write_text(json.dumps({**json.loads(about.read_text()), "format": 2}))
    elif kind == "no description":
        about.write_text("{}")
    elif kind == "leads elsewhere":
        about.write_text(about.read_text().replace("train/chunk-0-0.bin", "../../chunk-0-0.bin"))
    elif kind == "lies elsewhere":
        about.write_text(json.dumps({**json.loads(about.read_text()), "digest": "../.."}))
    elif kind == "list":
        about.write_text("[]")
    elif kind == "no samples":
        (made / "train" / "samples.npz").unlink()
    elif kind == "damaged samples":
        (made / "train" / "samples.npz").write_bytes(b"PK" + b"0" * 200)
    elif kind == "no pack":
        about.unlink()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing shard", "pack/train/chunk-0-0.bin: No such file or directory: the pack is not complete: copy the pack again"),
        ("short shard", r"pack/train/chunk-0-0.bin: \d+ bytes, where it had \d+: copy the pack again, or pack again"),
        ("changed byte", "pack/train/chunk-0-0.bin: photo_00 is damaged: copy the pack again, or pack again"),
        ("newer", "pack/pack.json: a pack of format 2, this version reads 1"),
        ("no description", "pack/pack.json: not the description of a pack, or damaged"),
        ("leads elsewhere", "pack/pack.json: not the description of a pack, or damaged"),
        ("lies elsewhere", "pack/pack.json: not the description of a pack, or damaged"),
        ("list", "pack/pack.json: not the description of a pack, or damaged"),
        ("no samples", "pack/train/samples.npz: No such file or directory: the pack is not complete"),
        ("damaged samples", r"pack/train/samples.npz: damaged \("),
        ("no pack", "pack: no pack: pack.json: No such file or directory"),
    ],
)
def test_a_pack_that_cannot_be_read_is_one_line(made: Path, kind: str, said: str) -> None:
    damage(made, kind)
    with pytest.raises(UserError, match=said) as error:
        streamed(made).sources["train"].read(0)
    assert "\n" not in str(error.value)


def test_a_damaged_copy_says_that_it_can_be_removed(made: Path, tmp_path: Path) -> None:
    source = streamed(f"local:{made}", shards_dir=str(tmp_path / "room")).sources["train"]
    right = source.read(0)
    (copy,) = shards_in(tmp_path / "room")
    copy.write_bytes(b"x" * copy.stat().st_size)
    with pytest.raises(UserError, match="chunk-0-0.bin: photo_00 is damaged: remove it, and it is copied again"):
        source.read(0)
    copy.unlink()
    assert same(source.read(0), right)


@pytest.mark.parametrize(
    ("task", "channels", "said"),
    [
        (TaskConfig(name="binary", classes=["crack"]), 3, r"say 'task.classes=\[blob\]', or pack"),
        (TaskConfig(name="binary", classes=["blob"], ignore_index=9), 3, "say task.ignore_index=255, or pack"),
        (TASK, 1, "but this run has model.in_channels=1: say model.in_channels=3, or pack"),
        (TaskConfig(name="multiclass", classes=["a", "b"]), 3, r"say task=binary 'task.classes=\[blob\]', or pack"),
    ],
)
def test_a_pack_for_another_task_says_what_it_is_for(made: Path, task: TaskConfig, channels: int, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        opened(StreamingConfig(root=str(made)), task, channels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "data.root is not said"),
        (["data.root=https://example.org/pack"], "a pack is read from a folder or from s3://, gs://"),
        (["data.root=/pack", "data.shards_gb=0"], "data.shards_gb=0"),
    ],
)
def test_mistakes_in_the_configuration(overrides: list[str], said: str) -> None:
    (line,) = mistakes(TrainConfig, "train", ["data=streaming", "task.classes=[blob]", *overrides])
    assert said in line


def test_a_store_needs_litdata_and_a_folder_does_not(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "litdata", None)
    monkeypatch.setitem(sys.modules, "litdata.streaming.downloader", None)
    assert streamed(made).sources["train"].read(0)[0].shape == (64, 64, 3)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '.\[streaming\]'") as error:
        streamed("s3://other-bucket/pack", shards_dir=str(tmp_path))
    assert "\n" not in str(error.value)
