"""The live board of a database in a browser: jobs, workers and accounts; the database away, and back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from pika_async import Job
from pika_async.cli.cluster_board import database_board
from pika_async.engines import job_writes, shared_statements, statements
from pika_async.report.board_access import BoardAccess
from pika_async.report.board_servers import serving
from tests.browser.board_fixtures import OpenBoard
from tests.browser.board_server import TOKEN
from tests.browser.hostile_batch import BatchPage
from tests.engines.rows import Rows
from tests.report.jobs import failed, in_doubt, made, succeeded

pytestmark = pytest.mark.browser

SENT = datetime(2026, 1, 1, tzinfo=UTC)
#: Jobs in the database, and how many of them have ended.
JOBS, ENDED = 400, 240


@attrs.define
class SharedJobs:
    """A database with jobs, and the board of it."""

    file: Path
    rows: Rows
    url: str = ""

    def run(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in a thread: the browser's event loop runs in that of the test."""
        with ThreadPoolExecutor(1) as threads:
            threads.submit(function, *args).result()

    def save(self, *jobs: Job) -> None:
        """Save later states of jobs that are there, as a worker does."""
        self.run(self._save, jobs)

    def _save(self, jobs: Sequence[Job]) -> None:
        keys = [job.key for job in jobs]
        self.rows.run(job_writes.claim_all, keys, "node1-3f8c1d20a97b")
        self.rows.save("node1-3f8c1d20a97b", *jobs)
        for key in keys:
            self.rows.release("node1-3f8c1d20a97b", key)


def outcome(number: int, files: list[Path]) -> Job:
    """Return how a job of the database ended."""
    key, prompt = f"{number + 1:05d}-cat", f"a cat that rides wave {number}"
    at = SENT + timedelta(seconds=number)
    times: dict[str, Any] = {
        "submitted_at": at,
        "settled_at": at + timedelta(seconds=40 + number % 7),
        "cost": 0.28,
        "index": number,
    }
    if number % 20 == 7:
        return attrs.evolve(failed(key, "refused by moderation", prompt=prompt, account="comet"), **times)
    if number % 40 == 13:
        return in_doubt(key, "the connection was lost", prompt=prompt, index=number, submitted_at=at, account="gpt")
    place: dict[str, Any] = (
        {"file": files[number % len(files)]} if number % 3 else {"object_url": f"s3://clips/videos/{key}.mp4"}
    )
    done = succeeded(key, prompt, account="comet" if number % 2 else "gpt", **times)
    return attrs.evolve(done, **place, downloaded_at=times["settled_at"])


def fill(rows: Rows) -> None:
    rows.add_worker("node1-3f8c1d20a97b", ttl=100_000.0)
    rows.add_worker("node2-77aa01f2c4de", ttl=100_000.0)
    rows.add_account("comet", max_in_flight=20, max_charges=500, budget=140.0)
    rows.add_account("gpt", max_in_flight=5)
    rows.run(shared_statements.set_stop, "gpt", "gpt: the balance is used up; top it up, then nothing is lost", None)
    planned = [made(f"{number + 1:05d}-cat", f"a cat that rides wave {number}", index=number) for number in range(JOBS)]
    rows.run(statements.insert_jobs, planned)


@pytest.fixture
def shared(batch: BatchPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedJobs]:
    """Serve the board of a database with 400 jobs; it gives a sign of life each second."""
    monkeypatch.setattr("pika_async.report.board.BEAT_S", 1.0)
    file = tmp_path / "jobs.db"
    with ThreadPoolExecutor(1) as threads:  # the browser's event loop runs in that of the test
        jobs = SharedJobs(file, threads.submit(Rows.create, f"sqlite:///{file}").result())
    jobs.run(importlib.import_module, "pika_async.engines.cluster")  # it reads files
    jobs.run(fill, jobs.rows)
    files = sorted((batch.folder / "videos").glob("*.mp4"))
    jobs.save(*(outcome(number, files) for number in range(ENDED)))
    with start_blocking_portal() as portal, ExitStack() as stack:
        board = stack.enter_context(
            portal.wrap_async_context_manager(database_board(f"sqlite:///{file}", BoardAccess(TOKEN)))
        )
        jobs.url = stack.enter_context(portal.wrap_async_context_manager(serving(board, "127.0.0.1", 0)))
        yield jobs
    jobs.rows.engine.dispose()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_shows_jobs_workers_and_accounts(
    open_board: OpenBoard, shared: SharedJobs, artefacts: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    """With leases, bounds, money and stops, and it meets WCAG 2.2 AA; kept as a picture."""
    board = open_board(shared.url, width=width, color_scheme=scheme)
    board.wait_state("Live")
    region = board.page.get_by_role("region", name="Workers and accounts")
    assert region.get_by_role("row", name="node1-3f8c1d20a97b").is_visible()
    comet = region.get_by_role("row", name="comet").locator("th, td").all_inner_texts()
    assert comet == ["comet", "0 of 20", "114 of 500", "31.92 of 140.00", "sends"]
    assert "stopped: the balance is used up" in region.get_by_role("row", name="gpt").inner_text()
    assert "160 planned" in board.page.locator("#unfinished").inner_text()
    assert board.page.get_by_role("region", name="Timeline").is_visible()
    board.page.screenshot(path=artefacts / f"cluster-{width}-{scheme}.png")
    assert board.axe_violations() == []
    assert board.overflow() == 0


def test_a_change_in_the_database_comes_to_the_page(open_board: OpenBoard, shared: SharedJobs) -> None:
    """Within the same document; the command of a problem is one for the database."""
    board = open_board(shared.url)
    board.wait_state("Live")
    board.mark()
    shared.save(attrs.evolve(failed("00400-cat", "no such effect"), index=JOBS - 1))
    board.page.get_by_role("row", name="no such effect").wait_for()
    command = f"pika-async retry --database sqlite:///{shared.file} 00400-cat --new-seed"
    assert command in board.page.get_by_role("row", name="no such effect").inner_text()
    assert board.is_same_document()


def test_the_page_says_that_no_worker_runs_or_the_database_is_away(
    open_board: OpenBoard, shared: SharedJobs, artefacts: Path
) -> None:
    """With the command that starts a worker, and the reason; it recovers by itself."""
    board = open_board(shared.url)
    board.wait_state("Live")
    for worker in ("node1-3f8c1d20a97b", "node2-77aa01f2c4de"):
        shared.run(shared.rows.run, shared_statements.end_lease, worker, "closed")
    board.wait_state("No worker is running")
    start = f"pika-async worker --database sqlite:///{shared.file} --accounts FILE"
    assert start in board.page.locator("#unfinished").inner_text()
    away = shared.file.with_name("away.db")
    shared.file.rename(away)
    board.wait_state("The database does not answer; the page goes on by itself once it does. sqlite:////")
    board.page.screenshot(path=artefacts / "cluster-away.png")
    away.rename(shared.file)
    shared.run(shared.rows.add_worker, "new", 100_000.0)
    board.wait_state("Live")
