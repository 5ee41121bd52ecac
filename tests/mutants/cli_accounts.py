"""Mutants of one batch over several accounts: what the folder remembers, and what people see of accounts."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

TESTS: Final = ("tests/cli/test_cli_accounts.py",)
COMMANDS: Final = ("tests/cli/test_cli_account_commands.py",)

MUTANTS: Final = (
    Mutant(
        "folder-forgets-its-accounts",
        "cli/folder_commands.py",
        "accounts=options.accounts or saved.accounts)",
        "accounts=options.accounts)",
        "a batch with --provider makes the folder forget its file of accounts",
        TESTS,
        "remembers_accounts",
    ),
    Mutant(
        "any-account-at-the-address-has-the-job",
        "cli/accounts.py",
        "if job.account in {None, each.name}",
        "if job",
        "status does not name the jobs that wait for an account that is missing",
        TESTS,
        "missing",
    ),
    Mutant(
        "file-of-accounts-beside-a-provider",
        "cli/accounts.py",
        "if self.accounts is not None and single:",
        "if False:",
        "--accounts beside --provider is silently left out",
        TESTS,
        "exclude",
    ),
    Mutant(
        "relative-path-of-accounts",
        "cli/accounts.py",
        "str(self.accounts.absolute())",
        "str(self.accounts)",
        "the folder's file of accounts is not found from another working directory",
        TESTS,
        "remembers_the_file",
    ),
    Mutant(
        "row-for-the-first-account-alone",
        "cli/row_checks.py",
        "    for provider in providers:\n        try:",
        "    for provider in providers[:1]:\n        try:",
        "a row that only the second account can make is refused",
        TESTS,
        "where_it_can",
    ),
    Mutant(
        "every-refusal-stops-an-account",
        "cli/account_sums.py",
        'if step.verdict == "stop"}',
        "}",
        "status names accounts that accepted their latest job as stopped",
        TESTS,
        "stopped_account",
    ),
    Mutant(
        "first-account-has-every-task",
        "cli/accounts.py",
        "if len(names) == 1:",
        "if names:",
        "a task is looked for at the first account of a file, whose key is sent there",
        COMMANDS,
        "bare_id",
    ),
    Mutant(
        "fetch-changes-the-accounts-of-a-folder",
        "cli/fetching.py",
        "options if is_new else saved, terminal",
        "options, terminal",
        "a folder of one provider goes on with the accounts of a fetch",
        COMMANDS,
        "alone",
    ),
    Mutant(
        "journal-knows-no-account",
        "cli/fetching.py",
        "known or account_named(",
        "account_named(",
        "a task that the folder knows needs the name of its account",
        COMMANDS,
        "knows_the_accounts",
    ),
    Mutant(
        "accounts-without-jobs-are-left-out",
        "cli/account_sums.py",
        "for name in without_jobs if",
        "for name in () if",
        "the JSON of status does not say that an account was stopped at once",
        TESTS,
        "stopped_account",
    ),
    Mutant(
        "budget-for-the-cheapest-account",
        "cli/spending.py",
        "highest = max(price.highest for price in known)",
        "highest = min(price.lowest for price in known)",
        "the budget that is named after a spent one does not pay for the rest",
        TESTS,
        "names_a_higher_one",
    ),
    Mutant(
        "raised-field-still-named",
        "cli/spending.py",
        "if fields and None not in fields:",
        "if any(fields):",
        "status asks to raise a limit of one account although another has room again",
        TESTS,
        "with_their_fields",
    ),
    Mutant(
        "price-of-all-on-the-card",
        "report/cards.py",
        "(price if job.cost is None else job.cost)",
        "price",
        "a card shows no cost where each account has its own price",
        ("tests/report/test_cards.py",),
    ),
)
