"""Batch folder whose page the browser opens: four providers, every outcome, and prompts that try to leave their element.

The folder is made by the commands that a person types, one after the other in a process of their own, on an emulator.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from pika_async.emulator import EMULATED_GATEWAYS, Emulator, Scenario
from pika_async.jobs import JobStatus
from pika_async.providers import find_provider

__all__ = ["CRASH_REASON", "FAILURE_REASON", "HOSTILE_PROMPTS", "BatchPage", "make_batch_page"]

#: Longest word that a page must break.
LONG_WORD: Final = "Donaudampfschifffahrtsgesellschaftskapitän" * 8
#: Prompts by key. A script among them that ran would set `window.breached`.
HOSTILE_PROMPTS: Final[Mapping[str, str]] = {
    "h-image": '<img src=x onerror="window.breached = 1">a kite',
    "h-script": "</script><script>window.breached = 2</script> a heron",
    "h-style": "</style></title></template><script>window.breached = 3</script>",
    "h-attribute": "\" onmouseover=\"window.breached = 4\" autofocus onfocus='window.breached = 5' x='",
    "h-svg": "<svg/onload=window.breached=6><iframe srcdoc='<script>parent.breached=7</script>'>",
    "h-comment": "<!--<script>]]>--!> a mill",
    "h-rtl": "\u202egpj.exe\u202c \u2066a door\u2069 \u200fend",
    "h-arabic": "قطة صغيرة في المطر (a cat, 4K)",
    "h-control": "a bell\x07 in \x1b[31mred\x1b[0m\x9b1m, line one\nline two\ttabbed",
    "h-long": LONG_WORD,
    "h-quotes": """ "double" 'single' `back` \\ & ampersand """,
    "h-entity": "&lt;b&gt;bold&lt;/b&gt; &amp;amp; &#x3c;i&#x3e;",
    "h-url": "javascript:window.breached=8 https://evil.example/x.js",
    "h-template": "{{ 7 * 7 }} {% raw %} ${window.breached = 9} __proto__",
    "h-separator": 'line\u2028separator\u2029 and {"json": "</script>"}',
}
#: Reasons of the failures: of one provider's, and of all others'.
CRASH_REASON: Final = "the renderer stopped; try again"
FAILURE_REASON: Final = "<img src=x onerror='window.breached = 10'> was refused by moderation"
_SCENES: Final = (
    "a paper boat drifting at dawn", "an old lighthouse in heavy rain", "a clockwork owl waking up",
    "a red fox in a quiet library", "a glass whale above the clouds", "a brass tram lit by lanterns",
)  # fmt: skip
_RATIOS: Final = ("16:9", "9:16", "1:1", "4:3", "5:2")
#: How many jobs of the last provider are left unsent.
_PLANNED: Final = 3
#: Runs the commands that its argument holds as JSON.
_LAUNCHER: Final = """
import json, sys
from pika_async.__main__ import main
sys.exit(any([main(argv) not in {0, 1} for argv in json.loads(sys.argv[1])]))
"""
_KEY: Final = "canary-3f9b2c7d51e84a06"


@attrs.frozen
class BatchPage:
    """Folder of a batch, with the lines of its `results.jsonl` and the requests as they were given."""

    folder: Path
    results: Sequence[Mapping[str, Any]]
    requests: Mapping[str, Mapping[str, Any]]

    @property
    def url(self) -> str:
        return (self.folder / "index.html").as_uri()

    @property
    def finished(self) -> dict[str, Mapping[str, Any]]:
        """Lines of the settled and parked jobs, by key."""
        return {row["key"]: row for row in self.results if row["status"] != "planned"}

    @property
    def playable(self) -> set[str]:
        """Keys of the jobs with a video on disk."""
        return {row["key"] for row in self.results if row["file"]}

    def video_url(self, key: str) -> str:
        """Return the address of a job's video on disk."""
        return (self.folder / str(self.finished[key]["file"])).as_uri()

    def keys_where(self, **fields: str) -> set[str]:
        """Return the keys of the finished jobs whose line and request have these values."""
        return {
            key
            for key, row in self.finished.items()
            if all({**row, **self.requests[key]}.get(name) == value for name, value in fields.items())
        }


