"""The gallery as a person meets it: elements by role and name, keys of the cards that are shown, and what went wrong.

Knows the page's contract and none of its classes, scripts or files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from importlib.resources import files
from typing import Any, Final

import attrs
from playwright.sync_api import ConsoleMessage, Locator, Page, Request

__all__ = ["GalleryPage"]

#: Reports what a Content-Security-Policy refused, also where the browser prints nothing.
REPORT_VIOLATIONS: Final = """
document.addEventListener("securitypolicyviolation", event =>
  console.error(`policy violation: ${event.effectiveDirective} ${event.blockedURI}`))
"""
#: Rules of axe-core that belong to WCAG 2.2 AA, and its best practices.
AXE_OPTIONS: Final = {
    "resultTypes": ["violations"],
    "preload": False,  # it would fetch the style sheets, which the page's policy forbids
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}


@attrs.define(slots=False)  # Playwright keeps its wrappers of handlers on their object
class GalleryPage:
    """One page in the browser, with every console message, error and request since it was opened."""

    page: Page
    faults: list[str] = attrs.field(factory=list)
    requests: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.page.add_init_script(REPORT_VIOLATIONS)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        self.page.on("request", self._on_request)
        self.page.on("requestfailed", self._on_failed_request)
        self.page.on("popup", lambda popup: self.faults.append(f"popup: {popup.url}"))
        self.page.on("dialog", lambda dialog: self.faults.append(f"{dialog.type}: {dialog.message}"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(f"console {message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _on_failed_request(self, request: Request) -> None:
        if request.failure == "csp":  # never sent: the policy refused it, and the console has a report
            self.requests.remove(request.url)
        elif request.failure != "net::ERR_ABORTED":  # a player that is closed gives up the rest of its file
            self.faults.append(f"not loaded: {request.url} {request.failure}")

    # -- elements --------------------------------------------------------------------------------------------------

    @property
    def search_box(self) -> Locator:
        return self.page.get_by_role("searchbox")

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    @property
    def player(self) -> Locator:
        """The large player's video."""
        return self.dialog.locator("video")

    def region(self, name: str) -> Locator:
        return self.page.get_by_role("region", name=name, exact=True)

    def card(self, key: str) -> Locator:
        return self.page.locator(f"article[data-key={json.dumps(key)}]")

    def video(self, key: str) -> Locator:
        return self.card(key).locator("video")

    def filter(self, value: str, count: int) -> Locator:
        """Return the filter whose accessible name holds a value and its count."""
        name = re.compile(rf"(?<!\w){re.escape(value)}(?!\w).*(?<!\d){count}(?!\d)", re.IGNORECASE | re.DOTALL)
        return self.page.get_by_role("button", name=name).or_(self.page.get_by_role("checkbox", name=name))

    def is_on(self, chip: Locator) -> bool:
        """Return whether a filter is pressed or checked."""
        on: bool = chip.evaluate("chip => chip.checked ?? chip.getAttribute('aria-pressed') === 'true'")
        return on

    def problem_rows(self) -> list[str]:
        """Return the text of each row of the problems, without the heads of the columns."""
        rows = self.region("Problems").get_by_role("row")
        return [row.inner_text() for row in rows.all() if not row.get_by_role("columnheader").count()]

    # -- state -----------------------------------------------------------------------------------------------------

    def cards(self) -> list[dict[str, str]]:
        """Return `data-key` and `data-status` of every card, hidden ones included."""
        found: list[dict[str, str]] = self.page.locator("article").evaluate_all(
            "cards => cards.map(card => ({key: card.dataset.key, status: card.dataset.status}))"
        )
        return found

    def shown(self) -> list[str]:
        """Return the keys of the cards that are shown, in the order of the page."""
        keys: list[str] = self.page.locator("article").evaluate_all(
            "cards => cards.filter(card => card.checkVisibility()).map(card => card.dataset.key)"
        )
        return keys

    def shown_among(self, keys: Collection[str]) -> list[str]:
        """Return those of `keys` whose cards are shown, in the order of the page."""
        return [key for key in self.shown() if key in keys]

    def wait_shown(self, keys: set[str]) -> None:
        """Wait until exactly these cards are shown.

        :raises playwright.sync_api.TimeoutError: if others are.
        """
        self.page.wait_for_function(
            """wanted => {
              const shown = [...document.querySelectorAll("article")].filter(card => card.checkVisibility());
              return shown.length === wanted.length && shown.every(card => wanted.includes(card.dataset.key));
            }""",
            arg=sorted(keys),
        )

    def wait_playing(self, video: Locator) -> None:
        """Wait until a video's time advances."""
        element = video.element_handle()
        started: float = element.evaluate("video => video.currentTime")
        self.page.wait_for_function(
            "([video, from]) => !video.paused && video.currentTime !== from", arg=[element, started]
        )

    def wait_source(self, url: str) -> None:
        """Wait until the large player shows the video at an address."""
        self.page.wait_for_function("([video, url]) => video.src === url", arg=[self.player.element_handle(), url])

    def wait_paused(self, video: Locator) -> None:
        self.page.wait_for_function("video => video.paused", arg=video.element_handle())

    def wait_focused(self, key: str) -> None:
        """Wait until the card of a key has the focus: a dialog tells the page of its closing in a later turn."""
        self.page.wait_for_function("key => document.activeElement?.closest('article')?.dataset.key === key", arg=key)

    def focused_key(self) -> str | None:
        """Return the key of the card that has, or holds, the focus."""
        key: str | None = self.page.evaluate("document.activeElement?.closest('article')?.dataset.key ?? null")
        return key

    def focus(self) -> str:
        """Return what has the focus: a card with its key, the search box, a filter, or the tag of another element."""
        place: str = self.page.evaluate("""() => {
          const element = document.activeElement, card = element.closest("article");
          if (card) return `card ${card.dataset.key}`;
          if (element.matches("input[type=search], [role=searchbox]")) return "searchbox";
          if (element.matches("[aria-pressed], input[type=checkbox]")) return "filter";
          return element.tagName.toLowerCase();
        }""")
        return place

    def resize(self, height: int | None = None) -> None:
        """Set the height of the window; None makes it as high as the page, so that all of it is drawn."""
        width: int = self.page.evaluate("innerWidth")
        for _ in range(1 if height else 2):  # cards that come into the window may change the page's height
            tall: int = self.page.evaluate("document.documentElement.scrollHeight")
            self.page.set_viewport_size({"width": width, "height": height or tall})
            self.page.evaluate("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        width: int = self.page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth")
        return width

    def axe_violations(self) -> Sequence[str]:
        """Return what axe-core finds, a line for each element."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
        found: dict[str, Any] = self.page.evaluate("options => axe.run(document, options)", AXE_OPTIONS)
        return [
            f"{violation['id']}: {violation['help']}: {' '.join(node['target'])}: {node['html'][:120]}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]
