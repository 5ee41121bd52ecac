"""Indices of the jobs of a folder: unique, and as they were when more jobs come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pika_async import GenerationRequest
from pika_async.cli.folder_indices import folder_indices
from pika_async.jobs import Job
from tests.cli.command_line import CommandLine, serving


def job(key: str, index: int) -> Job:
    """Return a job at `index` of its input."""
    return Job(key=key, index=index, request=GenerationRequest(prompt="p"), provider="native", base_url="http://a")


def test_one_input_keeps_its_rows() -> None:
    """The index of a job is that of its row."""
    assert folder_indices([job("a", 0), job("b", 1)]) == {"a": 0, "b": 1}


def test_a_second_input_goes_on_after_the_first() -> None:
    """Its rows begin at 0 again in its own journal entries."""
    jobs = [job("a", 0), job("b", 1), job("c", 0), job("d", 1), job("e", 2)]
    assert folder_indices(jobs) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}


def test_a_job_that_is_paid_again_keeps_its_index() -> None:
    """The earlier record has its place in the folder, and shares it as history: both are of the same row."""
    jobs = [job("a~1", 0), job("b", 1), job("c", 0), job("a", 0)]
    assert folder_indices(jobs) == {"a": 0, "b": 1, "c": 2, "a~1": 0}


def test_given_indices_are_kept() -> None:
    """They are those of the rows of a command's own input."""
    assert folder_indices([job("a", 0), job("b", 0)], {"b": 0}) == {"b": 0, "a": 1}


@given(st.lists(st.integers(0, 6), max_size=30), st.lists(st.integers(0, 6), max_size=10))
def test_indices_are_unique_and_stable(first: list[int], more: list[int]) -> None:
    """Further jobs change no index of an earlier one."""
    jobs = [job(f"k{n}", index) for n, index in enumerate([*first, *more])]
    before, after = folder_indices(jobs[: len(first)]), folder_indices(jobs)
    assert len(set(after.values())) == len(jobs)
    assert {key: after[key] for key in before} == before


def test_a_resumed_folder_of_two_gateways_has_unique_indices(cli: CommandLine) -> None:
    """Two inputs for two gateways, one of them unfinished: each line has its own index, and resuming again keeps it."""
    with serving() as emulator:
        rows = {"native": "key,prompt\na,one\nb,two\n", "cometapi": "key,prompt\nc,three\nd,four\ne,five\n"}
        for provider, text in rows.items():
            source = cli.write(f"{provider}.csv", text)
            cli.batch(emulator, source, "--no-download", "--out", "o", "--max-charges", "3", provider=provider)
        for charges, code in (("4", 1), ("5", 0)):
            assert cli("resume", "o", "--max-charges", charges).code == code
            indices = {record["key"]: record["index"] for record in cli.results("o")}
            assert indices == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
