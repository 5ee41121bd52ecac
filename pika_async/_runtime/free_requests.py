"""Free requests that only some gateways have: a result at another address, a cancellation, a price, a balance.

Schedules nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from pika_async._planning.actions import ActiveJob, PollResult
from pika_async.errors import InvalidRequest, strip_control
from pika_async.models import GenerationRequest
from pika_async.providers._abilities import CancelOutcome
from pika_async.providers._kinds import kind_of_failure, kind_of_transport_failure
from pika_async.providers._provider import Provider
from pika_async.providers._verdicts import PollVerdict, classify_poll, poll_after
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, TransportFailure, parse_json

__all__ = ["FreeRequests"]

_log = logging.getLogger("pika_async.free_requests")

Send = Callable[[HttpRequest, ActiveJob | None], Awaitable[HttpResponse | TransportFailure]]


class FreeRequests:
    """Free requests of one provider at one base URL.

    :param provider: encodes requests and decodes responses; it may be a third party's and raise anything.
    :param base_url: where requests are sent.
    :param send: sends one request; raises nothing but cancellation.
    """

    def __init__(self, provider: Provider, base_url: str, send: Send) -> None:
        self._provider = provider
        self._base_url = base_url
        self._send = send

    async def result(
        self, status: PollResult, handle: str | None = None, active: ActiveJob | None = None
    ) -> PollResult:
        """Return the result of a poll with the video, where a gateway has it at another address. Raises nothing.

        :param status: the result of a poll; returned as it is unless its task has succeeded without a URL.
        :param handle: that of the task's receipt, None without one.
        :param active: the job, for telemetry.
        """
        snapshot = status.snapshot
        if snapshot is None:
            return status
        try:
            request = self._provider.encode_result(snapshot, self._base_url, handle)
        except Exception as error:  # third-party providers may raise anything
            return self._defect("encode the request of a result", error)
        if request is None:
            return status
        response = await self._send(request, active)
        if isinstance(response, TransportFailure):
            kind = kind_of_transport_failure(response.kind)
            return PollResult(verdict=PollVerdict.AGAIN, reason=response.detail, kind=kind)
        if classify_poll(response, None) is PollVerdict.STOP:
            return self._unusable(response, PollVerdict.STOP)
        try:
            found = self._provider.decode_result(response, snapshot)
        except DecodeError as error:
            return PollResult(verdict=PollVerdict.AGAIN, reason=str(error), http_status=response.status)
        except Exception as error:
            return self._defect("decode a result", error)
        if found is None:
            return self._unusable(response, PollVerdict.AGAIN)
        hint = poll_after(response.headers, time.time())
        return PollResult(
            verdict=PollVerdict.READ,
            snapshot=found,
            http_status=response.status,
            retry_after=hint or status.retry_after,
        )

    def _defect(self, what: str, error: Exception) -> PollResult:
        _log.exception("the provider %s could not %s", self._provider.name, what)
        return PollResult(verdict=PollVerdict.AGAIN, reason=f"could not {what}: {error!r}")

    def _unusable(self, response: HttpResponse, verdict: PollVerdict) -> PollResult:
        failure = self._provider.read_failure(response)
        code, message = (None, "") if failure is None else (failure.code, failure.message)
        return PollResult(
            verdict=verdict,
            reason=strip_control(message[:500]) or response.excerpt(),
            http_status=response.status,
            retry_after=poll_after(response.headers, time.time()),
            kind=kind_of_failure(code, message, response.status),
        )

    async def cancel(self, task_id: str, handle: str | None = None) -> CancelOutcome:
        """Ask the gateway to cancel a task.

        :param handle: that of the task's receipt, None without one.
        :raises InvalidRequest: if the provider cannot cancel a task.
        """
        encode, decode = self._provider.dialect.cancel, self._provider.dialect.read_cancel
        if encode is None or decode is None:
            reason = f"must be left to end: {self._provider.title} cannot cancel a task; abandon it or let it run"
            raise InvalidRequest(field="job", value=task_id, reason=reason)
        try:
            response = await self._send(encode(self._base_url, task_id, handle), None)
            return CancelOutcome.UNCLEAR if isinstance(response, TransportFailure) else decode(response)
        except Exception:  # third-party providers may raise anything
            _log.exception("the provider %s could not cancel a task", self._provider.name)
            return CancelOutcome.UNCLEAR

    async def quote(self, request: GenerationRequest) -> float | None:
        """Return the price of a submission in US dollars; None if it is not known. Raises nothing."""
        question = self.quote_request(request)
        return None if question is None else await self.answer_to(question)

    def quote_request(self, request: GenerationRequest) -> HttpRequest | None:
        """Return the request for the price of a submission, None if there is none; equal ones have the same answer."""
        encode, decode = self._provider.dialect.quote, self._provider.dialect.read_quote
        if encode is None or decode is None:
            return None
        try:
            return encode(self._provider, request, self._base_url)
        except Exception:  # third-party providers may raise anything
            _log.exception("the provider %s could not ask for a price", self._provider.name)
            return None

    async def answer_to(self, question: HttpRequest) -> float | None:
        """Return the price that a gateway answers to `quote_request`; see `quote`."""
        decode = self._provider.dialect.read_quote
        price = None if decode is None else await self._amount(lambda: question, decode, "read a price")
        return None if price is None or price < 0 else price

    async def balance(self) -> float | None:
        """Return the balance of the account in US dollars; None if it is not known. Raises nothing."""
        encode, decode = self._provider.dialect.balance, self._provider.dialect.read_balance
        if encode is None or decode is None:
            return None
        return await self._amount(lambda: encode(self._base_url), decode, "read a balance")

    async def _amount(
        self, encode: Callable[[], HttpRequest | None], decode: Callable[[object], float | None], what: str
    ) -> float | None:
        try:
            request = encode()
            response = None if request is None else await self._send(request, None)
            if response is None or isinstance(response, TransportFailure) or not 200 <= response.status < 300:
                return None
            return decode(parse_json(response.body))
        except DecodeError:
            return None
        except Exception:  # third-party providers may raise anything
            _log.exception("the provider %s could not %s", self._provider.name, what)
            return None
