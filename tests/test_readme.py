"""The README's examples and the example files run, against the emulator, as they are written."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import runpy
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from pika_async import providers
from pika_async.emulator import Emulator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """Every provider's address leads to an emulator, its key is in the environment, the folder is empty."""
    with Emulator(durations="constant:0.2", video_seconds=1).in_thread() as running:
        for name, provider in providers.PROVIDERS.items():
            local = attrs.evolve(provider, base_url=running.base_url(name))
            monkeypatch.setitem(providers.PROVIDERS, name, local)
            monkeypatch.setenv(provider.api_key_env, running.api_key)
        # Nothing is known of these tasks at first, and a real one is thought to take a minute.
        monkeypatch.setattr("pika_async.polling.adaptive.EXPECTED", 0.2)
        monkeypatch.setenv("PIKA_BASE_URL", running.base_url("native"))
        monkeypatch.chdir(tmp_path)
        yield running


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:40])
def test_readme_example_runs(block: str, emulator: Emulator, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_file_runs(
    example: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file of `examples/` runs to its end, says something, and every charge is a job of its own."""
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.count("\n") >= 1
    prompts = [charge.prompt for charge in emulator.ledger]
    assert len(prompts) == len(set(prompts)) > 0


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
