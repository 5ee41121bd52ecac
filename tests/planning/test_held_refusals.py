"""Refusals and doubts between acceptances: what resets their counts, and what becomes of the jobs that are held."""

from __future__ import annotations

import math

import pytest

from pika_async import AccountStopped, ProviderUnreachable, RefusedAlike, WrongBaseUrl
from pika_async._planning.actions import Submit, WaitUntil
from pika_async._planning.fuses import MAX_DOUBTS, MAX_REFUSALS, MAX_UNREADABLE
from pika_async._planning.submissions import QUIET_S
from pika_async.providers._verdicts import SubmitVerdict
from tests.planning.account_steps import ACCEPTED, BLAMED, DOUBT, NO_CHANNEL, REFUSED, UNREADABLE, Account

NOT_SENT = {"verdict": SubmitVerdict.NOT_SENT, "reason": "no route"}
UNREADABLE_IMAGE = {"verdict": SubmitVerdict.NOT_SENT, "reason": "image: too many open files", "local": True}


def refuse(account: Account, count: int) -> None:
    for _ in range(count):
        account.queue()
        assert account.answer(account.send(), REFUSED) is None


# --- an acceptance resets every count -----------------------------------------------------------------------------------


def test_refusals_before_an_acceptance_do_not_count_towards_the_fuse() -> None:
    """Four alike, an acceptance, and four more stop nothing; only the fifth in a row does."""
    account = Account(submitting=1)
    account.submissions.shared.sources = 1
    refuse(account, MAX_REFUSALS - 1)
    account.accept_one()
    assert len(account.reject_own()) == MAX_REFUSALS - 1
    refuse(account, MAX_REFUSALS - 1)
    account.queue()
    assert isinstance(account.answer(account.send(), REFUSED), RefusedAlike)


def test_a_job_that_blames_the_account_counts_until_the_next_acceptance() -> None:
    """One such answer before and one after an acceptance are not two in a row."""
    account = Account(submitting=1)
    account.accept_one()
    for _ in range(3):
        blaming, _ = account.queue(), account.queue()
        assert account.answer(account.send(), BLAMED) is None
        account.answer(account.send(), ACCEPTED)
        assert account.send() is blaming
        account.answer(blaming, ACCEPTED)


def test_a_connection_that_worked_again_resets_the_attempts() -> None:
    """Five submissions that could not be sent, an acceptance, and five more: the provider can be reached."""
    account = Account(submitting=1)
    for round_ in range(2):
        active = account.queue()
        for _ in range(5):
            assert account.send() is active
            assert account.answer(active, NOT_SENT) is None
            account.wait()
        assert account.send() is active
        stop = account.answer(active, ACCEPTED if round_ == 0 else NOT_SENT)
        assert isinstance(stop, ProviderUnreachable) if round_ else stop is None


def test_a_refusal_shows_that_the_wire_is_right() -> None:
    """Unreadable receipts before and after a refusal that was understood are not in a row."""
    account = Account(submitting=1)
    for _ in range(2):
        for _ in range(MAX_UNREADABLE - 1):
            account.queue()
            assert account.answer(account.send(), UNREADABLE) is None
        refuse(account, 1)


def test_after_a_stop_the_base_url_is_not_proven_any_more() -> None:
    """Three unreadable receipts stop the account that was mended in the wrong way."""
    account = Account(submitting=1)
    account.accept_one()
    account.queue()
    account.answer(account.send(), BLAMED, http_status=None)
    assert isinstance(account.stopped, AccountStopped)
    account.submissions.allow()
    for number in range(MAX_UNREADABLE):
        account.queue()
        stop = account.answer(account.send(), UNREADABLE)
        assert isinstance(stop, WrongBaseUrl) == (number == MAX_UNREADABLE - 1)


def test_after_a_stop_the_same_refusals_are_counted_anew() -> None:
    """Four alike before the stop do not make the first one after it the fifth."""
    account = Account(submitting=1)
    refuse(account, MAX_REFUSALS - 1)
    account.queue()
    account.answer(account.send(), REFUSED)
    assert isinstance(account.stopped, RefusedAlike)
    account.submissions.allow()
    refuse(account, MAX_REFUSALS - 1)


def test_after_a_pause_submissions_run_side_by_side_only_as_they_are_accepted() -> None:
    """The probe that ends a pause lets few through, however many were accepted before the pause."""
    account = Account(submitting=100)
    for _ in range(20):
        account.accept_one()
    for _ in range(MAX_DOUBTS):
        account.queue()
        account.answer(account.send(), DOUBT)
    account.wait_for_probe()
    account.accept_one()
    for _ in range(50):
        account.queue()
    assert len(account.send_all()) == MAX_UNREADABLE + 1


def test_an_answer_that_blames_the_account_lets_one_submission_run() -> None:
    """With several side by side, all of them would be refused before the second one stops the account."""
    account = Account(submitting=100)
    for _ in range(20):
        account.accept_one()
    for _ in range(50):
        account.queue()
    first = account.send()
    account.answer(first, BLAMED)
    assert len(account.send_all()) == 1


