"""One submission or one look, from the request to its verdict: encode, carry, judge, decode. Schedules nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from types import UnionType

import anyio
import attrs

from pika_async._http.transport import Transport
from pika_async._planning.actions import Entry, Look
from pika_async._runtime.telemetry import Call, Silent
from pika_async.errors import (
    AcceptedElsewhere,
    AccountStopped,
    ExchangeFailed,
    InvalidRequest,
    TaskNotFound,
    printable,
)
from pika_async.jobs import Job
from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState, is_url
from pika_async.providers import Provider
from pika_async.providers._failure import Failure, read_failure
from pika_async.providers._verdicts import (
    Judgement,
    PollVerdict,
    Verdict,
    judge_answer,
    judge_no_answer,
    judge_poll,
    judge_poll_code,
    poll_hint,
    retry_after,
)
from pika_async.providers._wire import HttpRequest, HttpResponse, NoAnswer, Phase, Unreadable, parse_json

__all__ = ["Exchange", "was_cancelled", "with_bytes"]

_log = logging.getLogger("pika_async.exchange")


async def with_bytes(provider: Provider, request: GenerationRequest) -> GenerationRequest:
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


class Exchange:
    """The two calls of one provider at one address."""

    def __init__(
        self,
        provider: Provider,
        base_url: str,
        transport: Transport,
        *,
        lenient: bool = False,
        telemetry: Silent | None = None,
    ) -> None:
        self._provider = provider
        self._lenient = lenient
        self._base_url = base_url
        self._transport = transport
        self._telemetry = telemetry or Silent()
        self._words: set[str] = set()
        #: Answers that spoke of another task than the one asked for.
        self.strays = 0

    async def encode(self, request: GenerationRequest, callback_url: str) -> HttpRequest | Judgement:
        """What to send for `request`, with the address that may be told of it; a rejection if that cannot be made.

        Raises nothing but cancellation.
        """
        try:
            loaded = await with_bytes(self._provider, request)
            call = self._provider.encode_submission(loaded, self._base_url, callback_url)
            _due(HttpRequest, call)
            return call
        except InvalidRequest as error:
            return Judgement(verdict=Verdict.REJECTED, reason=error.message)
        except Exception as error:  # a third party's provider may fail as it likes
            _log.exception("the provider %s could not encode a request", self._provider.name)
            return Judgement(verdict=Verdict.REJECTED, reason=f"could not be encoded: {error!r}")

    async def submit(self, call: HttpRequest, entry: Entry | None = None) -> Judgement:
        """Send `call` once, for `entry`, and judge what came back. Raises nothing but cancellation."""
        answer = await self._send(Call.SUBMISSION, call, entry)
        if isinstance(answer, NoAnswer):
            return judge_no_answer(answer)
        return judge_answer(answer, self._receipt(answer), lenient=self._lenient, now=time.time())

    async def _send(self, kind: Call, call: HttpRequest, entry: Entry | None) -> HttpResponse | NoAnswer:
        sending, answer = self._telemetry.sends(kind, call, entry), None
        try:
            answer = await self._carry(call)
            return answer
        finally:
            self._telemetry.answered(sending, answer)

    async def _carry(self, call: HttpRequest) -> HttpResponse | NoAnswer:
        try:
            answer = await self._transport.send(call)
            _due(HttpResponse | NoAnswer, answer)
            return answer
        except (Exception, asyncio.CancelledError) as error:  # a third party's transport: was it sent?
            if was_cancelled(error):
                raise
            _log.exception("the transport failed")
            return NoAnswer(phase=Phase.SENT, kind="defect", detail=f"the transport failed: {error!r}")

    def _receipt(self, answer: HttpResponse) -> Receipt:
        try:
            receipt = self._provider.decode_receipt(answer)
            _due(Receipt, receipt)
            return receipt
        except Exception:
            _log.exception("the provider %s could not decode a receipt", self._provider.name)
            return Receipt(message=answer.excerpt())

    async def poll(self, task_id: str, entry: Entry | None = None) -> Look:
        """Look at a task once, for `entry` if it is due. Raises nothing but cancellation."""
        try:
            call = self._provider.encode_poll(task_id, self._base_url)
            _due(HttpRequest, call)
        except Exception as error:  # a third party's provider may fail as it likes
            _log.exception("the provider %s could not encode a poll", self._provider.name)
            return Look(verdict=PollVerdict.AGAIN, reason=f"could not be encoded: {error!r}")
        answer = await self._send(Call.POLL, call, entry)
        if isinstance(answer, NoAnswer):
            return Look(verdict=PollVerdict.AGAIN, reason=answer.detail)
        failure = _failure(answer)
        verdict = judge_poll(answer, None if failure is None else failure.code)
        if verdict is PollVerdict.READ:
            return self._look(answer, task_id)
        return Look(
            verdict=verdict,
            reason=(failure and printable(failure.message[:500])) or answer.excerpt(),
            http_status=answer.status,
            retry_after=retry_after(answer.headers, time.time()),
        )

    def named(self, body: bytes) -> str | None:
        """The task id that the body of a callback names, if it names one. Raises nothing."""
        try:
            return self._provider.decode_callback(body)
        except Exception:
            _log.exception("the provider %s could not decode a callback", self._provider.name)
            return None

    def names(self, snapshot: Snapshot, task_id: str) -> bool:
        """Whether the answer of a poll itself speaks of that task: an empty one counts as that of the task asked for.

        Raises nothing.
        """
        try:
            return self._provider.named_task(snapshot.raw) == task_id
        except Exception:
            _log.exception("the provider %s could not decode a poll", self._provider.name)
            return False

    async def look(self, job: Job) -> Snapshot:
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

    def _look(self, answer: HttpResponse, task_id: str) -> Look:
        try:
            snapshot = self._provider.decode_snapshot(answer, task_id)
            _due(Snapshot, snapshot)
        except Unreadable as error:
            return Look(verdict=PollVerdict.AGAIN, reason=str(error), http_status=answer.status)
        except Exception as error:
            _log.exception("the provider %s could not decode a poll", self._provider.name)
            return Look(verdict=PollVerdict.AGAIN, reason=repr(error), http_status=answer.status)
        if snapshot.task_id != task_id:
            self.strays += 1
            _log.warning("an answer spoke of another task than %s; it was put aside", printable(task_id))
            return Look(verdict=PollVerdict.AGAIN, reason="another task's answer", http_status=answer.status)
        failure = None if snapshot.word else read_failure(snapshot.raw)
        if failure is not None and failure.code is not None:
            return Look(verdict=judge_poll_code(failure.code), reason=failure.message, http_status=answer.status)
        if not snapshot.known_word:
            self._mention(snapshot.word[:64])
        verdict = PollVerdict.MISSING if snapshot.state is TaskState.MISSING else PollVerdict.READ
        hint = poll_hint(answer.headers, time.time())
        return Look(verdict=verdict, snapshot=snapshot, http_status=answer.status, retry_after=hint)

    def _mention(self, word: str) -> None:
        """Log a status word that no document lists, once, and at most a hundred of them."""
        if word and word not in self._words and len(self._words) < 100:
            self._words.add(word)
            _log.warning("%s says the new status word %r; it counts as running", self._provider.name, printable(word))


def _due(kind: type | UnionType, value: object) -> None:
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
    except Unreadable:
        return None
