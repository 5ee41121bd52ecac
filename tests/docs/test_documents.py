"""The README's examples run, against the emulator, as they are written; and what it says first stands there."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import types
from pathlib import Path

import pytest

from pika_async.emulator import Emulator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:40])
def test_readme_example_runs(block: str, everywhere: Emulator, tmp_path: Path) -> None:
    """Each example of the README runs to its end as it stands, and what it downloads is there."""
    code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {}

    async def run() -> None:
        started = types.FunctionType(code, names)()
        if inspect.isawaitable(started):
            await started

    asyncio.run(run())
    if "cat.mp4" in block:
        assert (tmp_path / "cat.mp4").stat().st_size > 1000
    if "download_to" in block:
        assert len(list((tmp_path / "videos").glob("*.mp4"))) == 5


def test_readme_begins_with_the_two_commands() -> None:
    """What a newcomer runs first stands first, word for word."""
    demo = 'python -m pip install -e ".[cli,emulator]" && pika-async demo'
    tests = "python -m pip install nox && python -m nox -s tests"
    assert 0 < README.index(demo) < README.index(tests) < README.index("## One video")


def test_readme_states_the_promise() -> None:
    """The promise stands in the README, word for word."""
    promise = (
        "at most one paid submission per job unless it is proven unsent; never a silent loss; every doubt is listed"
    )
    assert promise in " ".join(README.split()).lower()


def test_readme_links_lead_somewhere() -> None:
    """Every relative link of the README is a file."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
