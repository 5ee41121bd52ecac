"""Steps of a planner under test: jobs that are queued, sent, accepted and polled at given times."""

from __future__ import annotations

import itertools
from typing import Any

from pika_async import (
    AccountStopped,
    FixedInterval,
    GenerationRequest,
    Job,
    Limits,
    Snapshot,
    TaskState,
    Video,
)
from pika_async._planning.account_planner import AccountPlanner
from pika_async._planning.actions import (
    ActiveJob,
    Park,
    Poll,
    PollResult,
    Reject,
    StopSubmitting,
    Submit,
    WaitUntil,
)
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.limits import MAX_IN_FLIGHT, TokenBucket
from pika_async._planning.money import Spending
from pika_async._planning.outcomes import apply_verdict
from pika_async._planning.planner import Planner
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async._planning.router import Router
from pika_async._planning.shared_bounds import SharedBounds
from pika_async._planning.submissions import Submissions
from pika_async.polling import PollingPolicy
from pika_async.providers._verdicts import PollVerdict, SubmitOutcome, SubmitVerdict

NUMBERS = itertools.count()


def new_planner(*, policy: PollingPolicy | None = None, deadline: float = 1000.0, **limits: Any) -> Planner:
    """Return the planner of a client of one account, `p`."""
    chosen = Limits(**limits)
    account = AccountPlanner(
        name="p",
        provider="p",
        base_url="https://x.example",
        limits=chosen,
        deadline=deadline,
        submissions=Submissions(
            name="p",
            base_url="https://x.example",
            limits=chosen,
            concurrency=AdaptiveConcurrency(ceiling=chosen.max_in_flight or MAX_IN_FLIGHT),
            rate=TokenBucket(chosen.submits_per_second),
        ),
        poll_queue=PollQueue(PolicyAdapter(policy=policy or FixedInterval(10.0))),
        poll_rate=TokenBucket(chosen.polls_per_second),
    )
    shared = SharedBounds(
        name="p",
        max_in_flight=chosen.max_in_flight or MAX_IN_FLIGHT,
        submitting_limit=chosen.submitting,
        polling_limit=chosen.polling,
        spending=Spending(max_charges=chosen.max_charges),
    )
    return Planner(router=Router(accounts={"p": account}, shared=shared), limits=chosen)


def queued_job(planner: Planner) -> ActiveJob:
    job = Job(key=f"k{next(NUMBERS)}", request=GenerationRequest("a"), provider="p", base_url="https://x.example")
    active = ActiveJob(job, "s", options=("p",))
    planner.queue(active, 0.0)
    return active


def start_submit(planner: Planner, now: float) -> ActiveJob:
    action = planner.next_action(now)
    assert isinstance(action, Submit)
    planner.on_submit_started(action.active, now)
    action.active.job = action.active.job.submitting()
    return action.active


def finish_submit(
    planner: Planner, active: ActiveJob, verdict: SubmitVerdict, now: float, **facts: Any
) -> StopSubmitting | None:
    outcome = SubmitOutcome(
        verdict=verdict, task_id=f"t-{active.job.key}" if verdict is SubmitVerdict.ACCEPTED else None, **facts
    )
    active.job = apply_verdict(active.job, outcome, now)
    return planner.on_submit_finished(active, outcome, now - 0.1, now, 0.5)


def reject_own(planner: Planner, now: float) -> list[ActiveJob]:
    """Reject every job whose refusal is its own by now."""
    rejected = []
    while isinstance(action := planner.next_action(now), Reject):
        action.active.job = action.active.job.rejected(action.error, now)
        rejected.append(action.active)
    return rejected


def accepted_job(planner: Planner, now: float) -> ActiveJob:
    queued_job(planner)
    active = start_submit(planner, now)
    finish_submit(planner, active, SubmitVerdict.ACCEPTED, now)
    return active


def start_poll(planner: Planner, now: float) -> ActiveJob:
    action = planner.next_action(now)
    assert isinstance(action, Poll)
    planner.on_poll_started(action.active, now)
    return action.active


def poll(
    planner: Planner, now: float, state: TaskState | None, verdict: PollVerdict = PollVerdict.READ, **facts: Any
) -> Job:
    """Poll the job that is due at `now`, with an immediate result."""
    return finish_poll(planner, start_poll(planner, now), now, state, verdict, **facts)


def finish_poll(
    planner: Planner,
    active: ActiveJob,
    now: float,
    state: TaskState | None,
    verdict: PollVerdict = PollVerdict.READ,
    **facts: Any,
) -> Job:
    snapshot = None
    if state is not None:
        video = Video(url="https://x.example/v.mp4") if state is TaskState.SUCCEEDED else None
        snapshot = Snapshot(task_id=str(active.job.task_id), state=state, video=video)
    return planner.on_poll_finished(active, PollResult(verdict=verdict, snapshot=snapshot, **facts), now, now, 0.5)


def stop_account(planner: Planner, now: float = 0.0) -> list[ActiveJob]:
    """Stop submitting and polling; return the jobs that are parked because of that."""
    error = AccountStopped(provider="p")
    planner.stop_submitting(error)
    planner.stop_polling("p", error)
    parked = []
    while isinstance(action := planner.next_action(now), Park):
        assert action.error is error
        planner.on_stopped(action.active)
        parked.append(action.active)
    return parked


def next_time(planner: Planner, now: float) -> float:
    """Return when the next action is due."""
    action = planner.next_action(now)
    assert isinstance(action, WaitUntil)
    return action.until
