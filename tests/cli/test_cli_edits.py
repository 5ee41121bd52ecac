"""Running a batch with an edited input, and with `--again`; checked by charges."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.cli.batches import REFUSED_POLL, charged, jsonl, statuses, stop_while_in_flight, submissions
from tests.cli.command_line import CommandLine, serving

# --- edits ------------------------------------------------------------------------------------------------------------


def test_rows_are_recognized_in_any_order(cli: CommandLine) -> None:
    """After reordering, inserting, removing and editing rows, only new content is paid for."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.txt", "a\nb\nc\nd"), "--no-download")
        first = {record["prompt"]: record["key"] for record in cli.results()}
        ran = cli.batch(emulator, cli.write("b.txt", "new\nd\nc, edited\na\nb"), "--no-download")
        assert ran.code == 0
        assert charged(emulator) == Counter(["a", "b", "c", "d", "new", "c, edited"])
        records = {record["prompt"]: record for record in cli.results()}
        assert {prompt: records[prompt]["key"] for prompt in "abcd"} == first
        assert [records[prompt]["index"] for prompt in ("new", "d", "c, edited", "a", "b")] == [0, 1, 2, 3, 4]
        assert "5 jobs: 5 succeeded" in ran.out
        assert "1 job of an earlier input is not in this one and was left as it is" in ran.out
        assert len(statuses(cli)) == 6


def test_every_equal_row_is_a_job(cli: CommandLine) -> None:
    """A third equal row adds one charge; removing rows adds none and leaves their jobs as they are."""
    with serving() as emulator:
        for rows, paid in ((2, 2), (3, 3), (1, 3), (3, 3)):
            assert cli.batch(emulator, cli.write("b.txt", "same\n" * rows), "--no-download").code == 0
            assert (len(emulator.ledger), len(statuses(cli))) == (paid, paid)


def test_the_format_of_the_input_does_not_matter(cli: CommandLine) -> None:
    """The same content as text, JSON lines and CSV is the same job."""
    with serving() as emulator:
        for name, content in (
            ("b.txt", "a cat\na dog"), ("b.jsonl", jsonl("a dog", "a cat")), ("b.csv", "prompt,seed\na cat,\na dog,\n"),
        ):  # fmt: skip
            assert cli.batch(emulator, cli.write(name, content), "--no-download").code == 0
        assert charged(emulator) == Counter(["a cat", "a dog"])


def test_a_row_with_a_copied_key_does_not_replace_an_equal_row(cli: CommandLine) -> None:
    """A row with a key from the results and an equal row without one are two jobs, in either order."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.txt", "a"), "--no-download")
        [record] = cli.results()
        named = (str(record["key"]), "a")
        for content in (jsonl(named, "a"), jsonl("a", named)):
            ran = cli.batch(emulator, cli.write("b.jsonl", content), "--no-download")
            assert (ran.code, len(emulator.ledger), len(statuses(cli))) == (0, 2, 2)


def test_a_key_with_other_content_is_refused_before_anything_is_sent(cli: CommandLine) -> None:
    """Exit code 2 with the line, the key and the fix; the other rows are not sent either."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        cli.batch(emulator, source, "--no-download")
        before = cli.results()
        calls = len(emulator.requests)
        ran = cli.batch(emulator, cli.write("b.jsonl", jsonl(("a", "a"), ("new", "n"), ("b", "edited"))))
        assert (ran.code, len(emulator.requests), cli.results()) == (2, calls, before)
        assert "b.jsonl:3: key: 'b' belongs to a job with other content (succeeded)" in ran.err
        assert "--again b" in ran.err
        assert "nothing was sent" in ran.err
        assert len(cli("status", "pika-out", "--json").records) == 2


# --- again ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["pika-out", "deep/../other out"])
def test_again_pays_exactly_once_more(cli: CommandLine, out: str) -> None:
    """Earlier jobs and files are kept as KEY~1 and so on; the same command without --again pays nothing."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        for more in ((), ("--again", "a"), (), ("--again", "a", "--again", "a"), ()):
            assert cli.batch(emulator, source, "--out", out, *more).code == 0
        ids = [charge.task_id for charge in emulator.ledger if charge.prompt == "a"]
        assert charged(emulator) == Counter({"a": 3, "b": 1})
        records = {record["key"]: record for record in cli.results(out)}
        assert [records[key]["task_id"] for key in ("a~1", "a~2", "a")] == ids
        assert [records[key]["file"] for key in ("a~1", "a~2", "a")] == [
            "videos/a~1.mp4", "videos/a~2.mp4", "videos/a.mp4"
        ]  # fmt: skip
        videos = cli.folder / out / "videos"
        assert sorted(path.name for path in videos.iterdir()) == ["a.mp4", "a~1.mp4", "a~2.mp4", "b.mp4"]
        assert len(emulator.cdn_requests) == 4
        assert cli("resume", out).code == 0
        assert len(emulator.requests) == 8


def test_again_with_new_content(cli: CommandLine) -> None:
    """The key then belongs to the new content."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.jsonl", jsonl(("a", "old"))), "--no-download")
        source = cli.write("b.jsonl", jsonl(("a", "new")))
        assert cli.batch(emulator, source, "--no-download", "--again", "a").code == 0
        assert cli.batch(emulator, source, "--no-download").code == 0
        assert charged(emulator) == Counter(["old", "new"])
        assert {record["key"]: record["prompt"] for record in cli.results()} == {"a~1": "old", "a": "new"}


