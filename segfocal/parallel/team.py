"""How the processes of a run know of each other: torch.distributed, and a store beside it for words and turns."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore, PrefixStore, Store, rendezvous  # type: ignore[attr-defined]  # types are not told of them

from segfocal.errors import UserError
from segfocal.parallel.ending import agreed_by
from segfocal.parallel.place import OURS, Place

BACKENDS = {"cpu": "gloo", "gpu": "nccl", "npu": "hccl"}
PATIENCE = timedelta(days=7)  # while one process reads the data, the others wait
TIMEOUT = timedelta(minutes=30)  # in a collective, where they are all about as fast
PAUSE = 0.1  # seconds between two looks at who is there


class Team:
    """The processes of a run; a single one where nobody has started more.

    Args:
        place: of this process.
        store: that all of them reach; None for a single one.
    """

    def __init__(self, place: Place, store: Store | None = None) -> None:
        self.place, self.store = place, store
        self.turns = 0
        self.last: int | None = None  # the step after which this process can end

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.place.rank == 0

    def told(self, text: str) -> str:
        """What the leading process says, in all of them."""
        if self.store is None:
            return text
        key, self.turns = f"told {self.turns}", self.turns + 1
        if self.leads:
            self.store.set(key, text)
        self.store.wait([key], PATIENCE)
        return str(self.store.get(key).decode())

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """One process of each machine runs the block, then the others: they find what it has left in caches."""
        key, self.turns = f"turn {self.turns} of machine {self.place.machine}", self.turns + 1
        if self.store is not None and self.place.local_rank > 0:
            self.store.wait([key], PATIENCE)
        yield
        if self.store is not None and self.place.local_rank == 0:
            self.store.set(key, "done")

    def wait(self) -> None:
        """Until all are here, or one has failed: looking at the data may take one machine longer than a collective waits."""
        if self.store is None:
            return
        key, self.turns = f"meeting {self.turns}", self.turns + 1
        self.store.add(key, 1)
        while self.store.add(key, 0) < self.place.world and not self.failed():
            time.sleep(PAUSE)
        dist.barrier()

    def agreed(self, code: int | None, step: int) -> int | None:
        """With which exit code to end now; None: not now. Each process asks after each step, and all are told so after the same one.

        A signal comes to processes that are at different steps, and none can be waited for in the middle of one, where they meet. So who
        knows of it takes one step more, and then waits until each has said after which step it can end; the last of these it is.

        Args:
            code: that a signal to this process wants; None where none has come.
            step: that has just been done.
        """
        if self.store is None:
            return code
        if self.last is None:
            if code is not None:
                self.store.set("end with", str(code))
            if self.store.check(["end with"]):
                self.last = step + 1
                self.store.set(f"end of {self.place.rank}", str(self.last))
            return None
        if step < self.last:
            return None
        ends = [f"end of {rank}" for rank in range(self.place.world)]
        self.store.wait(ends, TIMEOUT)
        self.last = max(int(self.store.get(end)) for end in ends)
        return int(self.store.get("end with")) if step >= self.last else None

    def first_to_fail(self) -> bool:
        assert self.store is not None
        return bool(self.store.add("failed", 1) == 1)

    def failed(self) -> bool:
        """Whether a process of the run has failed."""
        try:
            return self.store is not None and self.store.add("failed", 0) > 0
        except Exception:  # the store went with the process that failed
            return True


def join(place: Place, accelerator: str, device: torch.device) -> Team:
    """Meet the other processes; from here on torch.distributed is there.

    Args:
        place: of this process.
        accelerator: as Lightning names it.
        device: of this process.

    Raises:
        UserError: they cannot meet.
    """
    if place.world == 1:
        return Team(place)
    if device.type != "cpu":
        torch.get_device_module(device.type).set_device(device)
    try:
        store = _store(place)
        team = Team(place, PrefixStore("segfocal", store))
        options: dict[str, Any] = {"timeout": TIMEOUT} | ({"device_id": device} if device.type == "cuda" else {})
        dist.init_process_group(
            BACKENDS[accelerator], store=PrefixStore("group", store), rank=place.rank, world_size=place.world, **options
        )
    except (dist.DistError, ValueError, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(f"the {place.world} processes cannot meet at {where} (MASTER_ADDR, MASTER_PORT): {reason}") from None
    agreed_by(team.first_to_fail)
    return team


def _store(place: Place) -> Store:
    if meet := os.environ.get(OURS):
        return FileStore(meet, place.world)
    store: Store = next(rendezvous("env://", rank=place.rank, world_size=place.world))[0]
    return store
