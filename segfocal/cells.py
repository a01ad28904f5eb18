"""What a spreadsheet makes of the cells of a table."""

from __future__ import annotations

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def harmless(cell: str) -> str:
    """A cell that is taken for text: with an apostrophe before what would be a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell
