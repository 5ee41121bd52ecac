"""Jobs whose last answers had an unknown word: the word and the URL beside it in the output, `status` and the lines."""

from __future__ import annotations

import pytest

from tests.cli.batch_process import HANG_S, start_batch, wait_until
from tests.cli.command_line import CommandLine, serving


@pytest.mark.parametrize("provider", ["cometapi", "native"])
def test_the_last_thing_seen_is_shown_wherever_the_job_is(cli: CommandLine, provider: str) -> None:
    """The summary, `status`, its JSON, `results.jsonl` and a later `resume` have the word and the URL; nothing is paid."""
    with serving({"on": "feed", "do": {"fault": "word", "word": "archived"}}) as emulator:
        source = cli.write("b.jsonl", '{"prompt": "a cat", "key": "k"}')
        ran = cli.batch(emulator, source, "--deadline", "1", provider=provider)
        [record] = cli.results()
        assert (ran.code, record["status"], record["file"]) == (1, "timed_out", None)
        assert record["video_url"].startswith(emulator.cdn_url)
        assert record["error"]["type"] == "DeadlineExceeded"
        assert f"(last seen: archived, {record['video_url']})" in record["error"]["message"]
        for shown in (ran, cli("status", "pika-out")):
            flat = "".join((shown.out + shown.err).split())
            assert "lastseen:archived," in flat
            assert "".join(str(record["video_url"]).split()) in flat
        assert cli("status", "pika-out", "--json").records == [record]
        cli("resume", "pika-out", "--deadline", "1")
        [later] = cli.results()
        assert (later["video_url"], later["error"]["type"]) == (record["video_url"], "DeadlineExceeded")
        assert len(emulator.ledger) == 1


@pytest.mark.slow
def test_an_unknown_word_of_an_unsettled_job_is_in_status(cli: CommandLine) -> None:
    """`status` lists the word and the URL beside it while the batch runs, and after the batch was killed."""
    with serving({"on": "feed", "do": {"fault": "word", "word": "archived"}}) as emulator:

        def shows_word() -> bool:
            shown = "".join(cli("status", "pika-out").out.split()) if (cli.folder / "pika-out").exists() else ""
            return "2withtheunknownstatusword'archived'" in shown and f"lastseen:archived,{emulator.cdn_url}" in shown

        with start_batch(emulator, cli.folder, "--expected-seconds", "0.2", "--max-in-flight", "2") as process:
            try:
                wait_until(shows_word)
                assert process.poll() is None
            finally:
                process.kill()
                process.communicate(timeout=HANG_S)
        assert shows_word()
        records = [record for record in cli("status", "pika-out", "--json").records if record["task_id"]]
        assert [record["status"] for record in records] == ["running", "running"]
        assert all(record["video_url"].startswith(emulator.cdn_url) for record in records)


def test_a_video_that_is_asked_for_alone_shows_the_last_thing_seen(cli: CommandLine) -> None:
    """`generate` ends with the word and the URL that stood beside it."""
    with serving({"on": "feed", "do": {"fault": "word", "word": "expired"}}) as emulator:
        where = ("--provider", "native", "--base-url", emulator.base_url("native"))
        ran = cli("generate", "a cat", *where, "--out", "cat.mp4", "--deadline", "1")
        assert ran.code == 1
        assert "last seen: expired, http" in " ".join(ran.err.split())