def test_again_for_a_job_that_failed(cli: CommandLine) -> None:
    """The same command skips failed and rejected jobs; `--again` tries them once more."""
    rules = (
        {"on": "create", "prompt": "fails", "nth": 1, "do": "fails"},
        {"on": "create", "prompt": "refused", "nth": 1, "do": {"fault": "refuse", "as": "invalid"}},
    )
    with serving(*rules) as emulator:
        source = cli.write("b.jsonl", jsonl(("f", "fails"), ("r", "refused")))
        for _ in range(2):
            assert cli.batch(emulator, source, "--no-download").code == 1
            assert len(submissions(emulator)) == 2
        assert cli.batch(emulator, source, "--no-download", "--again", "f", "--again", "r").code == 0
        assert charged(emulator) == Counter({"fails": 2, "refused": 1})
        assert statuses(cli) == {"f~1": "failed", "r~1": "rejected", "f": "succeeded", "r": "succeeded"}


def test_again_of_a_key_that_is_not_in_the_input(cli: CommandLine) -> None:
    """Exit code 2, nothing sent; a key of a new row is paid for once, as without --again."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        for key in ("b", "a~1", "", "\x1b[2J"):
            ran = cli.batch(emulator, source, "--again", key)
            assert (ran.code, len(emulator.requests)) == (2, 0)
            assert "--again" in ran.err
            assert "\x1b" not in ran.err
        assert cli.batch(emulator, source, "--again", "a").code == 0
        assert (charged(emulator), statuses(cli)) == (Counter("a"), {"a": "succeeded"})


def test_again_of_a_job_in_flight_continues_it(cli: CommandLine) -> None:
    """A message says so, and the job is polled to its end; one charge."""
    with serving(REFUSED_POLL) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        stop_while_in_flight(cli, emulator, source)
        ran = cli.batch(emulator, source, "--again", "a")
        assert (ran.code, statuses(cli), charged(emulator)) == (0, {"a": "succeeded"}, Counter("a"))
        assert "'a' must be finished before it is paid again; wait for it" in ran.err


def test_again_with_new_content_for_a_job_in_flight_sends_nothing(cli: CommandLine) -> None:
    """Exit code 2 with the row, before any other row is sent."""
    with serving(REFUSED_POLL) as emulator:
        stop_while_in_flight(cli, emulator, cli.write("b.jsonl", jsonl(("a", "a"))))
        calls = len(emulator.requests)
        ran = cli.batch(emulator, cli.write("b.jsonl", jsonl("new", ("a", "edited"))), "--again", "a")
        assert (ran.code, len(emulator.requests)) == (2, calls)
        assert "b.jsonl:2: key: 'a' belongs to a job in flight with other content" in ran.err


def test_again_of_a_job_that_was_never_sent_pays_once(cli: CommandLine) -> None:
    """No earlier job is kept, and nothing is left to continue."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        cli.batch(emulator, source, "--no-download", "--max-charges", "1", "--max-in-flight", "1")
        assert statuses(cli) == {"a": "succeeded", "b": "planned"}
        ran = cli.batch(emulator, source, "--no-download", "--again", "b", "--max-charges", "2")
        assert (ran.code, charged(emulator)) == (0, Counter("ab"))
        assert statuses(cli) == {"a": "succeeded", "b": "succeeded"}
        assert "to continue" not in cli("status", "pika-out").out


def test_again_does_not_write_over_a_file(cli: CommandLine) -> None:
    """If the new name of the earlier video is taken: exit code 2, nothing is sent, both files are kept."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        cli.batch(emulator, source)
        videos = cli.folder / "pika-out" / "videos"
        (videos / "a~1.mp4").write_text("mine")
        calls = len(emulator.requests)
        ran = cli.batch(emulator, source, "--again", "a")
        assert (ran.code, len(emulator.requests), (videos / "a~1.mp4").read_text()) == (2, calls, "mine")
        assert "--again a: " in ran.err
        assert "which exists already; remove one of them; nothing was sent" in ran.err
        assert cli.batch(emulator, source).code == 0
        assert charged(emulator) == Counter("a")
