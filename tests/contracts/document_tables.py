"""Reader of the tables in the documents."""

from __future__ import annotations


def table(page: str, header: str) -> list[list[str]]:
    """Return the cells of the rows below a header, which occurs once on its page."""
    _, _, below = page.partition(f"\n{header}\n")
    lines = below.split("\n\n")[0].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows, header
    return rows
