"""Requirements of tests: a missing one skips the test, or fails it where `PIKA_SKIP_NOTHING` is set."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any, NoReturn

import pytest


def skip(reason: str) -> NoReturn:
    """Skip the running test, or fail it where `PIKA_SKIP_NOTHING` is set."""
    if os.environ.get("PIKA_SKIP_NOTHING"):
        pytest.fail(f"{reason} (PIKA_SKIP_NOTHING is set)")
    pytest.skip(reason)


def require_module(name: str) -> Any:
    """Import a module of an optional dependency."""
    try:
        return importlib.import_module(name)
    except ImportError:
        skip(f"needs {name}: pip install {name}")


def require_program(name: str) -> str:
    """Return the path of a program."""
    return shutil.which(name) or skip(f"needs {name}: apt-get install {name} (or dnf, apk, pacman)")
