"""Submissions and polls of one gateway: encode the request, send it, classify and decode the response.

Schedules nothing, and sends nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import UnionType
from typing import Any, Final
from uuid import uuid4

import attrs

from pika_async._http.transport import AiohttpTransport, Transport
from pika_async._planning.actions import ActiveJob, PollResult
from pika_async._planning.media_routes import check_reach
from pika_async._planning.task_aliases import TaskAliases
from pika_async._runtime.callback_signatures import CallbackSignatures
from pika_async._runtime.free_requests import FreeRequests
from pika_async._runtime.images import ImageUnreadable, UploadFailed, UploadFile, load_media
from pika_async._runtime.tasks import was_cancelled
from pika_async._runtime.telemetry.null import NullTelemetry, RequestKind
from pika_async.errors import (
    AcceptedElsewhere,
    AccountStopped,
    ExchangeFailed,
    InvalidRequest,
    JournalFailed,
    TaskNotFound,
    shorten,
    strip_control,
)
from pika_async.jobs import Job
from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState
from pika_async.providers._failure import as_number
from pika_async.providers._feeds import names_task
from pika_async.providers._kinds import kind_of_failure, kind_of_transport_failure
from pika_async.providers._provider import Provider
from pika_async.providers._receipts import salvage_receipt
from pika_async.providers._verdicts import (
    PollVerdict,
    SubmitOutcome,
    SubmitVerdict,
    classify_failure,
    classify_poll,
    classify_poll_code,
    classify_response,
    minimal_outcome,
    poll_after,
    retry_after,
)
from pika_async.providers._wire import (
    MAX_BODY,
    DecodeError,
    HttpRequest,
    HttpResponse,
    SendPhase,
    TransportFailure,
)

__all__ = ["GatewayClient"]

_log = logging.getLogger("pika_async.gateway")
#: How many unknown status words are logged, each once.
MAX_LOGGED_STATUSES: Final = 100
#: How many responses about another task are logged as warnings; further ones are logged for debugging.
MAX_LOGGED_MISMATCHES: Final = 100


class GatewayClient:
    """Client of one provider at one base URL. Its calls return failures as verdicts.

    :param provider: encodes requests and decodes responses; it may be a third party's and raise anything.
    :param base_url: where requests are sent.
    :param transport: sends them.
    :param lenient: whether HTTP 503 without a body that explains it counts as "not accepted" (default: in doubt).
    :param telemetry: records each request (default: none).
    :param is_task_id: whether an id is the task id of a job; an answer under such an id is about that job only
        (default: never).
    :param upload: uploads local files that do not fit into a request (default: no uploader).
    :param proxy: for the keys of signed callbacks (default: the environment's).
    """

    def __init__(
        self,
        provider: Provider,
        base_url: str,
        transport: Transport,
        *,
        lenient: bool = False,
        telemetry: NullTelemetry | None = None,
        is_task_id: Callable[[str], bool] = lambda _: False,
        upload: UploadFile | None = None,
        proxy: str | None = None,
    ) -> None:
        self._provider = provider
        self._lenient = lenient
        self._base_url = base_url
        self._transport = transport
        #: Whether `prepare` opens connections.
        self.opens_ahead = isinstance(transport, AiohttpTransport) and transport.opens_ahead
        self._telemetry = telemetry or NullTelemetry()
        self._unknown_statuses: set[str] = set()
        self._aliases = TaskAliases(self._is_known)
        self._is_task_id = is_task_id
        self._upload = upload
        #: Signatures of its callbacks.
        self.callbacks = CallbackSignatures(provider, base_url, proxy=proxy)
        #: Requests that only some gateways have.
        self.free = FreeRequests(provider, base_url, partial(self._send, RequestKind.FREE))
        #: Number of responses to polls that were about another task than the one polled.
        self.mismatched_answers = 0

    async def encode(
        self, request: GenerationRequest, callback_url: str, *, idempotency_key: str | None = None
    ) -> HttpRequest | SubmitOutcome:
        """Encode the submission of *request*, its local files loaded or uploaded.

        :param callback_url: where the gateway sends its callbacks.
        :param idempotency_key: see `Provider.encode_submission` (default: a new one, where the provider has such keys).
        :return: the HTTP request; a rejection if *request* cannot be encoded; "not sent" if this machine failed.
        :raises JournalFailed: if the URL of an uploaded file could not be saved; it raises nothing else.
        """
        try:
            loaded = await load_media(self._provider, request, self._upload)
            check_reach(self._provider, loaded, self._base_url)
            has_keys = self._provider.idempotency is not None
            options = {"idempotency_key": idempotency_key or uuid4().hex} if has_keys else {}
            encoded = self._provider.encode_submission(loaded, self._base_url, callback_url, **options)
            _expect_type(HttpRequest, encoded)
            return encoded
        except InvalidRequest as error:
            return SubmitOutcome(verdict=SubmitVerdict.REJECTED, reason=error.message, kind="invalid")
        except JournalFailed:
            raise
        except (OSError, MemoryError) as error:  # a codec may be imported here, for which there may be no descriptor
            is_ours = isinstance(error, ImageUnreadable | UploadFailed)
            reason = str(error) if is_ours else f"a request could not be encoded: {error!r}"
            lasting = isinstance(error, UploadFailed) and error.lasting
            return SubmitOutcome(verdict=SubmitVerdict.NOT_SENT, reason=reason, local=True, lasting=lasting)
        except Exception as error:  # third-party providers may raise anything
            _log.exception("the provider %s could not encode a request", self._provider.name)
            return SubmitOutcome(verdict=SubmitVerdict.REJECTED, reason=f"could not be encoded: {error!r}")

    def prepare(self, submissions: int) -> None:
        """See `AiohttpTransport.prepare`."""
        if isinstance(self._transport, AiohttpTransport):
            self._transport.prepare(submissions)

    async def submit(
        self, request: HttpRequest, active: ActiveJob | None = None, *, repeated: bool = False
    ) -> SubmitOutcome:
        """Send an encoded submission once and classify the response. Raises nothing but cancellation.

        :param active: the job that is submitted, for telemetry.
        :param repeated: whether its idempotency key was sent before (default: it was not, or there is none).
        """
        response = await self._send(RequestKind.SUBMISSION, request, active)
        if isinstance(response, TransportFailure):
            return classify_failure(response)
        return self.judge(response, repeated=repeated)

    def judge(self, response: HttpResponse, *, repeated: bool = False) -> SubmitOutcome:
        """Classify the response to a submission, which may be a part of one.

        Raises nothing. Whatever fails, a task id in the response is found or its beginning is in the outcome.

        :param repeated: see `submit`.
        """
        receipt, decoded = self._receipt(response)
        receipt = self._with_safe_handle(receipt)
        try:
            own = self._provider.own_verdict(response, receipt, repeated=repeated)
            outcome = classify_response(response, receipt, lenient=self._lenient, now=time.time(), own_verdict=own)
        except Exception:
            self._log_defect("classify a response")
            outcome = minimal_outcome(response, receipt)
        return outcome if decoded else attrs.evolve(outcome, unreadable=False)

    async def _send(
        self, kind: RequestKind, request: HttpRequest, active: ActiveJob | None
    ) -> HttpResponse | TransportFailure:
        context, response = self._telemetry.request_started(kind, request, active), None
        try:
            response = await self._send_once(request)
            return response
        finally:
            self._telemetry.request_finished(context, response)

    async def _send_once(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        try:
            response = await self._transport.send(request)
            _expect_type(HttpResponse | TransportFailure, response)
            return response
        except (Exception, asyncio.CancelledError) as error:
            if was_cancelled(error):
                raise
            # A third-party transport failed. The request may have been sent before that.
            _log.exception("the transport failed")
            return TransportFailure(phase=SendPhase.SENT, kind="defect", detail=f"the transport failed: {error!r}")

    def _receipt(self, response: HttpResponse) -> tuple[Receipt, bool]:
        """Return the receipt in a response, and whether the provider decoded it; else it was searched for a task id."""
        try:
            receipt = self._provider.decode_receipt(response)
            _expect_type(Receipt, receipt)
            return receipt, True
        except Exception:
            self._log_defect("decode a receipt")
        try:
            return salvage_receipt(response, self._provider.dialect.torn_id), False
        except Exception:
            self._log_defect("search a receipt for a task id")
            return Receipt(), False

    def _with_safe_handle(self, receipt: Receipt) -> Receipt:
        """Return *receipt* without a handle that would send the key elsewhere. Raises nothing: its task id counts."""
        if receipt.handle is None:
            return receipt
        try:
            reason = self._provider.handle_refusal(receipt.handle, self._base_url)
        except Exception as error:
            reason = repr(error)
        if reason is None:
            return receipt
        with suppress(Exception):
            _log.warning(
                "the handle of task %s is not used: %s",
                strip_control(receipt.task_id or ""), strip_control(reason),
            )  # fmt: skip
        return attrs.evolve(receipt, handle=None)

    def _log_defect(self, what: str) -> None:
        """Log the exception that is being handled. Raises nothing: a log may be as short of resources as its cause."""
        with suppress(Exception):
            _log.exception("the provider %s could not %s", self._provider.name, what)

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
            _expect_type(HttpRequest, request)
        except Exception as error:  # third-party providers may raise anything
            _log.exception("the provider %s could not encode a poll", self._provider.name)
            return PollResult(verdict=PollVerdict.AGAIN, reason=f"could not be encoded: {error!r}")
        response = await self._send(RequestKind.POLL, request, active)
        if isinstance(response, TransportFailure):
            kind = kind_of_transport_failure(response.kind)
            return PollResult(verdict=PollVerdict.AGAIN, reason=response.detail, kind=kind)
        failure = None if response.status < 300 else self._provider.read_failure(response)
        code, message = (None, "") if failure is None else (failure.code, failure.message)
        verdict = classify_poll(response, code)
        if verdict is PollVerdict.READ:
            result = self._poll_result(response, task_id, active)
            return await self.free.result(result, handle, active)
        return PollResult(
            verdict=verdict,
            reason=strip_control(message[:500]) or response.excerpt(),
            http_status=response.status,
            retry_after=retry_after(response.headers, time.time()),
            kind=kind_of_failure(
                failure.code if failure else None, failure.message if failure else "", response.status
            ),
        )

    def callback_task_id(self, body: bytes) -> str | None:
        """Return the task id in the body of a callback, None if there is none. Raises nothing."""
        try:
            return self._provider.decode_callback(body)
        except Exception:
            _log.exception("the provider %s could not decode a callback", self._provider.name)
            return None

    def is_about(self, snapshot: Snapshot, task_id: str) -> bool:
        """Whether the response behind *snapshot* itself contains *task_id*. Raises nothing.

        `Snapshot.task_id` cannot tell: for a response without an id it is the id that was polled.
        """
        if self.callbacks.are_checked:  # the gateway itself has named the task
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
            _expect_type(Snapshot, snapshot)
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


def _expect_type(kind: type | UnionType, value: object) -> None:
    """Raise TypeError unless *value* is a *kind*. Guards against third-party providers and transports."""
    if not isinstance(value, kind):
        raise TypeError(f"expected {getattr(kind, '__name__', kind)}, got {value!r}")
