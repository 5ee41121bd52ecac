"""Client of one gateway: encodes a submission, sends it, classifies and decodes the response; has the other requests.

Schedules nothing, and sends nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import attrs

from pika_async._http.transport import AiohttpTransport, Transport
from pika_async._planning.actions import ActiveJob
from pika_async._planning.media_routes import check_reach
from pika_async._runtime.free_requests import FreeRequests
from pika_async._runtime.images import ImageUnreadable, UploadFailed, UploadFile, load_media
from pika_async._runtime.task_poller import TaskPoller
from pika_async._runtime.tasks import was_cancelled
from pika_async._runtime.telemetry.null import NullTelemetry, RequestKind
from pika_async.errors import InvalidRequest, JournalFailed, strip_control
from pika_async.models import GenerationRequest, Receipt
from pika_async.providers._provider import Provider
from pika_async.providers._receipts import salvage_receipt
from pika_async.providers._verdicts import (
    SubmitOutcome,
    SubmitVerdict,
    classify_failure,
    classify_response,
    minimal_outcome,
)
from pika_async.providers._wire import HttpRequest, HttpResponse, SendPhase, TransportFailure, expect_type

if TYPE_CHECKING:
    from pika_async._runtime.callback_signatures import CallbackSignatures

__all__ = ["GatewayClient"]

_log = logging.getLogger("pika_async.gateway")


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
        self._upload = upload
        #: Checks the signatures of its callbacks; None where it signs none.
        self.signatures = None if provider.callback_signature is None else _signatures(provider, base_url, proxy)
        #: Requests that only some gateways have.
        self.free = FreeRequests(provider, base_url, partial(self._send, RequestKind.FREE))
        #: Polls its tasks.
        self.poller = TaskPoller(provider, base_url, partial(self._send, RequestKind.POLL), self.free, is_task_id)

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
            expect_type(HttpRequest, encoded)
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
            expect_type(HttpResponse | TransportFailure, response)
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
            expect_type(Receipt, receipt)
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

    def callback_task_id(self, body: bytes) -> str | None:
        """Return the task id in the body of a callback, None if there is none. Raises nothing."""
        try:
            return self._provider.decode_callback(body)
        except Exception:
            _log.exception("the provider %s could not decode a callback", self._provider.name)
            return None


def _signatures(provider: Provider, base_url: str, proxy: str | None) -> CallbackSignatures:
    from pika_async._runtime.callback_signatures import CallbackSignatures  # noqa: PLC0415 - few gateways sign

    return CallbackSignatures(provider, base_url, proxy=proxy)
