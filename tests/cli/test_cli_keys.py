"""Default keys of a batch: words for people, and the keys of folders that were made without words stay valid."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from pika_async.emulator import Emulator
from tests.cli.batches import charged, statuses
from tests.cli.command_line import CommandLine, serving

#: An input without keys.
TABLE: Final = (
    "prompt,effect,seed\na café on the beach,,\na café on the beach,Melt,7\n海边的猫,,\n🐈🌧,,\na café on the beach,,\n"
)
#: The default keys of its jobs as they were made before keys held words.
OLD_KEYS: Final = ["00001-590ab3df", "00002-4f0346cd", "00003-028f8243", "00004-7522e85f", "00005-590ab3df"]


def pay_with_old_keys(cli: CommandLine, emulator: Emulator) -> None:
    """Make a folder of paid jobs with the keys that the default ones once were."""
    header, *rows = TABLE.splitlines()
    keyed = [f"key,{header}", *(f"{key},{row}" for key, row in zip(OLD_KEYS, rows, strict=True))]
    assert cli.batch(emulator, cli.write("old.csv", "\n".join(keyed)), "--no-download").code == 0
    emulator.ledger.clear()


def test_default_keys_hold_words_of_the_prompt(cli: CommandLine) -> None:
    """A file is named by position, prompt and content; a prompt without ASCII words by position and content."""
    with serving() as emulator:
        ran = cli.batch(emulator, cli.write("b.csv", TABLE))
        assert (ran.code, len(emulator.ledger)) == (0, 5)
    keys = [record["key"] for record in sorted(cli.results(), key=lambda record: record["index"])]
    assert keys == [
        "00001-a-cafe-on-the-beach-590a", "00002-a-cafe-on-the-beach-4f03", "00003-028f8243", "00004-7522e85f",
        "00005-a-cafe-on-the-beach-590a",
    ]  # fmt: skip
    assert sorted(path.stem for path in (cli.folder / "pika-out" / "videos").iterdir()) == keys


@pytest.mark.parametrize("reverse", [False, True], ids=["the same input", "in another order"])
def test_a_folder_with_keys_without_words_pays_nothing_again(cli: CommandLine, reverse: bool) -> None:
    """Its jobs are found by their content, and keep their keys."""
    header, *rows = TABLE.splitlines(keepends=True)
    source = cli.write("b.csv", "".join([header, *(reversed(rows) if reverse else rows)]))
    with serving() as emulator:
        pay_with_old_keys(cli, emulator)
        ran = cli.batch(emulator, source, "--no-download")
        assert (ran.code, charged(emulator)) == (0, Counter())
        assert sorted(statuses(cli)) == OLD_KEYS
        ran = cli.batch(emulator, cli.write("b.csv", TABLE + "a dog,,\n"), "--no-download")
        assert (ran.code, charged(emulator)) == (0, Counter(["a dog"]))
        assert sorted(statuses(cli))[:5] == OLD_KEYS
