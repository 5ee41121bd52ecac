"""How the project is checked. `nox -s tests` runs the suite on every Python found that the classifiers name."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "typing", "tests", "slow", "demo"]
# A machine has one Python more often than four: what is found is tested.
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

# Every worker and every process that a test starts would compile each module again, which takes longer than most tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
#: Four workers for two cores: most of what the suite does is wait.
PYTEST = ("python", "-m", "pytest", "-n", "4", "--dist", "worksteal")
DEFAULT = "not live and not typing and not slow and not browser"


def _group(name: str) -> list[str]:
    return [*nox.project.dependency_groups(PROJECT, name)]


def _direct(*extras: str) -> list[str]:
    """The lowest direct dependencies, as exact versions."""
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [line.split(";")[0].strip().replace(">=", "==") for line in wanted]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the suite without its slowest cases on every Python found; warnings are errors.

    All of it on the first Python; the others leave out what does not depend on them: see `tests/once.py`.
    """
    session.install("-e", ".[cli,dbos,emulator,speed]", *_group("test"))
    session.run(*PYTEST, "-m", DEFAULT if session.python == PYTHONS[0] else f"{DEFAULT} and not once", *session.posargs)


@nox.session(python=PYTHONS[0])
def slow(session: nox.Session) -> None:
    """Run the slowest cases on one Python."""
    session.install("-e", ".[cli,dbos,emulator,speed]", *_group("test"))
    session.run(*PYTEST, "-m", "slow and not live and not browser", *session.posargs)


@nox.session(python=PYTHONS[0])
def explore(session: nox.Session) -> None:
    """Run the property tests with ten times the examples, others in every run; a failure prints its seed."""
    session.install("-e", ".[cli,dbos,emulator,speed]", *_group("test"))
    seed = f"--hypothesis-seed={random.SystemRandom().randrange(2**32)}"
    session.run(*PYTEST, "-m", "hypothesis and not live", "--hypothesis-profile", "explore", seed, *session.posargs)


@nox.session(python=PYTHONS[0])
def browser(session: nox.Session) -> None:
    """Open the pages in Debian's Chromium; screenshots go to `.nox/browser/tmp`, or to `PIKA_BROWSER_ARTEFACTS`."""
    session.install("-e", ".[cli,dbos,emulator,speed]", *_group("test"))
    env = {"PIKA_BROWSER_ARTEFACTS": os.environ.get("PIKA_BROWSER_ARTEFACTS") or session.create_tmp()}
    # Two browsers, each with a batch of its own, keep two cores busy.
    session.run("python", "-m", "pytest", "-n", "2", "-m", "browser", "tests/browser", *session.posargs, env=env)


@nox.session(python=PYTHONS[0])
def wheel(session: nox.Session) -> None:
    """Run the suite on the built wheel, with the lowest direct dependencies that pyproject.toml allows.

    What does not depend on them is left out: see `tests/once.py`.
    """
    extras = ("cli", "dbos", "emulator", "otel", "s3", "speed")
    built = Path(session.create_tmp(), "dist")
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(built), ".", silent=True)
    (package,) = built.glob("*.whl")
    # --force-reinstall: the version stays the same while the code changes.
    session.install("--force-reinstall", "--no-deps", str(package))
    session.install(f"{package}[{','.join(extras)}]", *_group("test"), *_direct(*extras))
    # The suite runs in a copy without the package's source, so that the installed package is what it imports.
    copy = Path(session.create_tmp(), "copy")
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("tests", "benchmarks", "examples", "docs"):
        shutil.copytree(name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*Path().glob("*.md"), Path("pyproject.toml"), Path("noxfile.py")):
        shutil.copy(path, copy)
    with session.chdir(copy):
        session.run(*PYTEST, "-m", f"{DEFAULT} and not once", *session.posargs)


@nox.session(python=PYTHONS[0])
def crash(session: nox.Session) -> None:
    """200 kills at random times, and one before each system call that writes, syncs, renames or sends; needs strace.

    Then ten minutes of gateways whose moods change at random, with ten kills.

    `nox -s crash -- 40` is the short form: 40 kills at random times, and the rest of the crash tests is left to the
    sessions `tests` and `slow`. Both run the stories of the journal on its real thread and a real disk.
    """
    session.install("-e", ".[cli,dbos,emulator,speed]", *_group("test"))
    rounds, *options = (
        session.posargs if session.posargs[:1] and session.posargs[0].isdecimal() else ["", *session.posargs]
    )
    env = {"PIKA_REAL_JOURNAL": "1", "PIKA_CRASH_ROUNDS": rounds or "200"}
    if not rounds:
        env |= {"PIKA_CRASH_EVERY": "1"}
        env |= {"PIKA_MOOD_JOBS": "2000", "PIKA_MOOD_SECONDS": "600", "PIKA_MOOD_KILLS": "10"}
    files = ["tests/crash/test_random.py" if rounds else "tests/crash", "tests/stories/test_resuming.py"]
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "worksteal", "-rP", *files, *options, env=env)


@nox.session(python=PYTHONS[0])
def cluster(session: nox.Session) -> None:
    """600 jobs on four accounts while workers are killed, stopped and terminated; needs PostgreSQL.

    `PIKA_STORM_SEED` repeats a run. The short form, of 60 jobs, and a story for each place of a crash are in the
    session `slow`.
    """
    session.install("-e", ".[cli,dbos,emulator,speed]", *_group("test"))
    file = "tests/engines/test_worker_storm.py"
    session.run(
        "python", "-m", "pytest", "-rP", "--timeout=600", file, *session.posargs, env={"PIKA_CLUSTER_JOBS": "600"}
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: every rule but those that pyproject.toml names with a reason; and the format."""
    session.install(*_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Mypy strict over everything, pyright over the public types, and what both refuse."""
    session.install("-e", ".[cli,dbos,emulator,speed]", *_group("typing"), *_group("bench"), "nox")
    session.run("mypy")
    session.run("pyright")
    session.run("python", "-m", "pytest", "-m", "typing", "tests/typing", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job on the embedded emulator, as the README's first command runs it."""
    session.install(".[cli,emulator]")
    with session.chdir(session.create_tmp()):
        session.run("pika-async", "demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks: each prints a ratio against a peer or a bound; see `benchmarks/run.py` for names and arguments.

    `-- --check` compares the counts that do not depend on the clock with the recorded ones; `-- --record` records them.
    """
    if session.posargs[:1] in (["--check"], ["--record"]):
        session.install("-e", ".")  # an extra would change what is counted
    else:
        session.install("-e", ".[cli,dbos,emulator,speed]", *_group("bench"))
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Named defects, each of which the suite must find."""
    session.install("-e", ".[cli,dbos,emulator,speed]", *_group("test"))
    session.run("python", "-m", "tests.mutants", *session.posargs)
