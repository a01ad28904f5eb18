"""From sums over images to one value a batch, with the denominator called by its name: others divide by different things under "mean".

In distributed training sums and counts are those of all processes: ten valid pixels on one rank and a thousand on another weigh what
they would in one batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from segfocal.config.loss import Denominator, Reduction
from segfocal.losses.targets import Labels


def reduce(sum_N: Tensor, count_N: Tensor | int, reduction: Reduction, empty: float = 1.0) -> Tensor:
    """Reduce the images' sums to a number.

        sum               sum over everything
        mean              sum over everything / sum of the images' counts
        batchwise_mean    sum over images of (sum over the image / its count)

    Args:
        sum_N: sums of values, ignored ones being 0.
        count_N: what each image brings to the denominator, see `count`; a number is that of every image.
        reduction: one of the above.
        empty: what a denominator of 0 is taken as. With 1 nothing to learn from is 0 and not NaN, and false positives count although
            there is no positive; with inf the value is 0 although smoothed labels have one, as is right for a sum of `weights`.

    Returns:
        A scalar, attached to the graph; the same on every process, see `over_processes`.
    """
    return weighted(sum_N, image_weights(count_N, reduction, sum_N, empty))


def weighted(sum_N: Tensor, weight_N: Tensor) -> Tensor:
    """`reduce` with the weights that `image_weights` has for it."""
    return over_processes((sum_N * weight_N).sum())


def image_weights(count_N: Tensor | int, reduction: Reduction, logits: Tensor, empty: float = 1.0) -> Tensor:
    """What `reduce` multiplies the sum of each image with, (N,), fp32 at least, from logits or sums that tell type and gradient."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if reduction == "sum":
        count_N = 1
    elif reduction == "mean":
        count_N = _of_batch(count_N, logits)
    if isinstance(count_N, int):  # one operation in the place of five: beside a kernel of a millisecond they are felt
        return torch.full((len(logits),), 1 / max(1, count_N), dtype=dtype, device=logits.device)
    whole = not count_N.is_floating_point()
    return (count_N.clamp_min(1) if whole else torch.where(count_N > 0, count_N, empty)).to(dtype).reciprocal()


def _of_batch(count_N: Tensor | int, logits: Tensor) -> Tensor | int:
    """The counts of all images together, on every process of a training step; (N,) where it is a tensor."""
    together = processes() > 1 and logits.requires_grad
    if isinstance(count_N, int) and not together:
        return count_N * len(logits)
    total = torch.tensor(count_N * len(logits), device=logits.device) if isinstance(count_N, int) else count_N.sum()
    if together:
        dist.all_reduce(total)
    return total.expand(len(logits))


def over_processes(local: Tensor) -> Tensor:
    """The sum over the processes of a training step; the tensor itself where there is one process or no gradient.

    Its gradient is that of the local part times the number of processes, because DistributedDataParallel takes the mean of gradients:
    so the processes' gradients are those of one process with all of the batch. Every process has to call it.
    """
    if processes() == 1 or not local.requires_grad:
        return local
    total = local.detach().clone()
    dist.all_reduce(total)
    scaled = local * processes()
    return total + (scaled - scaled.detach())


def processes() -> int:
    """How many share a training step; 1 where no gradient is wanted, as in evaluation."""
    distributed = dist.is_available() and dist.is_initialized() and torch.is_grad_enabled()
    return dist.get_world_size() if distributed else 1


def count(
    denominator: Denominator,
    labels: Labels,
    channels: int,
    per_channel: bool = False,
    weight_NCHW: Tensor | None = None,
    class_weight_C: Tensor | None = None,
) -> Tensor | int:
    """What each image brings to the denominator of a mean; only what is not ignored counts.

        pixels       pixels, in multilabel those with a class that is not ignored
        elements     values: pixels, times the classes where every class has its own sigmoid
        logits       pixels times classes, under a softmax, too
        weights      the sum of the weights over the elements; without weights the elements
        positives    labels other than 0: positives, and in multiclass the pixels of any class but the background
        classes      the number of classes; it divides once, so that the `mean` of a batch with it is `batchwise_mean`

    Args:
        denominator: one of the above.
        labels: from `align`.
        channels: of the logits.
        per_channel: whether every channel is decided on by a sigmoid.
        weight_NCHW: the weights of the elements, for `weights`.
        class_weight_C: how much each class counts in `elements`, `logits` and `classes`.

    Returns:
        Shape (N,); a number where it is the same for every image, and known without a look at the labels.
    """
    if labels.ignore_index is None and denominator in ("elements", "logits", "pixels"):
        return _all(denominator, labels, channels, per_channel, class_weight_C)
    valid = labels.valid_NKHW
    if denominator == "classes":
        return channels if class_weight_C is None else class_weight_C.sum().expand(len(valid))
    if denominator == "pixels":
        return _how_many(valid.any(1, keepdim=True))[:, 0]
    if denominator == "positives":
        if not labels.soft:
            return _how_many(valid & (labels.raw_NKHW != 0)).sum(1)
        positive = 1 - labels.target_NKHW[:, :1] if labels.distribution else labels.target_NKHW
        return torch.where(valid, positive, 0).flatten(1).sum(1)
    if denominator == "weights" and weight_NCHW is not None:
        weight = torch.where(valid, weight_NCHW, 0.0)
        return weight.expand(-1, channels if per_channel else 1, *weight.shape[2:]).flatten(1).sum(1)
    count_NK = _how_many(valid)
    if per_channel or denominator == "logits":
        count_NK = count_NK.expand(-1, channels)
    return (count_NK if class_weight_C is None else count_NK * class_weight_C).sum(1)


def _how_many(mask_NKHW: Tensor) -> Tensor:
    """How many are true, (N, K)."""
    if mask_NKHW.device.type != "cpu" or not mask_NKHW.numel():
        return mask_NKHW.unsqueeze(-1).flatten(2).sum(2)
    each = [channel.count_nonzero() for channel in mask_NKHW.flatten(0, 1)]  # a sum would first write each as eight bytes
    return torch.stack(each).reshape(mask_NKHW.shape[:2])


def _all(denominator: Denominator, labels: Labels, channels: int, per_channel: bool, class_weight_C: Tensor | None) -> Tensor | int:
    raw = labels.raw_NKHW
    values = raw.shape[2:].numel()
    by_class = denominator == "logits" or (denominator == "elements" and per_channel)
    if by_class and class_weight_C is None:
        values *= channels
    elif denominator == "elements" and not by_class and not labels.distribution:
        values *= raw.shape[1]
    return values if class_weight_C is None or not by_class else (values * class_weight_C.sum()).expand(len(raw))