def make_batch_page(folder: Path) -> BatchPage:
    """Run one batch per provider into `folder`, then `resume`, which writes the page of all of them."""
    folder.mkdir(parents=True)
    requests = {request["key"]: request for name in EMULATED_GATEWAYS for request in _requests(name)}
    rules, commands = list(_rules()), []
    options: dict[str, Any] = {"durations": "lognormal:0.15,0.5", "video_seconds": 0.8, "seed": 7, "api_key": _KEY}
    with Emulator(**options, scenario=Scenario.of(rules)).in_thread() as emulator:
        for name in EMULATED_GATEWAYS:
            source = folder.with_name(f"{name}.jsonl")
            rows = list(_requests(name))
            source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            more = (
                ["--max-charges", str(_charges(requests.values()) - _PLANNED)] if name == EMULATED_GATEWAYS[-1] else []
            )
            target = ["--provider", name, "--base-url", emulator.base_url(name), "--expected-seconds", "0.15"]
            commands.append(["batch", str(source), "--out", str(folder), *target, "--price", "0.28", *more])
        _run([*commands, ["resume", str(folder)]])
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    page = BatchPage(folder, [json.loads(line) for line in lines], requests)
    statuses = {JobStatus(row["status"]) for row in page.results}
    missing = {
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.REJECTED,
        JobStatus.UNKNOWN,
        JobStatus.PLANNED,
    } - statuses
    assert not missing, f"the batch has no job that is {', '.join(missing)}"
    return page


def _requests(provider: str) -> Iterator[dict[str, Any]]:
    """Yield ten requests of one provider: hostile prompts, failures, a refusal, a doubt, and what succeeds."""
    hostile = list(HOSTILE_PROMPTS.items())[EMULATED_GATEWAYS.index(provider) :: len(EMULATED_GATEWAYS)]
    effects = find_provider(provider).effects
    yield {"key": f"{provider}-failed", "prompt": f"a storm over {provider}, fails", "effect": effects[0]}
    yield {"key": f"{provider}-refused", "prompt": f"a map of {provider}, is refused", "effect": effects[1]}
    yield {"key": f"{provider}-doubt", "prompt": f"a bridge near {provider}, drops", "effect": effects[0]}
    for number, (key, prompt) in enumerate(hostile):
        yield {"key": key, "prompt": prompt, "aspect_ratio": _RATIOS[number]}
    for number in range(7 - len(hostile)):
        scene = f"{_SCENES[number]}, by {provider}"
        more = {"effect": effects[number % 3], "aspect_ratio": _RATIOS[number % 5], "seed": 1000 + number}
        yield {"key": f"{provider}-{number}", "prompt": scene} | more


def _charges(requests: Any) -> int:
    """Return how many of the requests the emulator charges: all but the refused."""
    return sum("is refused" not in request["prompt"] for request in requests)


def _rules() -> Iterator[dict[str, Any]]:
    for provider, reason in ((EMULATED_GATEWAYS[0], CRASH_REASON), (None, FAILURE_REASON)):
        yield {"on": "create", "provider": provider, "prompt": ", fails", "do": {"fault": "fails", "reason": reason}}
    yield {"on": "create", "prompt": ", is refused", "do": {"fault": "refuse", "as": "task"}}
    yield {"on": "create", "prompt": ", drops", "do": {"fault": "drop"}}


def _run(commands: Sequence[Sequence[str]]) -> None:
    """Run commands in one process, which imports the package once; each must end, with or without problems."""
    variables = {find_provider(name).api_key_env: _KEY for name in EMULATED_GATEWAYS}
    ran = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, json.dumps(commands)],
        env={**os.environ, **variables, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
