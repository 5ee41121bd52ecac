"""Polls of the tasks of one gateway: encode, send, classify, and take only what is about the task that was polled.

Schedules nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import attrs

from pika_async._planning.actions import ActiveJob, PollResult
from pika_async._planning.task_aliases import TaskAliases
from pika_async._runtime.free_requests import FreeRequests, Send
from pika_async.errors import (
    AcceptedElsewhere,
    AccountStopped,
    ExchangeFailed,
    InvalidRequest,
    TaskNotFound,
    shorten,
    strip_control,
)
from pika_async.jobs import Job
from pika_async.models import Snapshot, TaskState
from pika_async.providers._failure import as_number
from pika_async.providers._feeds import names_task
from pika_async.providers._kinds import kind_of_failure, kind_of_transport_failure
from pika_async.providers._provider import Provider
from pika_async.providers._verdicts import PollVerdict, classify_poll, classify_poll_code, poll_after, retry_after
from pika_async.providers._wire import MAX_BODY, DecodeError, HttpRequest, HttpResponse, TransportFailure, expect_type

__all__ = ["TaskPoller"]

_log = logging.getLogger("pika_async.task_poller")
#: How many unknown status words are logged, each once.
MAX_LOGGED_STATUSES: Final = 100
#: How many responses about another task are logged as warnings; further ones are logged for debugging.
MAX_LOGGED_MISMATCHES: Final = 100


class TaskPoller:
    """Polls the tasks of one provider at one base URL. Its polls return failures as verdicts.

    :param provider: encodes requests and decodes responses; it may be a third party's and raise anything.
    :param base_url: where requests are sent.
    :param send: sends one request; raises nothing but cancellation.
    :param free: fetches the result of a task where the gateway has it at another address.
    :param is_task_id: whether an id is the task id of a job; an answer under such an id is about that job only.
    """

    def __init__(
        self, provider: Provider, base_url: str, send: Send, free: FreeRequests, is_task_id: Callable[[str], bool]
    ) -> None:
        self._provider = provider
        self._base_url = base_url
        self._send = send
        self._free = free
        self._is_task_id = is_task_id
        self._unknown_statuses: set[str] = set()
        self._aliases = TaskAliases(self._is_known)
        #: Number of responses that were about another task than the one polled.
        self.mismatched_answers = 0

    async def poll(self, task_id: str, active: ActiveJob | None = None, *, handle: str | None = None) -> PollResult:
        """Poll a task once, with its result where the gateway has that elsewhere. Raises nothing but cancellation.

        :param active: the job whose poll is due; None for a poll outside the schedule.
        :param handle: that of the task's receipt (default: that of the job, if it is the job's task).
        """
        if handle is None and active is not None and active.job.task_id == task_id:
            handle = active.job.handle
        try:
            options = () if handle is None else (handle,)
            request = self._provider.encode_poll(task_id, self._base_url, *options)
            expect_type(HttpRequest, request)
        except Exception as error:  # third-party providers may raise anything
            _log.exception("the provider %s could not encode a poll", self._provider.name)
            return PollResult(verdict=PollVerdict.AGAIN, reason=f"could not be encoded: {error!r}")
        response = await self._send(request, active)
        if isinstance(response, TransportFailure):
            kind = kind_of_transport_failure(response.kind)
            return PollResult(verdict=PollVerdict.AGAIN, reason=response.detail, kind=kind)
        failure = None if response.status < 300 else self._provider.read_failure(response)
        code, message = (None, "") if failure is None else (failure.code, failure.message)
        verdict = classify_poll(response, code)
        if verdict is PollVerdict.READ:
            result = self._poll_result(response, task_id, active)
            return await self._free.result(result, handle, active)
        return PollResult(
            verdict=verdict,
            reason=strip_control(message[:500]) or response.excerpt(),
            http_status=response.status,
            retry_after=retry_after(response.headers, time.time()),
            kind=kind_of_failure(
                failure.code if failure else None, failure.message if failure else "", response.status
            ),
        )

    def is_about(self, snapshot: Snapshot, task_id: str) -> bool:
        """Whether the response behind *snapshot* itself contains *task_id*. Raises nothing.

        `Snapshot.task_id` cannot tell: for a response without an id it is the id that was polled.
        """
        if self._provider.callback_signature is not None:  # the gateway itself has named the task
            return snapshot.task_id == task_id
        try:
            return self._provider.task_id_in(snapshot.raw) == task_id or names_task(snapshot.raw, task_id)
        except Exception:
            _log.exception("the provider %s could not decode a poll", self._provider.name)
            return False

    async def poll_job(self, job: Job) -> Snapshot:
        """See `PikaClient.poll`."""
        if job.task_id is None:
            raise InvalidRequest(
                field="job", value=job.key, reason="must have a task id; only accepted jobs can be polled"
            )
        if (job.provider, job.base_url) != (self._provider.name, self._base_url):
            raise AcceptedElsewhere(key=job.key, provider=job.provider, task_id=job.task_id, base_url=job.base_url)
        result = await self.poll(job.task_id, handle=job.handle)
        facts: dict[str, Any] = {"provider": job.provider, "reason": result.reason}
        match result.verdict:
            case PollVerdict.READ if result.snapshot is not None:
                return result.snapshot
            case PollVerdict.MISSING:
                raise TaskNotFound(key=job.key, task_id=job.task_id, **facts)
            case PollVerdict.STOP:
                raise AccountStopped(http_status=result.http_status, kind=result.kind, task_id=job.task_id, **facts)
            case _:
                raise ExchangeFailed(http_status=result.http_status, kind=result.kind, **facts)

    def _poll_result(self, response: HttpResponse, task_id: str, active: ActiveJob | None) -> PollResult:
        try:
            snapshot = self._provider.decode_snapshot(response, task_id)
            expect_type(Snapshot, snapshot)
        except DecodeError as error:
            return PollResult(verdict=PollVerdict.AGAIN, reason=str(error), http_status=response.status)
        except Exception as error:
            _log.exception("the provider %s could not decode a poll", self._provider.name)
            return PollResult(verdict=PollVerdict.AGAIN, reason=repr(error), http_status=response.status)
        own = self._own_snapshot(snapshot, task_id, active)
        if own is None:
            self.mismatched_answers += 1
            reason = f"the answer is about another task, {strip_control(shorten(snapshot.task_id))}"
            return PollResult(verdict=PollVerdict.MISMATCH, reason=reason, http_status=response.status)
        result = self._read_result(response, own)
        if active is not None and active.job.task_id == task_id and len(response.body) > MAX_BODY:
            # Only a direct caller is given the whole of a large answer: this one is held until the journal has the job.
            return attrs.evolve(result, snapshot=attrs.evolve(own, raw=None)) if result.snapshot else result
        return result

    def _read_result(self, response: HttpResponse, snapshot: Snapshot) -> PollResult:
        failure = None if snapshot.word else self._provider.read_failure(response)
        if failure is not None and failure.code is not None:
            kind = kind_of_failure(failure.code, failure.message, as_number(failure.code))
            return PollResult(
                verdict=classify_poll_code(failure.code), reason=failure.message, http_status=response.status, kind=kind
            )
        if not snapshot.known_word:
            self._log_unknown_status(snapshot.word[:64])
        verdict = PollVerdict.MISSING if snapshot.state is TaskState.MISSING else PollVerdict.READ
        hint = poll_after(response.headers, time.time())
        return PollResult(verdict=verdict, snapshot=snapshot, http_status=response.status, retry_after=hint)

    def _is_known(self, task_id: str) -> bool:
        """Whether an id is, or may be, the task id of a job."""
        try:
            return self._is_task_id(task_id)
        except Exception:
            _log.exception("the journal could not tell whose task %s is", strip_control(shorten(task_id)))
            return True

    def _own_snapshot(self, snapshot: Snapshot, task_id: str, active: ActiveJob | None) -> Snapshot | None:
        """Return *snapshot* if it is about the polled task, also under an id taken as that task's; else None."""
        other_id, aliases = snapshot.task_id, self._aliases
        is_of_job = active is not None and active.job.task_id == task_id
        if other_id == task_id:
            aliases.confirm(task_id)
            if active is not None and is_of_job:
                active.is_named = True
            return snapshot
        taken = aliases.is_alias(task_id, other_id)
        if not taken and active is not None and is_of_job and not active.is_named:
            taken = aliases.record(task_id, other_id)
            if taken:
                _log.warning(
                    "%s names task %s only by the id %s; its answers are taken as those of that task",
                    self._provider.name, strip_control(task_id), strip_control(shorten(other_id)),
                )  # fmt: skip
        if not taken:
            level = logging.WARNING if self.mismatched_answers < MAX_LOGGED_MISMATCHES else logging.DEBUG
            _log.log(level, "a response was about another task than %s; it was ignored", strip_control(task_id))
            return None
        video = snapshot.video and attrs.evolve(snapshot.video, task_id=task_id)
        return attrs.evolve(snapshot, task_id=task_id, video=video)

    def _log_unknown_status(self, word: str) -> None:
        """Log a status word that the gateway's documentation does not list, or an answer without one, once."""
        if word in self._unknown_statuses or len(self._unknown_statuses) >= MAX_LOGGED_STATUSES:
            return
        self._unknown_statuses.add(word)
        if word:
            shown = strip_control(word)
            _log.warning("%s sent the unknown status word %r; it counts as running", self._provider.name, shown)
        else:
            _log.warning("%s sent an answer without a known status; it counts as running", self._provider.name)
