"""Gallery page `index.html` of a batch's videos and prompts. Loads nothing from elsewhere and runs no script.

Every text comes from users or providers and is escaped; right-to-left text stays inside its own box.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pika_async._http.media import PICTURE_SUFFIXES
from pika_async.errors import strip_control
from pika_async.jobs import JobStatus

__all__ = ["GENERATOR_TAG", "gallery_page", "write_gallery"]

#: Marks the page with the command that made it.
GENERATOR_TAG: Final = '<meta name="generator" content="pika_async {maker}">'
_LABELS: Final = {status.value: status.label for status in JobStatus}
_POLICY: Final = "default-src 'none'; media-src 'self' file:; img-src 'self' file:; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; --ground: #f6f6f4; --card: #fff; --ink: #1c1c1a; --faint: #6b6b66; --line: #e2e2dc;
  --good: #16794a; --bad: #b3261e; --held: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ground: #141416; --card: #1e1e21; --ink: #ececea; --faint: #9a9a96;
  --line: #303034; --good: #5fcf98; --bad: #ff8a80; --held: #f0b95a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
header { padding: 2rem clamp(1rem, 4vw, 3rem) .5rem; }
h1 { margin: 0 0 .25rem; font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em; }
header p { margin: 0; color: var(--faint); }
main { display: grid; gap: 1rem; padding: 1rem clamp(1rem, 4vw, 3rem) 3rem;
  grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); align-items: start; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; overflow: hidden;
  content-visibility: auto; contain-intrinsic-size: auto 19rem; }
video, img, .none { display: block; width: 100%; aspect-ratio: 16 / 9; background: #000; object-fit: contain; }
.none { display: grid; place-items: center; padding: 1rem; background: var(--ground); color: var(--faint);
  text-align: center; }
.text { padding: .7rem .9rem .85rem; }
.prompt, .error { margin: 0; overflow-wrap: anywhere; unicode-bidi: isolate; max-height: 9em; overflow: auto; }
.error { margin-top: .4rem; color: var(--bad); font-size: .87rem; }
.facts { display: flex; flex-wrap: wrap; gap: .15rem .7rem; margin: .5rem 0 0; color: var(--faint); font-size: .8rem; }
.facts span { overflow-wrap: anywhere; unicode-bidi: isolate; min-width: 0; }
.succeeded { color: var(--good); } .failed, .rejected { color: var(--bad); }
.unknown, .timed_out { color: var(--held); }
"""


def gallery_page(rows: Sequence[Mapping[str, Any]], root: Path, *, title: str, maker: str = "batch") -> str:
    """Return the page for lines of `results.jsonl`; a video has a poster if `root`/posters/KEY.jpg exists.

    :param root: folder that the files are relative to.
    :param title: title of the page.
    :param maker: command that made the page; default "batch".
    """
    counts = Counter(str(record["status"]) for record in rows)
    by_status = ", ".join(f"{count} {_LABELS.get(status, status)}" for status, count in counts.most_common())
    cards = "\n".join(_card(record, root) for record in sorted(rows, key=lambda record: int(record["index"])))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
{GENERATOR_TAG.format(maker=maker)}
<title>{_escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{_escape(title)}</h1><p>{_escape(by_status or "nothing yet")}</p></header>
<main>
{cards}
</main>
</body>
</html>
"""


def _escape(value: object) -> str:
    return html.escape(strip_control(str(value)), quote=True)


def _card(record: Mapping[str, Any], root: Path) -> str:
    status = str(record["status"])
    error = record.get("error")
    facts = [_escape(record["key"]), _escape(record["provider"])]
    if record.get("task_id"):
        facts.append(f"task {_escape(record['task_id'])}")
    spans = "".join(f"<span>{fact}</span>" for fact in facts)
    reason = f'<p class="error" dir="auto">{_escape(error["message"])}</p>' if error else ""
    return (
        f"<article>{_picture(record, root)}"
        f'<div class="text"><p class="prompt" dir="auto">{_escape(record["prompt"])}</p>{reason}'
        f'<p class="facts"><span class="{_escape(status)}">{_escape(_LABELS.get(status, status))}</span>{spans}</p>'
        "</div></article>"
    )


def _picture(record: Mapping[str, Any], root: Path) -> str:
    file = record.get("file")
    if not file or Path(str(file)).is_absolute():
        words = "not downloaded" if record["status"] == "succeeded" else "no video"
        return f'<div class="none">{words}</div>'
    poster = f"posters/{record['key']}.jpg"
    attribute = f' poster="{_link(poster)}"' if (root / poster).is_file() else ""
    if Path(str(file)).suffix in PICTURE_SUFFIXES:
        return f'<img loading="lazy" alt="" src="{_link(str(file))}">'
    # A page with hundreds of videos must not open them all: with a poster, no video is read before it is played.
    preload = "none" if attribute else "metadata"
    return f'<video controls preload="{preload}"{attribute} src="{_link(str(file))}"></video>'


def _link(path: str) -> str:
    return html.escape("./" + quote(path, safe="/"), quote=True)


def write_gallery(rows: Sequence[Mapping[str, Any]], root: Path, *, title: str, maker: str = "batch") -> Path:
    """Write `root`/index.html and return its path; see `gallery_page`.

    :raises OSError: if it cannot be written.
    """
    path = root / "index.html"
    path.write_text(gallery_page(rows, root, title=title, maker=maker), encoding="utf-8")
    return path
