"""Labels out of range, found without making an accelerator wait.

On the CPU the target is looked at, and the message names what it holds. On an accelerator reading a result waits for all the work in
the queue. So the loss looks for wrong labels on its way, what it finds is copied to the host behind the work, and a later call reads it
once it has arrived. Until then the loss is of no use, but no index leaves its range.
"""

from __future__ import annotations

import torch
from torch import Tensor

SOFT_MOST = 1 + 1e-6  # what a soft label is at most: shares in single precision may sum to a little more than 1

_arriving: list[tuple[Tensor, torch.Event, str]] = []


def label_range_error(mode: str, raw: Tensor, num_ids: int, ignore_index: int | None, soft: bool = False) -> str | None:
    """What is wrong with labels that lie on the CPU, in one line; None where nothing is."""
    if raw.numel() == 0 or raw.dtype == torch.bool:
        return None
    lowest, highest = (float(bound) for bound in raw.aminmax())
    whole = soft or not raw.is_floating_point()
    if whole and lowest >= 0 and highest <= (SOFT_MOST if soft else num_ids - 1):
        return None  # seen in one pass, without a copy
    label = raw if ignore_index is None else raw[raw != ignore_index]
    wrong = sorted(set(label[out_of_range(label, num_ids, soft)].tolist()))
    if not wrong:
        return None
    found = ", ".join(f"{value:g}" for value in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
    return _message(f"the target holds {found}", mode, num_ids, ignore_index, soft)


def out_of_range(label: Tensor, num_ids: int, soft: bool) -> Tensor:
    """Which labels are none, by one rule on every device; NaN is none."""
    right = (label >= 0) & (label <= (SOFT_MOST if soft else num_ids - 1))
    return ~(right & (label == label.round())) if label.is_floating_point() and not soft else ~right


def watch(wrong: Tensor, mode: str, num_ids: int, ignore_index: int | None) -> None:
    """Report the wrong labels of earlier calls that have arrived, and send this call's on their way.

    Args:
        wrong: a scalar on an accelerator, more than 0 if there are any.
        mode, num_ids, ignore_index: for the message.

    Raises:
        ValueError: an earlier call had labels out of range.
    """
    if torch.compiler.is_compiling():
        return
    while _arriving and _arriving[0][1].query():
        count, _, message = _arriving.pop(0)
        if count.item():
            _arriving.clear()
            raise ValueError(message)
    if len(_arriving) >= 64:  # so far behind, the next ones can do without
        return
    count = wrong.detach().to("cpu", non_blocking=True)  # into page-locked memory, behind the work
    event = torch.Event(wrong.device)
    event.record()
    _arriving.append((count, event, _message("some labels of an earlier batch are out of range", mode, num_ids, ignore_index)))


def _message(found: str, mode: str, num_ids: int, ignore_index: int | None, soft: bool = False) -> str:
    ignored = "no ignore_index is set" if ignore_index is None else f"ignore_index={ignore_index}"
    return f"{found}; mode={mode} takes {'numbers from ' if soft else ''}0 to {num_ids - 1} here, and {ignored}"
