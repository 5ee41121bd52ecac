"""Mutants of the HTML that notebooks show."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

NOTEBOOK: Final = ("tests/test_notebook.py",)

MUTANTS: Final = (
    Mutant(
        "notebook-text-unescaped",
        "models/notebook.py",
        "return escape(strip_control(text), quote=True)",
        "return strip_control(text)",
        "a prompt runs a script in the notebook of whoever shows its job",
        NOTEBOOK,
        "hostile",
    ),
    Mutant(
        "notebook-any-scheme",
        "models/notebook.py",
        'url.isprintable() and url.lower().startswith(("http://", "https://")) and bool(parts.netloc)',
        "bool(parts.scheme)",
        "a gateway's javascript: address is a player's source",
        NOTEBOOK,
        "only_http",
    ),
)
