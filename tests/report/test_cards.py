"""Facts of a job on its card, the command that makes it again, and the groups of what has no video."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import Job, JobStatus
from pika_async.errors import DownloadFailed, InvalidRequest
from pika_async.models.results import RouteStep
from pika_async.report.cards import card_of, folder_subject, generate_command, is_shown, problem_groups
from pika_async.report.media_facts import MediaFacts
from pika_async.report.page import usual_start
from tests.report.jobs import failed, in_doubt, made, rejected, succeeded

ROOT = Path("/clips of mine")
RETRY = "pika-async retry '/clips of mine'"


def groups(*jobs: Job) -> list[tuple[str, str, int, str]]:
    found = problem_groups([card_of(job, ROOT) for job in jobs], folder_subject(ROOT))
    return [(group["status"], group["reason"], group["count"], group["command"]) for group in found]


def test_a_card_has_what_a_person_wants() -> None:
    """Unknown facts are left out; the link is relative to the page and encoded; a large seed stays exact."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    job = succeeded(
        "a@b", file=ROOT / "videos" / "a@b.mp4", effect="Melt", aspect_ratio="9:16", seed=2**60 + 1, submitted_at=at,
        settled_at=at + timedelta(seconds=61.5), points=5.0, polls=3,
    )  # fmt: skip
    card = card_of(job, ROOT, facts=MediaFacts(shape=(180, 320), seconds=4.0), has_poster=True, price=0.28)
    assert card == {
        "key": "a@b", "index": 0, "status": "succeeded", "provider": "native", "task": "t", "prompt": "a cat",
        "effect": "Melt", "kind": "text", "ratio": "9:16", "seed": "1152921504606846977", "shape": (180, 320),
        "seconds": 4.0, "file": "./videos/a%40b.mp4", "poster": "./posters/a%40b.jpg", "submitted": "2026-01-02T03:04:05Z",
        "settled": "2026-01-02T03:05:06Z", "took": 61.5, "polls": 3, "attempts": 1, "points": 5.0, "cost": 0.28,
        "command": card["command"],
    }  # fmt: skip


