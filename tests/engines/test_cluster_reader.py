"""What the live board reads of a cluster: only changes, whole jobs only for their cards, and nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import Job
from pika_async.cli.cluster_board import cluster_facts
from pika_async.engines import job_reads, job_writes, shared_statements, statements, tables
from pika_async.engines.cluster_reader import ClusterReader
from pika_async.errors import ClusterUnusable
from pika_async.polling.durations import DurationSample
from pika_async.report.board_source import ChangeFollower
from tests.engines.rows import Rows
from tests.report.jobs import failed, made, succeeded

SENT = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = ("--database", "DB")


def save(rows: Rows, *jobs: Job) -> None:
    """Save later states of planned jobs, as a worker does."""
    keys = [job.key for job in jobs]
    rows.run(statements.insert_jobs, [made(job.key, index=job.index) for job in jobs])
    rows.run(job_writes.claim_all, keys, "w")
    rows.save("w", *jobs)
    for key in keys:
        rows.release("w", key)


@pytest.fixture
def reader(database_url: str) -> Iterator[ClusterReader]:
    made = ClusterReader(database_url)
    yield made
    made.close()


@pytest.fixture
def follower(reader: ClusterReader) -> ChangeFollower:
    return ChangeFollower(Path("/"), reader, subject=SUBJECT)


def read(follower: ChangeFollower) -> dict[str, Any]:
    """Read the changes; return the head of the page."""
    asyncio.run(follower.refresh(at_once=True))
    return follower.feed.head(is_running=True, written="")


@pytest.fixture
def selected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the states that are read, and those of whole jobs with a * in front."""
    keys: list[str] = []
    states, jobs = job_reads.select_states, job_reads.select_jobs

    def noted_states(*args: Any) -> Any:
        found = states(*args)
        keys.extend(state.key for _, state in found)
        return found

    def noted_jobs(connection: Any, wanted: Any) -> Any:
        keys.extend(f"*{key}" for key in wanted)
        return jobs(connection, wanted)

    monkeypatch.setattr(job_reads, "select_states", noted_states)
    monkeypatch.setattr(job_reads, "select_jobs", noted_jobs)
    return keys


def test_only_what_has_changed_is_read_again(rows: Rows, follower: ChangeFollower, selected: list[str]) -> None:
    """All jobs once, whole only those that get a card; then a change is one state and one job, and none is nothing."""
    rows.add_worker("w")
    rows.run(statements.insert_jobs, [made(f"k{number}", index=number) for number in range(2_500)])
    assert read(follower)["unfinished"] == {"planned": 2_500}
    assert (len(selected), len(set(selected))) == (2_500, 2_500)
    assert not [key for key in selected if key.startswith("*")]
    selected.clear()
    read(follower)
    assert selected == []
    save(rows, failed("k7", "no cat", index=7))
    head = read(follower)
    assert selected == ["k7", "*k7"]
    assert head["unfinished"] == {"planned": 2_499}
    assert (head["groups"][0]["reason"], head["groups"][0]["command"]) == (
        "no cat", "pika-async retry --database DB k7 --new-seed",
    )  # fmt: skip


def test_a_download_and_a_second_payment_are_seen(rows: Rows, follower: ChangeFollower, tmp_path: Path) -> None:
    """The card gets its file; a job that is paid for again loses its card, and the earlier one has it."""
    rows.add_worker("w")
    file = tmp_path / "k.mp4"
    file.write_bytes(b"")
    done = succeeded("k", submitted_at=SENT, settled_at=SENT)
    save(rows, done)
    read(follower)
    assert follower.feed.files == {}
    save(rows, attrs.evolve(done, file=file, downloaded_at=SENT))
    read(follower)
    assert list(follower.feed.files.values()) == [file]
    rows.run(statements.rename, "k", "k~1")
    rows.run(statements.insert_jobs, [made("k")])
    assert read(follower)["unfinished"] == {"planned": 1}
    assert '"k~1"' in follower.feed.cards()[0]


@pytest.mark.parametrize("name", ["gone.mp4", "passwd"])
def test_no_other_file_than_a_result_that_is_here_is_served(
    rows: Rows, follower: ChangeFollower, tmp_path: Path, name: str
) -> None:
    """A result on another machine is shown by its place; neither can a row of a database name any file."""
    rows.add_worker("w")
    (tmp_path / "passwd").write_bytes(b"root")
    place = tmp_path / name
    save(rows, succeeded("k", file=place, submitted_at=SENT, settled_at=SENT, downloaded_at=SENT))
    read(follower)
    assert follower.feed.files == {}
    assert str(place) in follower.feed.cards()[0]


def test_the_workers_and_the_accounts_are_shown(rows: Rows, follower: ChangeFollower) -> None:
    """Their leases, their jobs, bounds, money and stops; an ended worker is not, unless it has jobs."""
    rows.add_worker("w")
    rows.add_worker("gone")
    rows.run(shared_statements.end_lease, "gone", "closed")
    rows.add_account("main", max_in_flight=9, max_charges=50, budget=2.5)
    rows.run(shared_statements.set_stop, "main", "main: no money", None)
    rows.add_jobs("k", owner="w")
    read(follower)
    reader = follower.reader
    assert isinstance(reader, ClusterReader)
    facts = cluster_facts(reader)
    (worker,) = facts["workers"]
    assert (worker["id"], worker["jobs"], worker["alive"]) == ("w", 1, True)
    assert worker["lease"].startswith("for ")
    assert facts["accounts"] == [
        {"name": "main", "flying": 0, "room": 9, "charges": 0, "most": 50, "spent": 0.0, "budget": 2.5,
         "stopped": "no money"},
    ]  # fmt: skip
    assert facts["start"].startswith("pika-async worker --database ")


def test_what_the_workers_have_learned_is_read(rows: Rows, reader: ClusterReader) -> None:
    sample = DurationSample("s", 1.0, 2.0, accepted_at=5.0)
    rows.run(shared_statements.insert_samples, "w", [sample])
    assert reader.samples() == [sample]


def test_a_reader_waits_for_no_writer(rows: Rows, follower: ChangeFollower) -> None:
    """It takes no lock: a transaction that writes holds the lock of a file of SQLite."""
    rows.add_jobs("k")
    with rows.engine.begin() as connection:
        connection.execute(tables.jobs.update().values(polls=1))
        assert read(follower)["unfinished"] == {"planned": 1}
        assert follower.error is None


def test_a_database_that_is_away_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    """In a sentence; the file is not made anew."""
    file = tmp_path / "jobs.db"
    rows = Rows.create(f"sqlite:///{file}")
    rows.add_jobs("k")
    rows.engine.dispose()
    follower = ChangeFollower(Path("/"), ClusterReader(f"sqlite:///{file}"), subject=SUBJECT)
    file.rename(tmp_path / "away.db")
    read(follower)
    assert isinstance(follower.error, ClusterUnusable)
    assert str(follower.error) == f"database: sqlite:///{file} cannot be read: unable to open database file"
    assert not file.exists()
    (tmp_path / "away.db").rename(file)
    assert read(follower)["unfinished"] == {"planned": 1}
    assert follower.error is None
