"""Keys of requests that are submitted to a cluster: the same request has the same key, whichever process submits it."""

from __future__ import annotations

from collections.abc import Sequence

from pika_async._planning.keys import KeyAssigner, key_suffix
from pika_async._runtime.admission import OTHER_CONTENT
from pika_async.engines import job_reads
from pika_async.engines.database import Database
from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest, evolve_unchecked

__all__ = ["with_keys"]


async def with_keys(database: Database, requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    """Return the requests, each with its key; one without gets that of a job with its content, or a new one.

    :raises InvalidRequest: if the key of one belongs to another content.
    """
    contents = [request.fingerprint() for request in requests]
    known = await database.run(job_reads.keys_of_contents, set(contents))
    keys = [request.key for request in requests if request.key is not None]
    made = [
        f"{index + 1:05d}-{key_suffix(request.prompt, content)}"
        for index, (request, content) in enumerate(zip(requests, contents, strict=True))
        if request.key is None
    ]
    known |= await database.run(job_reads.contents_of, {*keys, *made})
    assigner = KeyAssigner(lambda key, content: known.get(key) == content)
    for key in keys:
        assigner.reserve(key)
    for key in known:
        assigner.add_existing(key)
    keyed, own = [], dict(known)
    for index, (request, content) in enumerate(zip(requests, contents, strict=True)):
        key = assigner.key_for(request, index)
        if own.setdefault(key, content) != content:
            raise InvalidRequest(field="key", value=key, reason=OTHER_CONTENT)
        keyed.append(request if request.key == key else evolve_unchecked(request, key=key))
    return keyed