def test_a_card_has_the_account_and_the_way_of_its_job() -> None:
    """The account where it is not named as its provider, the cost of the job before the price of all, and each submission of several."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    step = RouteStep("second", "stop", at, "no balance")
    job = attrs.evolve(succeeded(submitted_at=at), account="main", cost=0.5, earlier_steps=(step,))
    card = card_of(job, ROOT, price=0.28)
    assert (card["account"], card["cost"]) == ("main", 0.5)
    assert card["route"] == [["second", "stop", "no balance"], ["main", "accepted", ""]]
    alone = card_of(attrs.evolve(job, account="native", earlier_steps=()), ROOT)
    assert not {"account", "route"} & set(alone)
    unpaid = card_of(attrs.evolve(rejected("k", "no"), account="native", cost=None), ROOT, price=0.28)
    assert "cost" not in unpaid


@pytest.mark.parametrize(
    ("job", "shape"),
    [(succeeded(aspect_ratio="5:2"), (5, 2)), (succeeded(), None)],
)
def test_without_a_file_the_shape_is_the_requested_one(job: Job, shape: tuple[int, int] | None) -> None:
    """It is unknown where the request leaves it to the gateway."""
    assert card_of(job, ROOT).get("shape") == shape


def test_a_file_elsewhere_is_not_linked() -> None:
    """A page must not show any file of the machine."""
    assert "file" not in card_of(succeeded(file=Path("/etc/passwd")), ROOT)


@pytest.mark.parametrize("status", list(JobStatus))
def test_settled_and_parked_jobs_have_a_card(status: JobStatus) -> None:
    """The others are counted only."""
    unfinished = {JobStatus.PLANNED, JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING}
    assert is_shown(made(status=status)) == (status not in unfinished)


def test_a_price_counts_for_what_may_be_charged_only() -> None:
    """A refused job costs nothing; one in doubt counts."""
    sent = datetime(2026, 1, 2, tzinfo=UTC)
    assert "cost" not in card_of(rejected("a", "no"), ROOT, price=0.28)
    assert card_of(in_doubt("a", "no answer", submitted_at=sent), ROOT, price=0.28)["cost"] == 0.28


# --- commands --------------------------------------------------------------------------------------------------------


@given(st.text().filter(str.strip), st.none() | st.integers(0, 2**63 - 1))
def test_the_command_of_a_video_holds_its_prompt_as_one_word(prompt: str, seed: int | None) -> None:
    """Whatever a shell reads in it, it stays the last word, behind the mark that ends the options."""
    try:
        request = made(prompt=prompt, seed=seed, effect="Melt").request
    except InvalidRequest:
        return
    words = shlex.split(generate_command(request, "native") or "")
    seeds = [] if seed is None else [f"--seed={seed}"]
    assert words == ["pika-async", "generate", "--provider", "native", "--effect=Melt", *seeds, "--", prompt]


def test_the_command_and_the_card_have_the_length_and_the_resolution() -> None:
    """The script of the page makes the same command from the facts of the card."""
    job = succeeded(duration=7.5, resolution="1080P", effect="Melt", model="2.0")
    card = card_of(job, ROOT)
    assert (card["duration"], card["resolution"]) == ("7.5", "1080p")
    options = ["--effect=Melt", "--model=2.0", "--duration=7.5", "--resolution=1080p"]
    assert shlex.split(card["command"]) == ["pika-async", "generate", "--provider", "native", *options, "--", "a cat"]
    assert usual_start(card) == card["command"].removesuffix("'a cat'")
    request = made(image="a.png", last_image="z.png").request
    assert "--image=a.png --last-image=z.png -- " in (generate_command(request, "native") or "")
    assert generate_command(made(image="a.png", last_image=b"z").request, "native") is None


def test_a_request_with_bytes_has_no_command() -> None:
    """No option takes them."""
    assert generate_command(made(image=b"\x89PNG\r\n\x1a\n" + bytes(30)).request, "native") is None


@pytest.mark.parametrize(
    ("job", "command"),
    [
        (failed("k", "no"), f"{RETRY} k --new-seed"),
        (rejected("k", "no"), f"{RETRY} k"),
        (in_doubt("k", "no"), "pika-async resolve '/clips of mine' k"),
        (made("k", status=JobStatus.TIMED_OUT, task_id="t"), "pika-async resume '/clips of mine'"),
        (failed("k~1", "no"), None),
    ],
)
def test_the_command_follows_from_the_end_of_the_job(job: Job, command: str | None) -> None:
    """A job that was paid for again is history and has none."""
    assert card_of(job, ROOT).get("command") == command


# --- problems --------------------------------------------------------------------------------------------------------


def test_problems_are_grouped_by_status_and_reason() -> None:
    """Failures come first, larger groups before smaller ones; a few keys are named, so that no other group is paid for."""
    jobs = [
        rejected("r", "bad"),
        failed("a", "moderation"),
        failed("b", "moderation"),
        failed("c", "crash"),
        in_doubt("d", "cut"),
    ]
    assert groups(*jobs) == [
        ("failed", "moderation", 2, f"{RETRY} a b --new-seed"),
        ("failed", "crash", 1, f"{RETRY} c --new-seed"),
        ("unknown", "cut", 1, "pika-async resolve '/clips of mine' d"),
        ("rejected", "HTTP 400: bad", 1, f"{RETRY} r"),
    ]


def test_many_keys_are_not_named() -> None:
    """The command is then the one for the whole status."""
    jobs = [failed(f"k{number}", "moderation") for number in range(6)]
    assert groups(*jobs) == [("failed", "moderation", 6, f"{RETRY} --failed --new-seed")]


def test_what_succeeded_or_was_paid_again_is_not_a_problem() -> None:
    """A success whose download failed is one."""
    assert groups(succeeded("a"), failed("b~1", "moderation")) == []
    undownloaded = succeeded("c", error=DownloadFailed(url="https://cdn.example/v.mp4", reason="HTTP 403"))
    assert groups(undownloaded) == [("succeeded", "download failed: HTTP 403", 1, "pika-async resume '/clips of mine'")]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([failed, rejected, in_doubt]))))
def test_every_problem_is_in_one_group(made_of: list[tuple[str, object]]) -> None:
    """The counts of the groups add up to the number of jobs without a video."""
    jobs = [maker(f"k{number}", reason) for number, (reason, maker) in enumerate(made_of)]  # type: ignore[operator]
    assert sum(count for _, _, count, _ in groups(*jobs)) == len(jobs)
