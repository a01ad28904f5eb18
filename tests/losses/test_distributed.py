"""Two processes with uneven shards have the loss and the gradients of one process with all of the batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segfocal.config.task import TaskConfig
from segfocal.losses import build_loss

pytestmark = pytest.mark.xdist_group("losses of ranks")

# Whose mean is over something that the shards hold unevenly, and a sum.
LOSSES = [
    ("binary", {"name": "focal", "alpha": 0.75}),
    ("binary", {"name": "focal", "denominator": "positives", "normalized": True}),
    ("multiclass", {"name": "focal", "alpha": [0.2, 1.0, 2.0], "denominator": "weights"}),
    ("multiclass", {"name": "focal", "reduction": "sum"}),
    ("multiclass", {"name": "focal", "reduction": "batchwise_mean", "form": "sigmoid"}),
    ("multilabel", {"name": "focal", "denominator": "pixels", "label_smoothing": 0.1}),
    ("multiclass", {"name": "focal", "denominator": "classes", "form": "sigmoid"}),
    ("multilabel", {"name": "focal", "denominator": "classes", "reduction": "batchwise_mean"}),
    ("binary", {"name": "tversky"}),
    ("multiclass", {"name": "poly1_focal"}),
    ("multiclass", {"name": "ce", "class_weights": [0.2, 1.0, 2.0]}),
    ("multilabel", {"name": "ce"}),
    ("binary", {"name": "dice"}),
    ("multiclass", {"name": "jaccard", "class_weights": [0.2, 1.0, 2.0]}),
    ("multilabel", {"name": "focal_tversky"}),
    ("multilabel", {"name": "asymmetric"}),
    ("multiclass", {"name": "unified_focal"}),
    ("multiclass", {"name": "recall_ce"}),
    ("binary", {"name": "logit_adjusted_ce", "prior": [0.1]}),
    ("binary", {"name": "sum", "terms": {"focal": {"name": "focal"}, "dice": {"name": "dice"}}, "weights": {"dice": 0.5}}),
]
CUT = 1  # the first rank has one image of three


def sample(mode):
    generator = torch.Generator().manual_seed(3)
    channels = 1 if mode == "binary" else 3
    images = torch.randn(3, 2, 5, 6, generator=generator, dtype=torch.float64)
    shape = (3, 3, 5, 6) if mode == "multilabel" else (3, 5, 6)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)
    target[0] = target[0].masked_fill(torch.rand(shape[1:], generator=generator) < 0.8, 255)  # few valid pixels on the first rank
    torch.manual_seed(0)
    return nn.Conv2d(2, channels, 1).double(), images, target


def step(model, loss, images, target):
    value = loss(model(images), target)
    value.backward()
    return value.detach(), [parameter.grad for parameter in model.parameters()]


def build(mode, options):
    return build_loss(dict(options), TaskConfig(name=mode, classes=["a"] if mode == "binary" else ["a", "b", "c"]))


def work(rank, path, failures):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    for mode, options in LOSSES:
        model, images, target = sample(mode)
        shard = slice(None, CUT) if rank == 0 else slice(CUT, None)
        loss = build(mode, options)
        found = step(DistributedDataParallel(model), loss, images[shard], target[shard])
        failures.put((rank, mode, str(options), found[0].item(), [grad.tolist() for grad in found[1]]))
        with torch.no_grad():  # evaluation may have another number of batches on each rank: nothing is waited for
            if rank == 0:
                loss(model(images), target)
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    context = mp.get_context("spawn")
    queue = context.Queue()
    path = tmp_path_factory.mktemp("gloo") / "store"
    processes = [context.Process(target=work, args=(rank, path, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=120) for _ in range(2 * len(LOSSES))]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return {(rank, mode, options): (value, grads) for rank, mode, options, value, grads in results}


@pytest.mark.parametrize(("mode", "options"), LOSSES, ids=[f"{mode}-{'-'.join(map(str, options.values()))}" for mode, options in LOSSES])
def test_two_ranks_are_as_one(mode, options, of_ranks):
    model, images, target = sample(mode)
    value, grads = step(model, build(mode, options), images, target)
    for rank in (0, 1):
        found, found_grads = of_ranks[rank, mode, str(options)]
        assert found == pytest.approx(value.item(), rel=1e-12)
        for mine, other in zip(found_grads, grads, strict=True):
            torch.testing.assert_close(torch.tensor(mine, dtype=torch.float64), other, rtol=1e-10, atol=1e-13)
