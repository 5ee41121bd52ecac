"""Pages of fal's queue: submissions, status, result, cancellation, webhooks and the keys that sign them."""

from __future__ import annotations

import json
import re

import attrs

from pika_async.emulator import fal_replies, fal_schemas
from pika_async.emulator.backend import Backend, Call
from pika_async.emulator.checks import url
from pika_async.emulator.fal_webhooks import WebhookSigner
from pika_async.emulator.records import Answer, Task
from pika_async.emulator.replies import json_answer

__all__ = ["FalQueue"]

_NAME = "fal"
_REQUEST = re.compile(rf"/{fal_replies.OWNER_AND_APP}/requests/([^/]+)(/status|/cancel)?")


@attrs.define
class FalQueue:
    """fal's queue on one backend; the origin of the backend stands in for ``queue.fal.run`` and for ``rest.fal.ai``."""

    backend: Backend
    seed: int = attrs.field(kw_only=True)
    _signer: WebhookSigner = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._signer = WebhookSigner(self.seed)

    def answer(self, call: Call) -> Answer:
        """Answer one request."""
        if call.path == "/.well-known/jwks.json":
            return json_answer(200, self._signer.public_keys())
        request = _REQUEST.fullmatch(call.path)
        endpoint = call.path.removeprefix("/")
        if request is None and endpoint not in fal_schemas.ENDPOINTS:
            return fal_replies.host_error(404, "not_found", f"Application {endpoint} not found")
        if call.headers.get("authorization") != f"Key {self.backend.options.api_key}":
            answer = fal_replies.refusal("key", {})
            problem = 'must be "Key" and the key'
            return self.backend.log_refusal(
                answer, _NAME, call.now, code="unauthorized", field="Authorization", problem=problem
            )
        expected = "POST" if request is None else "PUT" if request[2] == "/cancel" else "GET"
        if call.method != expected:
            return fal_replies.host_error(405, "method_not_allowed", "Method Not Allowed", {"Allow": expected})
        if request is None:
            return self._submit(endpoint, call)
        task = self.backend.find(_NAME, request[1])
        if request[2] == "/status":
            return self.backend.poll(_NAME, task, request[1], call.now)
        if task is None:
            return self.backend.unknown_task(_NAME, call.now)
        return self._cancel(task, call.now) if request[2] == "/cancel" else self.backend.result(task, call.now)

    def _submit(self, endpoint: str, call: Call) -> Answer:
        backend, now = self.backend, call.now
        webhook = call.query.get("fal_webhook")
        for name in call.query:
            if name != "fal_webhook":
                return self._invalid(name, "must not be given: the page has no such parameter", now)
        if webhook is not None and (wrong := url(webhook)) is not None:
            return self._invalid("fal_webhook", wrong, now)
        unread, body = backend.read_json(call.headers, call.body)
        if unread is not None:
            text = f"{unread.field}: {unread.text}" if unread.field else unread.text
            answer = fal_replies.host_error(unread.status, "bad_request", text)
            return backend.log_refusal(answer, _NAME, now, code="bad_request", field=unread.field, problem=unread.text)
        problem = fal_schemas.check_submission(endpoint, body)
        if problem is not None:
            return self._invalid(problem.field, problem.text, now)
        spec = fal_schemas.parse_submission(endpoint, body, webhook)
        if spec.micro_usd > backend.options.funds - backend.ledger.spent(_NAME, now):
            answer = fal_replies.refusal("quota", {})
            return backend.log_refusal(answer, _NAME, now, code="user_locked", problem="the balance is exhausted")
        slots = backend.capacity(_NAME)
        answer, _ = backend.accept(
            _NAME, spec, call.body, now, reply=lambda task: self._receipt(task, now), slots=slots
        )
        return answer

    def _invalid(self, field: str, text: str, now: float) -> Answer:
        answer = fal_replies.model_error(field, text, "value_error")
        return self.backend.log_refusal(answer, _NAME, now, code="value_error", field=field, problem=text)

    def _receipt(self, task: Task, now: float) -> Answer:
        position = self.backend.ledger.count_ahead(task, now) if now < task.starts_at else 0
        return fal_replies.receipt_answer(self.backend.options.base_url(_NAME), task, position)

    def _cancel(self, task: Task, now: float) -> Answer:
        is_done = now >= task.settles_at
        fault = self.backend.scenario_run.fault_for("cancel", task, now)
        answer = fal_replies.cancel_answer(is_done=is_done)
        if not is_done and (fault is None or (fault.name != "too-late" and fault.charges)):
            self.backend.callbacks.add(self.backend.ledger.cancel(task, now))
        return answer if fault is None else self.backend.apply(fault, answer, _NAME, task.id)

    def webhook(self, task: Task, now: float, forged: bytes | None) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of the webhook of *task*; *forged* is a body that another key signs."""
        body = forged
        if body is None:
            body = json.dumps(
                fal_replies.webhook_body(task, self.backend.options.feed_writer().view(task, now))
            ).encode()
        timestamp = int(self.backend.options.epoch + now)
        return body, self._signer.headers(task.id, timestamp, body, is_forged=forged is not None)
