"""One submission or one look, from the request to its verdict: encode, carry, judge, decode. Schedules nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from types import UnionType

import anyio
import attrs

from pika_async._http.transport import Transport
from pika_async._planning.actions import ActiveJob, PollResult
from pika_async._runtime.telemetry import NullTelemetry, RequestKind
from pika_async.errors import (
    AcceptedElsewhere,
    AccountStopped,
    ExchangeFailed,
    InvalidRequest,
    TaskNotFound,
    strip_control,
)
from pika_async.fields import is_url
from pika_async.jobs import Job
from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState
from pika_async.providers._failure import Failure, read_failure
from pika_async.providers._provider import Provider
from pika_async.providers._verdicts import (
    PollVerdict,
    SubmitOutcome,
    SubmitVerdict,
    classify_failure,
    classify_poll,
    classify_poll_code,
    classify_response,
    poll_after,
    retry_after,
)
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, SendPhase, TransportFailure, parse_json

__all__ = ["GatewayClient", "load_image", "was_cancelled"]

_log = logging.getLogger("pika_async.gateway")


async def load_image(provider: Provider, request: GenerationRequest) -> GenerationRequest:
    """`request` with its local image read, if it has one, and checked again now that its size is known.

    :raises InvalidRequest: if the file is missing, no file, not readable, or too big for this gateway.
    """
    image = request.image
    if image is None or isinstance(image, bytes) or is_url(image):
        return request
    path = anyio.Path(image)
    try:
        if not await path.is_file():
            raise InvalidRequest(field="image", value=str(path), reason="is no file; give an existing one, or an URL")
        provider.check_size("image", (await path.stat()).st_size)
        data = await path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidRequest):
            raise
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InvalidRequest(field="image", value=str(path), reason=reason) from None
    loaded = attrs.evolve(request, image=data)
    provider.check(loaded)
    return loaded


class GatewayClient:
    """The two calls of one provider at one address."""

    def __init__(
        self,
        provider: Provider,
        base_url: str,
        transport: Transport,
        *,
        lenient: bool = False,
        telemetry: NullTelemetry | None = None,
    ) -> None:
        self._provider = provider
        self._lenient = lenient
        self._base_url = base_url
        self._transport = transport
        self._telemetry = telemetry or NullTelemetry()
        self._unknown_statuses: set[str] = set()
        #: Answers that spoke of another task than the one asked for.
        self.mismatched_answers = 0

    async def encode(self, request: GenerationRequest, callback_url: str) -> HttpRequest | SubmitOutcome:
        """What to send for `request`, with the address that may be told of it; a rejection if that cannot be made.

        Raises nothing but cancellation.
        """
        try:
            loaded = await load_image(self._provider, request)
            call = self._provider.encode_submission(loaded, self._base_url, callback_url)
            _expect_type(HttpRequest, call)
            return call
        except InvalidRequest as error:
            return SubmitOutcome(verdict=SubmitVerdict.REJECTED, reason=error.message)
        except Exception as error:  # a third party's provider may fail as it likes
            _log.exception("the provider %s could not encode a request", self._provider.name)
            return SubmitOutcome(verdict=SubmitVerdict.REJECTED, reason=f"could not be encoded: {error!r}")

    async def submit(self, call: HttpRequest, active: ActiveJob | None = None) -> SubmitOutcome:
        """Send `call` once, for `entry`, and judge what came back. Raises nothing but cancellation."""
        answer = await self._send(RequestKind.SUBMISSION, call, active)
        if isinstance(answer, TransportFailure):
            return classify_failure(answer)
        return classify_response(answer, self._receipt(answer), lenient=self._lenient, now=time.time())

    async def _send(
        self, kind: RequestKind, call: HttpRequest, active: ActiveJob | None
    ) -> HttpResponse | TransportFailure:
        sending, answer = self._telemetry.request_started(kind, call, active), None
        try:
            answer = await self._send_once(call)
            return answer
        finally:
            self._telemetry.request_finished(sending, answer)

    async def _send_once(self, call: HttpRequest) -> HttpResponse | TransportFailure:
        try:
            answer = await self._transport.send(call)
            _expect_type(HttpResponse | TransportFailure, answer)
            return answer
        except (Exception, asyncio.CancelledError) as error:  # a third party's transport: was it sent?
            if was_cancelled(error):
                raise
            _log.exception("the transport failed")
            return TransportFailure(phase=SendPhase.SENT, kind="defect", detail=f"the transport failed: {error!r}")

    def _receipt(self, answer: HttpResponse) -> Receipt:
        try:
            receipt = self._provider.decode_receipt(answer)
            _expect_type(Receipt, receipt)
            return receipt
        except Exception:
            _log.exception("the provider %s could not decode a receipt", self._provider.name)
            return Receipt(message=answer.excerpt())

    async def poll(self, task_id: str, active: ActiveJob | None = None) -> PollResult:
        """Look at a task once, for `entry` if it is due. Raises nothing but cancellation."""
        try:
            call = self._provider.encode_poll(task_id, self._base_url)
            _expect_type(HttpRequest, call)
        except Exception as error:  # a third party's provider may fail as it likes
            _log.exception("the provider %s could not encode a poll", self._provider.name)
            return PollResult(verdict=PollVerdict.AGAIN, reason=f"could not be encoded: {error!r}")
        answer = await self._send(RequestKind.POLL, call, active)
        if isinstance(answer, TransportFailure):
            return PollResult(verdict=PollVerdict.AGAIN, reason=answer.detail)
        failure = _failure(answer)
        verdict = classify_poll(answer, None if failure is None else failure.code)
        if verdict is PollVerdict.READ:
            return self._poll_result(answer, task_id)
        return PollResult(
            verdict=verdict,
            reason=(failure and strip_control(failure.message[:500])) or answer.excerpt(),
            http_status=answer.status,
            retry_after=retry_after(answer.headers, time.time()),
        )

    def callback_task_id(self, body: bytes) -> str | None:
        """The task id that the body of a callback names, if it names one. Raises nothing."""
        try:
            return self._provider.decode_callback(body)
        except Exception:
            _log.exception("the provider %s could not decode a callback", self._provider.name)
            return None

    def is_about(self, snapshot: Snapshot, task_id: str) -> bool:
        """Whether the answer of a poll itself speaks of that task: an empty one counts as that of the task asked for.

        Raises nothing.
        """
        try:
            return self._provider.task_id_in(snapshot.raw) == task_id
        except Exception:
            _log.exception("the provider %s could not decode a poll", self._provider.name)
            return False

    async def poll_job(self, job: Job) -> Snapshot:
        """See `PikaClient.poll`."""
        if job.task_id is None:
            raise InvalidRequest(field="job", value=job.key, reason="has no task id; only an accepted job can be asked")
        if (job.provider, job.base_url) != (self._provider.name, self._base_url):
            raise AcceptedElsewhere(key=job.key, provider=job.provider, task_id=job.task_id, base_url=job.base_url)
        look = await self.poll(job.task_id)
        facts = {"provider": job.provider, "reason": look.reason}
        match look.verdict:
            case PollVerdict.READ if look.snapshot is not None:
                return look.snapshot
            case PollVerdict.MISSING:
                raise TaskNotFound(key=job.key, task_id=job.task_id, **facts)
            case PollVerdict.STOP:
                raise AccountStopped(http_status=look.http_status, **facts)
            case _:
                raise ExchangeFailed(http_status=look.http_status, **facts)

    def _poll_result(self, answer: HttpResponse, task_id: str) -> PollResult:
        try:
            snapshot = self._provider.decode_snapshot(answer, task_id)
            _expect_type(Snapshot, snapshot)
        except DecodeError as error:
            return PollResult(verdict=PollVerdict.AGAIN, reason=str(error), http_status=answer.status)
        except Exception as error:
            _log.exception("the provider %s could not decode a poll", self._provider.name)
            return PollResult(verdict=PollVerdict.AGAIN, reason=repr(error), http_status=answer.status)
        if snapshot.task_id != task_id:
            self.mismatched_answers += 1
            _log.warning("an answer spoke of another task than %s; it was put aside", strip_control(task_id))
            return PollResult(verdict=PollVerdict.AGAIN, reason="another task's answer", http_status=answer.status)
        failure = None if snapshot.word else read_failure(snapshot.raw)
        if failure is not None and failure.code is not None:
            return PollResult(
                verdict=classify_poll_code(failure.code), reason=failure.message, http_status=answer.status
            )
        if not snapshot.known_word:
            self._log_unknown_status(snapshot.word[:64])
        verdict = PollVerdict.MISSING if snapshot.state is TaskState.MISSING else PollVerdict.READ
        hint = poll_after(answer.headers, time.time())
        return PollResult(verdict=verdict, snapshot=snapshot, http_status=answer.status, retry_after=hint)

    def _log_unknown_status(self, word: str) -> None:
        """Log a status word that no document lists, once, and at most a hundred of them."""
        if word and word not in self._unknown_statuses and len(self._unknown_statuses) < 100:
            self._unknown_statuses.add(word)
            _log.warning(
                "%s says the new status word %r; it counts as running", self._provider.name, strip_control(word)
            )


def _expect_type(kind: type | UnionType, value: object) -> None:
    """A third party's provider may return anything; it is known here, before anything is done with it."""
    if not isinstance(value, kind):
        raise TypeError(f"a {getattr(kind, '__name__', kind)} was due, not {value!r}")


def was_cancelled(error: BaseException) -> bool:
    """Whether `error` is the cancellation of the running task, rather than of something that it awaits."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _failure(answer: HttpResponse) -> Failure | None:
    if answer.status < 300:
        return None
    try:
        return read_failure(parse_json(answer.body))
    except DecodeError:
        return None
