"""From what a layout lists to the sources of its splits: drawn where they are not given, groups kept together."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from segfocal.config.layouts import FilesConfig
from segfocal.config.task import TaskConfig
from segfocal.data.faults import Fault, counted, told
from segfocal.data.files import FileSource, Listing, Masks, Sample
from segfocal.data.scan import measured
from segfocal.data.source import Array, Source, Sources
from segfocal.data.splits import composed, draw, groups_of, named, torn
from segfocal.errors import UserError

log = logging.getLogger("segfocal")


def sources_of(listing: Listing, masks: Masks, config: FilesConfig, task: TaskConfig, channels: int, seed: int, where: str) -> Sources:
    """
    Args:
        listing: what there is.
        masks: reads their masks.
        config, task, channels, seed: of the run.
        where: what to call the data in messages.

    Raises:
        UserError: where there is nothing at all; with all that is wrong with the listing.
    """
    faults = list(listing.faults)
    for samples in (*listing.splits.values(), listing.undrawn):
        _group(samples, config)
    if config.splits is not None:
        splits = _as_before(listing.undrawn, config.splits, faults)
    else:
        splits = listing.splits or _drawn(listing.undrawn, masks, config, task, channels, seed)
    faults += torn(splits, "data.group" if config.group is None else f"data.group={config.group}")
    if not any(splits.values()):
        raise told(faults or [Fault(where, "no images in any split")], where)
    sources: dict[str, Source] = {split: FileSource(samples, masks, config, task, channels) for split, samples in splits.items() if samples}
    return Sources(sources, faults, drawn=bool(listing.undrawn))


def _as_before(samples: list[Sample], stored: str | dict[str, list[str]], faults: list[Fault]) -> dict[str, list[Sample]]:
    """The splits of an earlier run; samples that have come since are in none."""
    shown = stored if isinstance(stored, str) else "the splits of the checkpoint"
    if isinstance(stored, str):
        try:
            said = json.loads(Path(stored).read_bytes())  # pydantic's own reader takes no names that are not UTF-8
            stored = TypeAdapter(dict[str, list[str]]).validate_python(said)
        except OSError as error:
            raise UserError(f"data.splits={shown}: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise UserError(f"data.splits={shown}: not the splits.json of a run: a list of names for each split is expected") from None
    if not samples:
        raise UserError(f"data.splits={shown}: the data says its splits itself: leave it out, or choose data.split=fractions")
    by_name = {composed(sample.name): sample for sample in samples}
    stored = {split: [composed(name) for name in names] for split, names in stored.items()}
    twice = [name for name, count in Counter(name for names in stored.values() for name in names).items() if count > 1]
    if twice:
        faults.append(Fault(shown, f"{named(twice)} stand in it twice", "a sample belongs to one split"))
    if gone := [name for names in stored.values() for name in names if name not in by_name]:
        faults.append(
            Fault(
                shown,
                f"{len(gone)} of its samples are not there: {named(gone)}",
                mend="bring them back, or start without ckpt= or data.splits=",
            )
        )
    if new := set(by_name) - {name for names in stored.values() for name in names}:
        count = counted(len(new), "sample is in no split, for it has", "samples are in no split, for they have")
        log.warning("%s come since: %s", count, named(sorted(new)))
    return {split: [by_name[name] for name in names if name in by_name] for split, names in stored.items()}


def _group(samples: list[Sample], config: FilesConfig) -> None:
    """Say the groups, where a pattern finds them."""
    if config.group is not None:
        groups = groups_of([sample.name for sample in samples], config.group, "data.group")
        for sample in samples:
            sample.group = groups[sample.name]


def _drawn(samples: list[Sample], masks: Masks, config: FilesConfig, task: TaskConfig, channels: int, seed: int) -> dict[str, list[Sample]]:
    """Drawn splits: images that are the same pixel by pixel are a group, too."""
    by_name = {sample.name: sample for sample in samples}
    groups = {name: sample.group or f"\0{name}" for name, sample in by_name.items()}  # \0: no group is called so
    classes: dict[str, Array] | None = None
    if config.stratify:
        source = FileSource(samples, masks, config, task, channels)
        found = measured([(source, index) for index in range(len(source))], task)
        known = {name: sample for name, sample in zip(source.names, found, strict=True) if not isinstance(sample, Fault)}
        nothing = np.zeros(task.num_classes, bool)
        classes = {name: known[name].pixels > 0 if name in known else nothing for name in by_name}
        groups = _joined(groups, {name: sample.content for name, sample in known.items()})
    splits = draw(list(by_name), config.fractions, seed, groups, classes)
    return {split: [by_name[name] for name in names] for split, names in splits.items()}


def _joined(groups: dict[str, str], contents: dict[str, bytes]) -> dict[str, str]:
    """Groups that share an image are one."""
    leader = {group: group for group in groups.values()}

    def first(group: str) -> str:
        while leader[group] != group:
            group = leader[group]
        return group

    holder: dict[bytes, str] = {}
    for name, content in contents.items():
        leader[first(groups[name])] = first(holder.setdefault(content, groups[name]))
    return {name: first(group) for name, group in groups.items()}
