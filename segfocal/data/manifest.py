"""`data=manifest`: a table that names image and mask of each sample."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

from segfocal.config.data import DATA
from segfocal.config.layouts import ManifestConfig
from segfocal.config.task import TaskConfig
from segfocal.data.assemble import sources_of
from segfocal.data.faults import Fault
from segfocal.data.files import Listing, MaskFiles, Sample, below
from segfocal.data.folder import existing_root
from segfocal.data.source import Sources
from segfocal.data.splits import SPLITS, named
from segfocal.errors import UserError
from segfocal.nearest import did_you_mean

Row = dict[str, str]
OPTIONAL = ("split", "group")  # columns
log = logging.getLogger("segfocal")


@DATA.builder(ManifestConfig)
def manifest_sources(config: ManifestConfig, task: TaskConfig, channels: int, seed: int) -> Sources:
    """The splits of a table.

    Raises:
        UserError: for a table that cannot be read, columns that are not there, or nothing to train on.
    """
    path = Path(config.file or "")
    if not path.is_file():
        raise UserError(f"data.file={config.file}: no such file (seen from {Path.cwd()})")
    root = existing_root(config.root or str(path.parent))
    listing = _listing(path, root, task)
    return sources_of(listing, MaskFiles(config, task), config, task, channels, seed, f"data.file={config.file}")


def _listing(path: Path, root: Path, task: TaskConfig) -> Listing:
    masks = task.class_names if task.name == "multilabel" else ["mask"]
    listing, seen = Listing(), set()
    rows = _rows(path, ["image", *masks])
    drawn = not any(row.get("split") for row in rows.values())
    for line, row in rows.items():
        where = f"{path}, line {line}"
        split = row.get("split") or ""
        if empty := [column for column in ("image", *masks) if not row.get(column)]:
            listing.faults.append(Fault(where, f"no {' and no '.join(empty)}"))
            continue
        try:
            image, *files = [below(root, row[column]) for column in ("image", *masks)]
        except ValueError as error:
            listing.faults.append(Fault(where, str(error), mend="data.root says below which folder the files are"))
            continue
        if image in seen:
            listing.faults.append(Fault(where, f"{row['image']} is in the table already", "a sample belongs to one split"))
        elif not drawn and split not in SPLITS:
            listing.faults.append(Fault(where, f"split {split!r}", f"it must be one of {', '.join(SPLITS)}"))
        else:
            samples = listing.undrawn if drawn else listing.splits.setdefault(split, [])
            samples.append(Sample(row["image"], image, files, row.get("group") or None))
        seen.add(image)
    listing.splits = {split: listing.splits[split] for split in SPLITS if split in listing.splits}
    return listing


def _rows(path: Path, needed: list[str]) -> dict[int, Row]:
    """The rows by their line numbers; raises UserError for what is not a table with the needed columns."""
    read = {".csv": _csv_rows, ".jsonl": _json_rows}.get(path.suffix.lower())
    if read is None:
        raise UserError(f"data.file={path}: a table is .csv or .jsonl, not {path.suffix or 'without an ending'}")
    try:
        rows = read(path)
    except (OSError, ValueError, csv.Error) as error:  # not text, not JSON, a row that is too long
        raise UserError(f"data.file={path}: cannot be read as {path.suffix[1:]}: {error}") from None
    if not rows:
        raise UserError(f"data.file={path}: has no rows")
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    if len(columns) == 1 and (mark := next((mark for mark in ";\t" if mark in columns[0]), None)):
        raise UserError(f"data.file={path}: columns are parted by {mark!r}, where a comma is expected: save it with commas")
    if missing := [column for column in needed if column not in columns]:
        raise UserError(f"data.file={path}: has no column {' or '.join(missing)}{did_you_mean(missing[0], columns)}")
    for optional in OPTIONAL:
        near = [column for column in columns if column.lower().rstrip("s") == optional]
        if near and optional not in columns:
            raise UserError(f"data.file={path}: the column {near[0]} is not read: call it {optional}, or something else")
    if unread := [column for column in columns if column not in (*needed, *OPTIONAL)]:
        log.info("data.file=%s: columns that are not read: %s", path, named(unread))
    return rows


def _csv_rows(path: Path) -> dict[int, Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte order mark
        reader = csv.DictReader(file, strict=True)
        rows = {}
        columns = [column.strip() for column in reader.fieldnames or []]
        if len(set(columns)) != len(columns):
            raise ValueError(f"two columns of the same name in {columns}")
        for row in reader:
            if not any(isinstance(value, str) and value.strip() for value in row.values()):
                continue
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num} has another number of columns than the first")
            rows[reader.line_num] = {key.strip(): value.strip() for key, value in row.items()}
        return rows


def _json_rows(path: Path) -> dict[int, Row]:
    rows = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object with the columns as its keys")
            rows[number] = {str(key): "" if value is None else str(value).strip() for key, value in row.items()}
    return rows
