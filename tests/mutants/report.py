"""Mutants of the page: text that becomes markup, a policy that lets it run, pages that are cut or not ours."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

MUTANTS: Final = (
    Mutant(
        "page-data-ends-its-script",
        "report/page.py",
        '"<": "\\\\u003c", ',
        "",
        "a prompt with </script> ends the block of data",
        ("tests/report/test_page.py",),
    ),
    Mutant(
        "page-title-unescaped",
        "report/page.py",
        "autoescape=True",
        "autoescape=False",
        "the title of a page is markup",
        ("tests/report/test_page.py",),
    ),
    Mutant(
        "page-policy-allows-inline-scripts",
        "report/page.py",
        "script-src 'self' file:;",
        "script-src 'self' file: 'unsafe-inline';",
        "a script inside the page would run",
        ("tests/report/test_page.py",),
    ),
    Mutant(
        "page-written-in-place",
        "report/writer.py",
        'part = path.with_name(f".{path.name}.part")',
        "part = path",
        "a process that dies while it writes leaves half a page",
        ("tests/report/test_writer.py",),
    ),
    Mutant(
        "page-of-the-user-overwritten",
        "report/writer.py",
        'if not is_own_page(file.read(PAGE_START_BYTES).decode("utf-8", "replace")):',
        "if False:",
        "a page that the user wrote is lost",
        ("tests/report/test_writer.py",),
    ),
    Mutant(
        "page-groups-by-status-alone",
        "report/cards.py",
        '(problem["status"], problem.get("reason", "no reason given"))',
        '(problem["status"], "")',
        "one row has failures of several reasons",
        ("tests/report/test_cards.py",),
    ),
    Mutant(
        "page-command-pays-for-other-groups",
        "report/cards.py",
        '*(own if few else ["--failed"])',
        '"--failed"',
        "the command of a group pays for the jobs of other groups too",
        ("tests/report/test_cards.py",),
    ),
    Mutant(
        "page-links-any-file",
        "report/cards.py",
        "        if file.is_relative_to(base := find()):\n"
        '            return "./" + quote(file.relative_to(base).as_posix(), safe="/")\n',
        '        return "./" + quote(str(file), safe="/")\n',
        "the page links files outside of its folder",
        ("tests/report/test_cards.py",),
    ),
    Mutant(
        "page-written-without-a-pause",
        "report/writer.py",
        "max(MIN_PAUSE_S, PAUSE_FACTOR * write_s)",
        "MIN_PAUSE_S",
        "writing the page of a large batch takes most of a core",
        ("tests/report/test_writer.py",),
    ),
)
