"""`python -m tests.mutants [NAME ...]`: breaks one promise at a time in a copy, and sees that the tests notice.

Prints a line for each mutant. Exit code 1 if one survived, or if its text no longer occurs exactly once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.catalog import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
#: How many run side by side.
WORKERS = 2
#: Seconds; a mutant that makes the tests hang is noticed too.
PATIENCE = 120
#: What pytest says when tests failed; anything else (usage, no tests collected) is a fault of the list.
FAILED = 1
#: Our own, beside pytest's 0 to 5.
HUNG = -1


def main(names: list[str]) -> int:
    """Run the mutants of those names, or all; before that their tests on the package as it is."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"no such mutant: {', '.join(sorted(unknown))}")
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    began = time.monotonic()
    suites = sorted({(mutant.tests, mutant.only) for mutant in chosen})
    with ThreadPoolExecutor(WORKERS) as workers:
        healthy = dict(zip(suites, workers.map(_passes, suites), strict=True))
        if not all(healthy.values()):
            for (tests, only), passes in healthy.items():
                if not passes:
                    print(f"these fail without any mutant: {' '.join(tests)}{f' -k {only!r}' if only else ''}")
            return 1
        outcomes = list(workers.map(_tell, chosen))
    killed = sum(outcome == "killed" for outcome in outcomes)
    print(f"{killed} of {len(outcomes)} killed in {time.monotonic() - began:.0f} s")
    return 0 if killed == len(outcomes) else 1


def _tell(mutant: Mutant) -> str:
    began = time.monotonic()
    outcome = _fate(mutant)
    print(f"{outcome:9} {mutant.name:28} {time.monotonic() - began:5.1f} s  {mutant.breaks}", flush=True)
    return outcome


def _fate(mutant: Mutant) -> str:
    times = (ROOT / "pika_async" / mutant.file).read_text(encoding="utf-8").count(mutant.old)
    if times != 1:
        return f"MISSING ({times} times in {mutant.file})"
    code = _run(mutant.tests, mutant.only, mutant)
    return "killed" if code in {FAILED, HUNG} else "SURVIVED" if code == 0 else f"BROKEN (pytest says {code})"


def _passes(suite: tuple[tuple[str, ...], str]) -> bool:
    return _run(*suite) == 0


def _run(tests: tuple[str, ...], only: str, mutant: Mutant | None = None) -> int:
    """Pytest's exit code on a copy of the package, mutated or not."""
    with tempfile.TemporaryDirectory(prefix="pika-mutant-") as folder:
        copy = Path(folder)
        for name in ("pika_async", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant is not None:
            file = copy / "pika_async" / mutant.file
            file.write_text(file.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        if only:
            command += ["-k", only]
        # The folder first on the path, so that the copy is imported and not the installed package.
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            return subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, timeout=PATIENCE, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return HUNG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
