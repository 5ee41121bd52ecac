"""Pages of Pika's own API: submissions with idempotency keys, jobs, money, uploads."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import attrs

from pika_async.emulator import pika_replies, pika_schemas
from pika_async.emulator.backend import Backend, BodyProblem, Call, ProviderTarget
from pika_async.emulator.fault_effects import unaccepted_answer
from pika_async.emulator.records import Answer, Task, UploadedFile
from pika_async.emulator.replies import json_answer, not_found

__all__ = ["PikaApi"]

_NAME = "pika"
_JOB = re.compile(r"/v1/media/jobs/([^/]+)(/content)?")
_SUBMISSION = re.compile(r"/v1/media/([^/]+/[^/]+/[^/]+)")
_QUOTE = re.compile(r"/catalog/apis/(.+)/quote")
_UPLOAD = re.compile(r"/uploads/([^/]+)/[^/]+")

#: Where the files that were uploaded can be read by Pika; nothing is served there.
UPLOADED_ORIGIN = "https://uploads.example.com"
UPLOAD_SECONDS = 300
#: Largest file by the first part of its content type, in bytes.
UPLOAD_BYTES = {"image": 20_000_000, "audio": 20_000_000, "video": 50_000_000}
_KEY_LENGTH = 255


@attrs.frozen
class _KnownKey:
    """Idempotency key: what was submitted under it, as which job, and until when it is known."""

    path: str
    digest: bytes
    job_id: str
    until: float


@attrs.define
class PikaApi:
    """Pika's own API on one backend. Each answer has an ``X-Request-ID``."""

    backend: Backend
    uploads: dict[str, UploadedFile] = attrs.field(init=False, factory=dict, repr=False)
    _keys: dict[str, _KnownKey] = attrs.field(init=False, factory=dict, repr=False)
    _numbers: itertools.count[int] = attrs.field(init=False, factory=lambda: itertools.count(1), repr=False)

    def answer(self, call: Call) -> Answer:
        """Answer one request."""
        answer = self._route(call)
        return attrs.evolve(answer, headers={**answer.headers, "X-Request-ID": f"req-{next(self._numbers):08d}"})

    def _route(self, call: Call) -> Answer:
        if quote := _QUOTE.fullmatch(call.path):  # the catalog is public
            return self._only("GET", call) or self._quote(unquote(quote[1]), call)
        if call.headers.get("x-api-key") != self.backend.options.api_key:
            problem = "must be the key"
            answer = pika_replies.error(401, "the API key is missing or unknown")
            return self.backend.log_refusal(
                answer, _NAME, call.now, code="unauthorized", field="X-API-Key", problem=problem
            )
        if call.path == "/billing/balance":
            return self._only("GET", call) or self._balance(call)
        if job := _JOB.fullmatch(call.path):
            return self._only("GET", call) or self._job(job[1], call, wants_content=job[2] is not None)
        if call.path == "/v1/media/uploads":
            return self._only("POST", call) or self._create_upload(call)
        if submission := _SUBMISSION.fullmatch(call.path):
            return self._only("POST", call) or self._submit(submission[1], call)
        return not_found()

    def _only(self, method: str, call: Call) -> Answer | None:
        if call.method == method:
            return None
        return pika_replies.error(405, f"{call.method} is not allowed here", {"Allow": method})

    def _invalid(self, problem: BodyProblem, now: float) -> Answer:
        message = f"{problem.field}: {problem.text}" if problem.field else problem.text
        if problem.status == 422:
            answer = pika_replies.coded_error(422, "invalid_input", message)
        else:
            answer = pika_replies.error(problem.status, message)
        return self.backend.log_refusal(
            answer, _NAME, now, code="invalid_input", field=problem.field, problem=problem.text
        )

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _submit(self, name: str, call: Call) -> Answer:
        if name not in pika_schemas.OPERATIONS:
            return self._invalid(BodyProblem(404, "", f"there is no operation {name}"), call.now)
        key = call.headers.get("idempotency-key", "")
        if not (0 < len(key) <= _KEY_LENGTH and key.isascii() and key.isprintable()):
            text = f"must be 1 to {_KEY_LENGTH} printable characters"
            return self._invalid(BodyProblem(400, "Idempotency-Key", text), call.now)
        problem, body = self.backend.read_json(call.headers, call.body)
        if problem is None:
            problem = self._check(name, body)
        if problem is not None:
            return self._invalid(problem, call.now)
        digest = hashlib.sha256(call.body).digest()
        known = self._keys.get(key)
        if known is not None and call.now < known.until:
            return self._replay(known, name, digest, call)
        return self._accept(name, key, digest, body, call)

    def _check(self, name: str, body: object) -> BodyProblem | None:
        problem = pika_schemas.check_submission(name, body)
        if problem is not None:
            return BodyProblem(422, problem.field, problem.text)
        assert isinstance(body, dict)  # noqa: S101 - checked by the schema
        for field in pika_schemas.OPERATIONS[name].media:
            given = body.get(field) or []
            for url in given if isinstance(given, list) else [given]:
                upload = self.uploads.get(url)
                if url.startswith(f"{UPLOADED_ORIGIN}/") and (upload is None or upload.content is None):
                    return BodyProblem(422, field, "must not be the URL of an upload that has no content")
        return None

    def _replay(self, known: _KnownKey, name: str, digest: bytes, call: Call) -> Answer:
        """Answer a repeated submission with the job of the first one; its failure too."""
        if (known.path, known.digest) != (name, digest):
            text = "must not be used again with another body"
            return self._invalid(BodyProblem(409, "Idempotency-Key", text), call.now)
        task = self.backend.ledger.tasks[known.job_id]
        fault = self.backend.scenario_run.fault_for("create", ProviderTarget(_NAME, task.prompt), call.now)
        if fault is None:
            return self._job_answer(task, call.now)
        answer = self._job_answer(task, call.now) if fault.charges else unaccepted_answer(_NAME)
        return self.backend.apply(fault, answer, _NAME, task.id if fault.charges else "")

    def _accept(self, name: str, key: str, digest: bytes, body: dict[str, Any], call: Call) -> Answer:
        backend, now = self.backend, call.now
        if backend.is_full(_NAME, now):
            text = "too many jobs at once"
            answer = pika_replies.coded_error(429, "rate_limited", text, backend.retry_headers())
            return backend.log_refusal(answer, _NAME, now, code="rate_limited", problem=text)
        spec = pika_schemas.parse_submission(name, body)
        if spec.micro_usd > self._left(now):
            answer = pika_replies.refusal("quota", {})
            text = "the balance is not enough"
            return backend.log_refusal(answer, _NAME, now, code="insufficient_balance", problem=text)
        answer, task = backend.accept(_NAME, spec, call.body, now, reply=lambda task: self._job_answer(task, now))
        if task is not None:
            until = now + backend.options.idempotency_window * backend.options.time_scale
            self._keys[key] = _KnownKey(name, digest, task.id, until)
        return answer

    def _job_answer(self, task: Task, now: float) -> Answer:
        return self.backend.options.feed_writer().answer(task, now)

    def _job(self, job_id: str, call: Call, *, wants_content: bool) -> Answer:
        task = self.backend.find(_NAME, job_id)
        if not wants_content:
            return self.backend.poll(_NAME, task, job_id, call.now)
        return self.backend.unknown_task(_NAME, call.now) if task is None else self.backend.result(task, call.now)

    # -- money ---------------------------------------------------------------------------------------------------

    def _left(self, now: float) -> int:
        return self.backend.options.funds - self.backend.ledger.spent(_NAME, now)

    def _balance(self, call: Call) -> Answer:
        left = self._left(call.now)
        answer = json_answer(200, {"balance_micro_usd": left, "balance_usd": pika_replies.money(left)})
        return self.backend.spoil("account", answer, ProviderTarget(_NAME), call.now)

    def _quote(self, name: str, call: Call) -> Answer:
        if name not in pika_schemas.OPERATIONS:
            return self._invalid(BodyProblem(404, "", f"there is no API {name}"), call.now)
        inputs = {field: int(text) if text.isdecimal() else text for field, text in call.query.items()}
        resolution = inputs.get("resolution")
        if resolution is not None and resolution not in pika_schemas.SECOND_PRICES:
            return self._invalid(BodyProblem(422, "resolution", "must be a resolution of this API"), call.now)
        price = pika_schemas.price_of(name, inputs)
        answer = json_answer(200, {"micro_usd": price, "sell_usd": pika_replies.money(price)})
        return self.backend.spoil("account", answer, ProviderTarget(_NAME), call.now)

    # -- uploads -------------------------------------------------------------------------------------------------

    def _create_upload(self, call: Call) -> Answer:
        problem, body = self.backend.read_json(call.headers, call.body)
        if problem is None and (wrong := pika_schemas.check_upload(body, UPLOAD_BYTES)) is not None:
            problem = BodyProblem(422, wrong.field, wrong.text)
        if problem is not None:
            return self._invalid(problem, call.now)
        options = self.backend.options
        upload_id = hashlib.sha256(f"upload {len(self.uploads)}".encode()).hexdigest()[:32]
        name = body.get("filename", "file")
        upload = UploadedFile(
            id=upload_id,
            url=f"{UPLOADED_ORIGIN}/{upload_id}/{name}",
            content_type=body["content_type"],
            size_bytes=body["size_bytes"],
            headers={"Content-Type": body["content_type"], "x-amz-meta-upload-id": upload_id},
            expires_at=call.now + UPLOAD_SECONDS * options.time_scale,
        )
        self.uploads[upload.url] = upload
        reply = {
            "upload_url": f"{options.cdn_url}/uploads/{upload_id}/{name}",
            "headers": upload.headers,
            "url": upload.url,
        }
        return self.backend.spoil("upload", json_answer(200, reply), ProviderTarget(_NAME), call.now)

    def put_upload(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        """Answer a request to an upload URL.

        :param headers: headers of the request, with names in lower case.
        """
        match = _UPLOAD.fullmatch(path.partition("?")[0])
        upload = next((each for each in self.uploads.values() if match and each.id == match[1]), None)
        if upload is None:
            return not_found()
        problem = _upload_problem(upload, method, headers, body, now)
        if problem is not None:
            status, text = problem
            page = f"<Error><Message>{text}</Message></Error>".encode()
            return Answer(status, {"Content-Type": "application/xml"}, page)
        answer = Answer(200, {}, b"")
        fault = self.backend.scenario_run.fault_for("upload", ProviderTarget(_NAME), now)
        if fault is None or fault.charges:
            self.uploads[upload.url] = attrs.evolve(upload, content=body)
        return answer if fault is None else self.backend.apply(fault, answer, _NAME)


def _upload_problem(
    upload: UploadedFile, method: str, headers: Mapping[str, str], body: bytes, now: float
) -> tuple[int, str] | None:
    if method != "PUT":
        return 405, "the method must be PUT"
    if now > upload.expires_at:
        return 403, "the upload URL has expired"
    if any(headers.get(name.lower()) != value for name, value in upload.headers.items()):
        return 403, "the headers must be those of the upload"
    if any(name in headers for name in ("authorization", "x-api-key", "cookie", "idempotency-key")):
        return 400, "a credential must not be sent here"
    if len(body) != upload.size_bytes:
        return 400, f"the content must have {upload.size_bytes} bytes, not {len(body)}"
    return None
