"""The page as text: a small shell around one block of data, which the script draws. Loads nothing from elsewhere.

Every text comes from users or providers. It stands in the page only as JSON in ASCII without a character that HTML
reads, and the script puts it into the document as text.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from pika_async.errors import strip_control

__all__ = [
    "BOARD_POLICY",
    "CARD_FIELDS",
    "FACET_FIELDS",
    "GENERATOR_TAG",
    "STATIC_FILES",
    "Facets",
    "card_line",
    "facets_of",
    "is_own_page",
    "page_files",
    "page_text",
    "script_json",
    "static_files",
    "usual_start",
    "with_poster",
]

#: Marks the page with the command that made it.
GENERATOR_TAG: Final = '<meta name="generator" content="pika_async {maker}">'
_MARK: Final = GENERATOR_TAG.partition("{")[0]
#: Names of the static files in `assets/`.
STATIC_FILES: Final = ("gallery.css", "gallery.js", "timeline.css")
#: Names of the static files of the live board, beside those.
BOARD_FILES: Final = ("board.css", "board.js", "control.js", "icon.svg")
#: Files that a script is made of, in their order: they share their names, and a page reads few files fast.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "gallery.js": tuple(
        f"gallery/{part}.js"
        for part in ("data", "text", "elements", "summary", "filters", "media", "cards", "grid", "player", "start")
    ),
    "board.js": ("board/changes.js", "board/cluster.js", "board/figures.js", "board/connection.js"),
    "control.js": ("board/control.js",),
}
#: Policy of the live board, which also loads from where it came, and stands in no other page.
BOARD_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_POLICY: Final = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file:; "
    "media-src 'self' file:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
_ESCAPES: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))
#: Fields of a card in the order of `card_line`. The first two tell whether there is a poster, and whether the file is
#: `videos/KEY.mp4`; `start` is a command without the prompt that ends it. Rare fields come last.
CARD_FIELDS: Final = (
    "poster", "usual", "key", "prompt", "took", "polls", "attempts", "submitted", "settled", "task", "seconds", "shape",
    "start", "ratio", "seed", "cost", "points", "duration", "resolution", "file", "command", "reason", "error",
    "picture", "earlier", "adopted", "account", "route", "stored",
)  # fmt: skip
#: Fields of a card by which it is counted and filtered.
FACET_FIELDS: Final = ("status", "provider", "effect", "model", "kind")
#: Those fields of a card, and where its result is.
Facets: TypeAlias = tuple[str | bool | None, ...]
#: Words that a shell takes as they are, as `shlex.quote` has it.
_SHELL_SAFE: Final = re.compile(r"[\w@%+=:,./ -]+", re.ASCII)
_NO_POSTER: Final = "[0,"
_POSTER: Final = "[1,"


def script_json(value: object) -> str:
    """Return `value` as JSON that may stand in a `<script>` of any document: ASCII without `<`, `>` and `&`."""
    return _ENCODER.encode(value).translate(_ESCAPES)


def card_line(card: Mapping[str, Any]) -> str:
    """Return `card`, as `card_of` makes it, as JSON: its values without their names, short for a page of thousands.

    A script reads `[values]` with `CARD_FIELDS`, and cards with names beside them. What a script can put together from
    the key and the prompt is left out.
    """
    more: dict[str, Any] = {"poster": int("poster" in card)}
    if card.get("file") == f"./videos/{quote(card['key'], safe='', errors='replace')}.mp4":
        more |= {"usual": 1, "file": None}
    end = shlex.quote(card["prompt"])
    if card.get("command", "").endswith(f" -- {end}"):
        start = card["command"].removesuffix(end)
        more |= {"start": 1 if start == usual_start(card) else start, "command": None}
    values = [more[name] if name in more else card.get(name) for name in CARD_FIELDS]
    while values[-1] is None:
        values.pop()
    return script_json(values)


def usual_start(card: Mapping[str, Any]) -> str | None:
    """Return the command that generates `card`, up to its prompt, if its facts are all that it needs; else None.

    The script of the page makes the same text.
    """
    start = f"pika-async generate --provider {card['provider']} "
    for name in ("effect", "ratio", "seed", "model", "duration", "resolution"):
        if name in card:
            start += f"--{'aspect-ratio' if name == 'ratio' else name}={card[name]} "
    return f"{start}-- " if _SHELL_SAFE.fullmatch(start) else None


def facets_of(card: Mapping[str, Any]) -> Facets:
    """Return the values by which `card` is counted and filtered, which its line leaves out; see `Facets`."""
    return (*map(card.get, FACET_FIELDS), where_of(card))


def where_of(card: Mapping[str, Any]) -> str | bool:
    """Return where the result of `card` is: True for a file that the page links, False for nowhere.

    The script of the page has the same words.
    """
    if "file" in card or "stored" not in card:
        return "file" in card
    return "store" if "://" in card["stored"] else "elsewhere"


def with_poster(line: str) -> str:
    """Return the `line` of a card with its poster."""
    return _POSTER + line.removeprefix(_NO_POSTER) if line.startswith(_NO_POSTER) else line


def page_text(
    head: Mapping[str, Any],
    cards: Sequence[str],
    *,
    title: str,
    facets: Sequence[Facets] | None = None,
    maker: str = "batch",
    timeline: str | None = None,
    durations: str | None = None,
    live: bool = False,
) -> str:
    """Return the page.

    :param head: facts of the whole batch.
    :param cards: cards, each encoded by `card_line` or, with the names of its fields, by `script_json`.
    :param title: title of the page.
    :param facets: those of each card, so that the script reads a card only when it is drawn; default: it reads all.
    :param maker: command that made the page; default "batch".
    :param timeline: figure of the batch over time, which must be safe as markup; default None.
    :param durations: figures of the learned durations, which must be safe as markup; default None.
    :param live: whether it is the page of a live board; default False.
    """
    facts: dict[str, Any] = {"head": head, "fields": CARD_FIELDS}
    if facets is not None:
        numbers: dict[Facets, int] = {}
        facts["codes"] = [numbers.setdefault(each, len(numbers)) for each in facets]
        facts["facets"] = list(numbers)
    data = f'{script_json(facts)[:-1]},"cards":[\n' + ",\n".join(cards) + "\n]}"
    text: str = _template().render(
        data=data,
        timeline=timeline,
        durations=durations,
        generator=GENERATOR_TAG.format(maker=maker),
        policy=None if live else _POLICY,  # a board sends its own as a header
        live=live,
        title=strip_control(title),
    )
    return text


def page_files(root: Path) -> list[Path]:
    """Return the files that the page in the folder `root` consists of."""
    return [root / "index.html", *(root / "assets" / name for name in STATIC_FILES)]


def is_own_page(start: str) -> bool:
    """Return whether `start`, the beginning of an `index.html`, is that of a page of ours."""
    return _MARK in start


@cache
def static_files(*, live: bool = False) -> dict[str, bytes]:
    """Return the style sheets and the scripts by name.

    :param live: whether to return those of the live board too; default False.
    """
    folder = importlib.resources.files("pika_async.report") / "templates"
    names = (*STATIC_FILES, *(BOARD_FILES if live else ()))
    return {name: b"\n".join((folder / part).read_bytes() for part in _PARTS.get(name, (name,))) for name in names}


@cache
def _template() -> Any:
    import jinja2  # noqa: PLC0415 - 65 ms, which a command without a page need not pay

    folder = importlib.resources.files("pika_async.report") / "templates"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string((folder / "gallery.html").read_text(encoding="utf-8"))
