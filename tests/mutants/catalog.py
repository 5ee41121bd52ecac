"""Catalog of mutants: every `MUTANTS` of a module in this folder, one module for each room."""

from __future__ import annotations

import importlib
import pkgutil

import attrs

import tests.mutants

__all__ = ["Mutant", "load_mutants"]


@attrs.frozen
class Mutant:
    """`old` occurs once in `file` (below the package) and becomes `new`; one of `tests` must then fail."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]
    #: A pytest `-k` expression where a whole file would take long.
    only: str = ""


def load_mutants() -> tuple[Mutant, ...]:
    """Return the mutants of every module beside this one, in the order of the modules' names."""
    names = [module.name for module in pkgutil.iter_modules(tests.mutants.__path__) if module.name != "__main__"]
    modules = [importlib.import_module(f"tests.mutants.{name}") for name in names]
    return tuple(mutant for module in modules for mutant in getattr(module, "MUTANTS", ()))
