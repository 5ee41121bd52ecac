"""Mutants of the options from files and variables, and of the provider that is left out."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_TESTS: Final = ("tests/cli/test_cli_configuration.py",)
_PLACES: Final = ("tests/cli/test_cli_places.py",)

MUTANTS: Final = (
    Mutant(
        "general-variable-first",
        "cli/configuration.py",
        'return found[""] | found[command]',
        'return found[command] | found[""]',
        "a variable for all commands counts more than the one of the command",
        _TESTS,
        only="nearest",
    ),
    Mutant(
        "table-after-general",
        "cli/configuration.py",
        'return found | {name: (f"{path}: [{command}] {name}", value) for name, value in own.items()}',
        'return {name: (f"{path}: [{command}] {name}", value) for name, value in own.items()} | found',
        "an entry above all tables counts more than the one in the table of the command",
        _TESTS,
        only="nearest",
    ),
    Mutant(
        "place-of-a-late-mistake",
        "cli/commands.py",
        "terminal.error(name_places(error_text(error), places, setting))",
        "terminal.error(error_text(error))",
        "a value of a file that only the client refuses is named by its option alone",
        _PLACES,
        only="wrong_value_is_named",
    ),
    Mutant(
        "option-named-like-a-command",
        "cli/configuration.py",
        "Dict({commands[0]: values}, source=source)(app, commands, arguments)",
        "Dict(values, source=source, use_commands_as_keys=False)(app, commands, arguments)",
        "`effects` in a file or a variable is ignored without a word",
        _PLACES,
        only="name_of_a_command",
    ),
    Mutant(
        "narrow-table-breaks-words",
        "cli/terminal.py",
        "    if spare < 0:\n        return False",
        "    spare = max(0, spare)",
        "a table that is wider than the terminal breaks its words",
        ("tests/cli/test_cli_widths.py",),
        only="whole_words",
    ),
    Mutant(
        "secret-value-in-a-file",
        "cli/configuration.py",
        "if isinstance(item, str) and _is_secret(item):",
        "if False:",
        "a key or a password in a file is taken",
        _TESTS,
        only="mistake_in_a_file",
    ),
    Mutant(
        "mistyped-option-ignored",
        "cli/configuration.py",
        'raise UsageError(f"{place}: must be an option of {owner}, without the dashes in front{hint}")',
        "return",
        "a mistyped limit in a file limits nothing",
        _TESTS,
        only="mistake_in_a_file",
    ),
    Mutant(
        "mistyped-variable-ignored",
        "cli/configuration.py",
        '            if variable not in known:\n                raise UsageError(f"{variable}: {_unknown_variable(variable, list(known))}")\n',
        "            if variable not in known:\n                continue\n",
        "a mistyped limit in a variable limits nothing",
        _TESTS,
        only="mistake_in_a_variable",
    ),
    Mutant(
        "first-provider-of-several-keys",
        "cli/provider_keys.py",
        "    if len(found) == 1:\n",
        "    if found:\n",
        "with several keys and no --provider the first provider is paid",
        _TESTS,
        only="several_keys",
    ),
    Mutant(
        "key-file-for-any-provider",
        "cli/provider_keys.py",
        "    if has_key_file:\n",
        "    if False:\n",
        "the key in a file is sent to the provider whose own key is set",
        _TESTS,
        only="without_a_key",
    ),
    Mutant(
        "last-exit-code-of-doctor",
        "cli/doctor.py",
        "return max(codes)",
        "return codes[-1]",
        "a refused account is forgotten when the next one is fine",
        _TESTS,
        only="doctor_checks",
    ),
)  # fmt: skip
