"""Loaders whose failures are a line each: a sample that cannot be read, a worker that dies, a worker that hangs."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from segfocal.data.dataset import Batch, Collate, EightBit, Sample, SegmentationDataset
from segfocal.data.sampling import BatchesOfKeys, FromBatch, Key
from segfocal.data.shared import shared_tensor
from segfocal.errors import UserError
from segfocal.stopping import CODES

LOOK_EVERY = 1.0  # seconds between two looks at whether the workers live
WHY = {
    signal.SIGKILL: "memory ran out, most likely: fewer data.num_workers, a smaller data.batch_size or data.cache_gb",
    signal.SIGBUS: "shared memory ran out, most likely: a larger /dev/shm (of a container: --shm-size), or data.num_workers=0",
}
CRASH = "a decoder crashed, most likely: look whether other programs read the file; data.num_workers=0 shows where it happens"


class Loader(DataLoader[Batch]):
    """A DataLoader over a `Watched` dataset; see `build_loader`."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # DataLoader has it return its own kind
        """Nothing is drawn before the first batch is asked for: a run that goes on is told its epoch after its iterator was made."""
        if getattr(self._iterator, "_shutdown", False):
            self._iterator = None  # what has failed starts with new workers
        drawn = super().__iter__()  # which asks the sampler more than once
        self.batch_sampler.start = 0  # type: ignore[union-attr]  # `build_loader` gives it a FromBatch
        yield from drawn

    def begin_at(self, batch: int) -> None:
        """The next epoch that is drawn has been shown up to here."""
        if batch < len(self):
            self.batch_sampler.start = batch  # type: ignore[union-attr]  # likewise

    def state_dict(self) -> dict[str, Any]:
        """Nothing: Lightning wants a loader to have a state before it believes in going on, and its own loops know the place."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `begin_at`: Lightning makes the loader before it knows the place, and would not come here."""

    def _get_iterator(self) -> _BaseDataLoaderIter:
        return _Iterator(self) if self.num_workers > 0 else super()._get_iterator()


def build_loader(
    dataset: SegmentationDataset,
    batches: BatchesOfKeys,
    ignore_index: int,
    workers: int,
    timeout: int,
    pin_memory: bool,
) -> Loader:
    """
    Args:
        dataset, batches: what is loaded, and in which order.
        ignore_index: what pads masks.
        workers: processes that load; 0 loads in this one. torch has each compute with one thread.
        timeout: seconds without a batch after which a worker counts as hanging; 0 waits for ever.
        pin_memory: copy batches into page-locked memory.

    The loader raises UserError where a sample cannot be read, and where a worker dies or hangs.
    """
    return Loader(
        Watched(dataset, workers),
        batch_sampler=FromBatch(batches),
        num_workers=workers,
        collate_fn=_Handing(Collate(ignore_index, dataset.normalise)),
        timeout=timeout if workers > 0 else 0,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_deaf,
    )


def _deaf(worker: int) -> None:
    """What ends a run comes to all of its processes, and the run wants this step's batch before it ends."""
    for number in CODES:
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Python would ask those that are left to end, and wait for ever: they do not listen."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


class Watched(Dataset[Any]):
    """A dataset that leaves word which sample each worker is at work on.

    In a worker a UserError takes the place of the samples: raised there, it would arrive with torch's text around it.
    """

    def __init__(self, dataset: SegmentationDataset, workers: int) -> None:
        self.dataset = dataset
        self.at_work = shared_tensor((max(1, workers),), torch.int64).fill_(-1)
        """The sample of each worker; -1 while it reads none."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list[Key]) -> list[Sample] | UserError:
        worker = get_worker_info()
        if worker is None:
            return [self.dataset[key] for key in keys]
        samples = []
        try:
            for key in keys:
                self.at_work[worker.id] = key.sample
                samples.append(self.dataset[key])
        except UserError as error:
            return error
        self.at_work[worker.id] = -1
        return samples

    def doing(self, worker: int) -> str:
        """What a worker is at work on, for a message."""
        sample = int(self.at_work[worker])
        return "between two samples" if sample < 0 else f"while it read {self.dataset.source.names[sample]}"


class _Handing:
    """Collates samples, and hands on the error that came instead of them."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, samples: list[Sample] | UserError) -> Batch | EightBit | UserError:
        return samples if isinstance(samples, UserError) else self.collate(samples)


class _Iterator(_MultiProcessingDataLoaderIter):
    def __init__(self, loader: Loader) -> None:
        super().__init__(loader)
        self.watched: Watched = loader.dataset  # type: ignore[assignment]  # DataLoader knows it as any dataset
        # torch would raise the death of a worker from a signal handler, wherever the program happens to be: here it is met in `_get_data`.
        torch._C._remove_worker_pids(id(self))
        self._worker_pids_set = False

    def __next__(self) -> Batch:
        try:
            batch: Batch | EightBit | UserError = super().__next__()
            if isinstance(batch, UserError):
                raise batch
        except StopIteration:
            raise
        except BaseException:
            for worker in self._workers:
                worker.kill()  # the program would wait for one that hangs, or for a lock that a dead one holds
            self._shutdown_workers()
            raise
        return batch.batch() if isinstance(batch, EightBit) else batch

    def _get_data(self) -> Any:
        """Takes the place of torch's, which waits for the whole of the timeout before it looks after the workers."""
        started = time.monotonic()
        while True:
            try:
                there, data = self._try_get_data(LOOK_EVERY)  # type: ignore[no-untyped-call]
            except (RuntimeError, OSError, EOFError):  # the last two where a worker dies while it hands over a batch
                killed = self._killed()
                if not killed:
                    raise
                raise UserError("\n".join(self._death(number) for number in killed)) from None
            if there:
                return data
            if self._pin_memory and not self._pin_memory_thread.is_alive():
                raise RuntimeError("the thread that copies batches into page-locked memory has ended")
            if 0 < self._timeout < time.monotonic() - started:
                raise UserError(self._hanging())

    def _killed(self) -> list[int]:
        """The workers that a signal has ended, which shows a little later than the connection to them breaks."""
        deadline = time.monotonic() + LOOK_EVERY
        while time.monotonic() < deadline:
            killed = [number for number, worker in enumerate(self._workers) if (worker.exitcode or 0) < 0]
            if killed:
                return killed
            time.sleep(LOOK_EVERY / 20)
        return []

    def _death(self, number: int) -> str:
        killer = signal.Signals(-(self._workers[number].exitcode or 0))
        return f"a data worker was killed by {killer.name} {self.watched.doing(number)}: {WHY.get(killer, CRASH)}"

    def _hanging(self) -> str:
        return (
            f"no batch for {self._timeout} s, a data worker hangs {self.watched.doing(self._task_info[self._rcvd_idx][0])}: "
            f"data.num_workers=0 shows where, data.worker_timeout={10 * self._timeout} waits longer, 0 for ever"
        )
