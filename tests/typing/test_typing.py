"""What mypy and pyright make of the public types: wrong fields are refused by name, the shown uses are clean.

Needs both checkers, so it runs in `nox -s typing` (`pytest -m typing`) and not by default.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

pytestmark = pytest.mark.typing

ROOT = Path(__file__).parents[2]
API = Path(__file__).with_name("api.py")
MISUSE = Path(__file__).with_name("misuse.py.txt")
#: The field that each line of the misuse names, by line number.
WRONG_FIELDS = {
    number: found[1]
    for number, line in enumerate(MISUSE.read_text(encoding="utf-8").splitlines(), 1)
    if (found := re.search(r'\("x", (\w+)=', line))
}
ALL_AT_ONCE = """
from pika_async import PikaClient

async def misuse(pika: PikaClient) -> None:
    await pika.generate("x", aspect="16:9", seed="abc", effect=12)
"""


def run_mypy(file: Path) -> dict[int, list[str]]:
    """Return the errors of `mypy --strict` by line number."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    errors: dict[int, list[str]] = defaultdict(list)
    for line in done.stdout.splitlines():
        if found := re.fullmatch(r".*?:(\d+): error: (.*)", line):
            errors[int(found[1])].append(found[2])
    return errors


def run_pyright(file: Path) -> dict[int, list[str]]:
    """Return the errors of pyright by line number."""
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    errors: dict[int, list[str]] = defaultdict(list)
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        errors[found["range"]["start"]["line"] + 1].append(found["message"])
    return errors


CHECKERS = pytest.mark.parametrize("check", [run_mypy, run_pyright], ids=["mypy", "pyright"])


@CHECKERS
def test_wrong_fields_are_refused_by_name(check: object, tmp_path: Path) -> None:
    """Each misuse of `generate`, `submit` and `GenerationRequest` is one error on its line that names the field."""
    file = tmp_path / "misuse.py"
    file.write_text(MISUSE.read_text(encoding="utf-8"), encoding="utf-8")
    assert callable(check)
    errors = check(file)
    assert {line: len(found) for line, found in errors.items()} == dict.fromkeys(WRONG_FIELDS, 1)
    assert [field for line, field in WRONG_FIELDS.items() if f'"{field}"' not in errors[line][0]] == []


def test_mypy_refuses_three_wrong_fields_of_one_call(tmp_path: Path) -> None:
    """A call with three wrong fields has three errors (pyright stops at the first unknown name)."""
    file = tmp_path / "misuse.py"
    file.write_text(ALL_AT_ONCE, encoding="utf-8")
    (errors,) = run_mypy(file).values()
    assert [next(field for field in ("aspect", "seed", "effect") if f'"{field}"' in error) for error in errors] == [
        "aspect",
        "seed",
        "effect",
    ]


@CHECKERS
def test_a_misspelt_name_is_refused(check: object, tmp_path: Path) -> None:
    """That public names are imported at their first use leaves checkers their list."""
    file = tmp_path / "misspelt.py"
    file.write_text("import pika_async\nfrom pika_async import PikaClent\npika_async.Vidoe\n", encoding="utf-8")
    assert callable(check)
    errors = check(file)
    assert [name for line, name in ((2, "PikaClent"), (3, "Vidoe")) if f'"{name}"' not in errors[line][0]] == []


@CHECKERS
def test_the_shown_uses_are_clean(check: object) -> None:
    """The file that shows the public types has no error."""
    assert callable(check)
    assert check(API) == {}
