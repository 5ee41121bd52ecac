"""Mutants of inputs: keys that are made, and tables that become requests."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        "key-without-words-unknown",
        "_planning/keys.py",
        "|([0-9a-f]{4})[0-9a-f]{4})",
        "|([0-9a-f]{4})[g-z]{4})",
        "a folder whose keys hold no words is paid for again",
        ("tests/planning/test_keys.py", "tests/cli/test_cli_keys.py"),
        "without_words",
    ),
    Mutant(
        "slug-keeps-paths",
        "_planning/keys.py",
        "        if len(longer) > MAX_SLUG_LENGTH:\n            break\n",
        "",
        "a long prompt makes a name that no file system takes",
        ("tests/planning/test_keys.py",),
        "folded_to_ascii",
    ),
    Mutant(
        "negative-is-the-prompt",
        "cli/columns.py",
        "if spelling == letters_of(name) or abbreviates(spelling, name):",
        "if False:",
        "a column `negprompt` is suggested to be the prompt",
        ("tests/cli/test_cli_columns.py",),
    ),
    Mutant(
        "near-column-kept",
        "cli/columns.py",
        "<= (1 if len(best) <= SHORT_NAME_LENGTH else 2):",
        "< 0:",
        "a mistyped column is kept as metadata, and its videos are paid without it",
        ("tests/cli/test_cli_tables.py",),
        "near_a_field",
    ),
    Mutant(
        "other-alphabet-guessed",
        "cli/text_encoding.py",
        " or _OTHER_ALPHABET.search(data)",
        "",
        "prompts of another alphabet are paid for as letters of Western Europe",
        ("tests/cli/test_cli_bad_input.py",),
        "other-alphabet",
    ),
    Mutant(
        "damaged-utf-8-guessed",
        "cli/text_encoding.py",
        "return len(characters) >= others",
        "return False",
        "a damaged UTF-8 is paid for as Windows-1252",
        ("tests/cli/test_cli_bad_input.py",),
        "damaged-utf-8",
    ),
    Mutant(
        "formula-without-value-blank",
        "cli/workbooks.py",
        'case None if cell.data_type == "str":',
        "case None:",
        "a field whose formula was never computed is left out of what is paid",
        ("tests/cli/test_cli_tables.py",),
        "formulas_without_values",
    ),
    Mutant(
        "thousands-are-decimals",
        "cli/cells.py",
        "([.,]0{1,2})?",
        "([.,]0+)?",
        "a seed of 1.000 is paid for as 1",
        ("tests/cli/test_cli_bad_input.py",),
        "csv-thousands",
    ),
    Mutant(
        "comments-unnamed",
        "cli/inputs.py",
        "    if comments:\n",
        "    if not comments:\n",
        "prompts that begin with # are dropped silently",
        ("tests/cli/test_cli_tables.py",),
        "comment_is_named",
    ),
    Mutant(
        "first-fault-alone",
        "cli/row_checks.py",
        "                fields = {name: value for name, value in fields.items() if name != root}\n",
        "                return faults, None\n",
        "faults of a row are named one a run",
        ("tests/cli/test_cli_inputs.py",),
        "every_fault",
    ),
    Mutant(
        "row-seed-replaced",
        "models/sweep.py",
        "if values is not None and own is not None:",
        'if values is not None and own is not None and field == "effect":',
        "the seed of a row is replaced by those for all, unasked",
        ("tests/test_sweep.py",),
        "wrong_argument",
    ),
    Mutant(
        "repetition-without-number",
        "models/sweep.py",
        'f"{request.fingerprint()} {number}".encode()',
        "request.fingerprint().encode()",
        "all repetitions have one seed, and are paid for as many videos of one content",
        ("tests/test_sweep.py",),
        "product",
    ),
    Mutant(
        "table-runs-formulas",
        "cli/results_table.py",
        "if _FORMULA.match(text)",
        "if False",
        "a prompt runs as a formula in the spreadsheet of a person who opens the results",
        ("tests/cli/test_results_table.py",),
        "never_a_formula",
    ),
)
