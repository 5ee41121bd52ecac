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

from tests.mutants_list import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent
#: How many run side by side.
WORKERS = 2
#: Seconds; a mutant that makes the tests hang is noticed too.
PATIENCE = 120
#: What pytest says when tests failed; anything else (usage, no tests collected) is a fault of the list.
FAILED = 1


def main(names: list[str]) -> int:
    """Run the mutants of those names, or all."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"no such mutant: {', '.join(sorted(unknown))}")
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    began = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as workers:
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
    source = (ROOT / "pika_async" / mutant.file).read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        return f"MISSING ({source.count(mutant.old)} times in {mutant.file})"
    with tempfile.TemporaryDirectory(prefix="pika-mutant-") as folder:
        copy = Path(folder)
        for name in ("pika_async", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        (copy / "pika_async" / mutant.file).write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests]
        if mutant.only:
            command += ["-k", mutant.only]
        # The folder first on the path, so that the copy is imported and not the installed package.
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, timeout=PATIENCE, check=False, text=True
            )
        except subprocess.TimeoutExpired:
            return "killed"
    if done.returncode == FAILED:
        return "killed"
    return "SURVIVED" if done.returncode == 0 else f"BROKEN ({done.stdout.strip().splitlines()[-1:]})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