# --- jobs that are held at the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(2, MAX_REFUSALS))
def test_a_batch_that_is_refused_alike_to_its_end_burns_nothing(count: int) -> None:
    """Fewer jobs than the fuse takes, and none accepted: they stay planned, and the stop says why."""
    account = Account(submitting=1)
    refuse(account, count)
    stop = account.stop_now()
    assert isinstance(stop, RefusedAlike)
    assert (stop.count, stop.http_status, stop.reason) == (count, 400, "no")
    assert len(account.parked) == count
    assert {str(active.job.status) for active in account.parked} == {"planned"}


@pytest.mark.parametrize("what", ["one job", "one content", "accepted before", "other words"])
def test_refusals_at_the_end_are_the_jobs_own_where_something_shows_it(what: str) -> None:
    """One alone, equal content, an acceptance since the opening, or two different refusals."""
    account = Account(submitting=1)
    if what == "accepted before":
        account.accept_one()
    for number in range(1 if what == "one job" else 2):
        account.queue(prompt="same" if what == "one content" else "")
        words = f"400 {number}" if what == "other words" else "400 no"
        account.answer(account.send(), REFUSED, fingerprint=words)
    assert len(account.reject_own()) == (1 if what == "one job" else 2)
    assert account.stopped is None


def test_a_batch_that_pauses_is_not_at_its_end_for_a_second() -> None:
    """While a batch may queue another job, a refusal is judged only after a second without any."""
    account = Account(submitting=1)
    account.submissions.shared.sources = 1
    refuse(account, 1)
    assert account.wait() == QUIET_S
    assert len(account.reject_own()) == 1


def test_refusals_of_a_batch_that_ended_do_not_count_for_the_next() -> None:
    """Four single jobs that were refused alike, each alone, and four later ones stop nothing."""
    account = Account(submitting=1)
    account.accept_one()
    for _ in range(2 * MAX_REFUSALS):
        refuse(account, 1)
        assert len(account.reject_own()) == 1
    assert account.stopped is None


def test_a_held_job_can_be_withdrawn() -> None:
    """A caller that leaves takes its refused job back before it is judged."""
    account = Account(submitting=1)
    active = account.queue()
    account.answer(account.send(), REFUSED)
    assert account.submissions.remove(active)
    assert not account.submissions.remove(active)
    assert account.next() == WaitUntil(math.inf)


# --- the place in the queue ---------------------------------------------------------------------------------------------


def test_a_job_whose_image_cannot_be_read_goes_behind_the_others() -> None:
    """The others may need no image; a job that could not be sent for another reason keeps its place."""
    account = Account(submitting=1)
    first, second = account.queue(), account.queue()
    account.answer(account.send(), NOT_SENT)
    account.wait()
    assert account.send() is first
    account.answer(first, UNREADABLE_IMAGE)
    account.wait()
    assert account.send() is second
    account.answer(second, ACCEPTED)
    assert account.send() is first


def test_a_job_that_was_not_sent_after_all_is_the_next_to_be_sent() -> None:
    """A submission that is rolled back, as when its process closes, keeps the order."""
    account = Account(submitting=1)
    first, _ = account.queue(), account.queue()
    assert account.send() is first
    account.sent.pop(first)
    first.job = first.job.requeued()
    account.submissions.on_rolled_back(first)
    assert account.send() is first


def test_jobs_behind_a_gate_come_before_later_jobs_once_it_opens() -> None:
    """They were planned first."""
    account = Account(submitting=1)
    gated = [account.queue("m"), account.queue("m")]
    account.answer(account.send(), NO_CHANNEL)
    later = account.queue("other")
    account.now = 60.0
    assert account.send() is gated[0]
    account.answer(gated[0], ACCEPTED)
    assert account.send() is gated[1]
    account.answer(gated[1], ACCEPTED)
    assert account.send() is later


def test_refusals_of_jobs_that_were_under_way_do_not_delay_the_gate() -> None:
    """Only a probe's answer lengthens the wait: others were sent before the gate was closed."""
    account = Account(submitting=3)
    account.accept_one()
    jobs = [account.queue("m") for _ in range(3)]
    assert account.send_all() == jobs
    account.answer(jobs[0], NO_CHANNEL, retry_after=5.0)
    for active in jobs[1:]:
        account.answer(active, NO_CHANNEL, retry_after=50.0)
    assert account.wait() == 5.0


@pytest.mark.parametrize("answer", [NOT_SENT, BLAMED, DOUBT])
def test_a_gate_whose_probe_was_not_answered_sends_the_next_probe(answer: dict[str, object]) -> None:
    """A probe without a word on the model leaves the gate closed, and blocks the jobs behind it no longer."""
    account = Account(submitting=1)
    account.accept_one()
    probe, behind = account.queue("m"), account.queue("m")
    account.answer(account.send(), NO_CHANNEL)
    account.wait()
    assert account.send() is probe
    account.answer(probe, answer)
    account.now += 60.0
    sent = account.send()
    assert sent is (probe if answer is NOT_SENT else behind)
    account.answer(sent, ACCEPTED)
    assert isinstance(account.next(), Submit | WaitUntil)


def test_a_gate_whose_last_job_is_gone_is_open() -> None:
    """A probe in doubt with no job behind it leaves no gate: an hour later the next job of the model is sent at once."""
    account = Account(submitting=1)
    account.accept_one()
    probe = account.queue("m")
    account.answer(account.send(), NO_CHANNEL, retry_after=300.0)
    account.wait()
    assert account.send() is probe
    account.answer(probe, DOUBT)
    account.now += 3600.0
    later = account.queue("m")
    assert account.send() is later
