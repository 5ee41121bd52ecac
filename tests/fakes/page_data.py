"""Data of a page as its script reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pika_async.report.page import FACET_FIELDS, usual_start

__all__ = ["named", "page_data"]


def named(row: list[Any], fields: list[str], facets: Sequence[Any]) -> dict[str, Any]:
    """Return a card from its line and its facets: values by name, its file and its poster as addresses."""
    values = [*zip(fields, row, strict=False), *zip(FACET_FIELDS, facets, strict=False)]
    card = {name: value for name, value in values if value is not None}
    name = quote(card["key"], safe="")
    if card.pop("usual", 0):
        card["file"] = f"./videos/{name}.mp4"
    if card.pop("poster"):
        card["poster"] = f"./posters/{name}.jpg"
    if card.get("start") == 1:
        card["start"] = usual_start(card)
    return card


def page_data(folder: Path) -> dict[str, Any]:
    """Return the head and the cards of the page in a folder."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    facets = [data["facets"][code] for code in data["codes"]]
    cards = [named(row, data["fields"], each) for row, each in zip(data["cards"], facets, strict=True)]
    return {**data, "cards": cards}
