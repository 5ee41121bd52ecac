"""Store of results in S3, or in a store with its protocol (MinIO, R2, Ceph). Only this file imports aiobotocore.

An object is stored by one PUT, which S3 finishes whole or not at all, whatever happens to this process. So nothing has
to be cleaned up after a crash, as the parts of an upload in several parts would.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from pika_async._http.addresses import redact_text
from pika_async._http.stores import ObjectPlace, StoredObject, StoreFailed, content_type
from pika_async.errors import ConfigurationError, strip_control

__all__ = ["S3Store"]

#: Attempts of one call; the library waits 0 to 1, 2, 4 and 8 s between them.
ATTEMPTS: Final = 5
CONNECT_TIMEOUT_S: Final = 15
#: Without data in either direction.
STALL_TIMEOUT_S: Final = 60
#: Concurrent calls; further ones wait. More downloads than that bring nothing.
MAX_STORE_CONNECTIONS: Final = 64
#: Attempts to store an object that another writer stores at the same moment.
CONFLICT_ATTEMPTS: Final = 3
#: Name of the upload in parts that is begun and given up at once: it needs the permission to store, and stores nothing.
CHECK_NAME: Final = ".pika-check"
#: Name of the metadata with the SHA-256 of an object in hex digits.
SHA256_METADATA: Final = "sha256"
#: Files that the library reads when a client is made.
DATA_FILES: Final = ("endpoints", "partitions", "sdk-default-configuration", "_retry")
#: Characters of a text of the store or the library that are shown.
MAX_FAILURE_TEXT: Final = 300
EXTRA_MISSING: Final = 's3:// needs an extra: python -m pip install "pika_async[s3]"; nothing was sent'
NO_CREDENTIALS: Final = (
    "no credentials for S3 were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
)
#: Codes of answers about an object that is not there, or that may not be read.
MISSING_CODES: Final = frozenset({"404", "NoSuchKey", "NotFound"})
DENIED_CODES: Final = frozenset({"403", "AccessDenied", "Forbidden"})
#: Codes of answers to a conditional write: another object is there, or is being written.
TAKEN_CODES: Final = frozenset({"409", "412", "ConditionalRequestConflict", "PreconditionFailed"})
#: Codes of answers of a store without conditional writes.
UNSUPPORTED_CODES: Final = frozenset({"501", "NotImplemented"})
#: Codes of answers, and their meaning with the way out.
REASONS: Final = {
    "NoSuchBucket": "there is no such bucket; create it, or name another one",
    "AccessDenied": "the credentials do not allow it; s3:PutObject and s3:GetObject are needed",
    "InvalidAccessKeyId": "the store does not know the access key; check AWS_ACCESS_KEY_ID and the endpoint",
    "SignatureDoesNotMatch": "the secret does not belong to the access key; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired; get new ones",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN",
}


def _load() -> Any:
    """Import the library and return a session of it that has read what a client needs. Takes a second: for a thread."""
    try:
        from aiobotocore.session import get_session  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise ConfigurationError(setting="download_to", reason=EXTRA_MISSING) from None
    session = get_session()
    loader = session.get_component("data_loader")
    for kind in ("service-2", "endpoint-rule-set-1", "paginators-1"):
        loader.load_service_model("s3", kind)
    for name in DATA_FILES:
        with contextlib.suppress(Exception):  # another release of the library needs other files
            loader.load_data(name)
    return session


async def _open_client(stack: AsyncExitStack) -> Any:
    """Return a client of the library that `stack` closes."""
    session = await anyio.to_thread.run_sync(_load)
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - `_load` has imported it

    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=STALL_TIMEOUT_S,
        max_pool_connections=MAX_STORE_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        # The signed checksum covers the content, which would otherwise be read once more in the event loop.
        s3={"payload_signing_enabled": False},
    )
    with _failures():
        if await session.get_credentials() is None:
            raise StoreFailed(NO_CREDENTIALS)
        return await stack.enter_async_context(session.create_client("s3", config=config))


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Raise what the library raises as `StoreFailed`."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - an extra

    try:
        yield
    except ClientError as error:
        raise StoreFailed(_reason(error)) from error
    except (BotoCoreError, OSError, ValueError) as error:
        raise StoreFailed(_shown(str(error) or repr(error))) from error


def _code(error: BaseException | None) -> str:
    """Return the code of an answer, or its HTTP status where the answer has no body; empty for other errors."""
    response = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return status if code in {"", "Unknown"} else code


def _reason(error: Exception) -> str:
    code = _code(error)
    message = str(getattr(error, "response", {}).get("Error", {}).get("Message", ""))
    known = REASONS.get("AccessDenied" if code in DENIED_CODES else code)
    return known or _shown(f"the store answered {code}: {message}".rstrip(": "))


def _shown(text: str) -> str:
    """Return the beginning of `text` as it may be shown to people."""
    return strip_control(redact_text(text))[:MAX_FAILURE_TEXT]


class S3Store:
    """Store of one client; see `ObjectStore`. Opened by its first call, in the event loop of that call.

    The library finds credentials, region and endpoint as every tool of AWS does: `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`,
    `AWS_REGION`, `AWS_ENDPOINT_URL_S3` and the files in `~/.aws`.
    """

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close its connections; the next call opens it again."""
        self._client = None
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def _call(self) -> AsyncIterator[Any]:
        async with self._opening:
            if self._client is None:
                self._client = await _open_client(self._stack)
        with _failures():
            yield self._client

    async def check(self, prefix: ObjectPlace) -> None:
        """See `ObjectStore`: begins an upload in parts, which needs the same permission, and gives it up."""
        place = prefix.as_prefix.with_name(CHECK_NAME)
        async with self._call() as client:
            begun = await client.create_multipart_upload(Bucket=place.bucket, Key=place.key)
        with contextlib.suppress(StoreFailed):  # without parts it costs nothing and is not listed
            async with self._call() as client:
                await client.abort_multipart_upload(Bucket=place.bucket, Key=place.key, UploadId=begun["UploadId"])

    async def names(self, prefix: ObjectPlace) -> set[str]:
        """Return the names of the objects directly below `prefix`; none if they may not be listed."""
        found: set[str] = set()
        try:
            async with self._call() as client:
                pages = client.get_paginator("list_objects_v2").paginate(
                    Bucket=prefix.bucket, Prefix=prefix.key, Delimiter="/"
                )
                async for page in pages:
                    found |= {each["Key"].removeprefix(prefix.key) for each in page.get("Contents", ())}
        except StoreFailed as failure:
            if _code(failure.__cause__) not in DENIED_CODES:
                raise
        return found

    async def find(self, place: ObjectPlace, *, may_be_hidden: bool = True) -> StoredObject | None:
        """See `ObjectStore`.

        :param may_be_hidden: whether an object that may not be read counts as missing. Default: True.
        """
        try:
            async with self._call() as client:
                head = await client.head_object(Bucket=place.bucket, Key=place.key)
        except StoreFailed as failure:
            if _code(failure.__cause__) not in (MISSING_CODES | DENIED_CODES if may_be_hidden else MISSING_CODES):
                raise
            return None
        return StoredObject(head["ContentLength"], head.get("Metadata", {}).get(SHA256_METADATA))

    async def put(
        self, file: Path, place: ObjectPlace, *, sha256: str, overwrite: bool = False, replaces: str | None = None
    ) -> None:
        """See `ObjectStore`. The store compares the content with `sha256` by itself.

        A store without conditional writes is only asked before, so that of two writers at the same moment the later
        one wins.
        """
        size = (await anyio.Path(file).stat()).st_size
        is_conditional = True
        for _ in range(CONFLICT_ATTEMPTS):
            found = None if overwrite else await self.find(place, may_be_hidden=is_conditional)
            if found == StoredObject(size, sha256):
                return  # its upload had ended, and its record was lost
            if found is not None and (replaces is None or found.sha256 != replaces):
                raise StoreFailed(f"{place} exists with other content and is not overwritten")
            is_new = is_conditional and not overwrite and found is None
            try:
                await self._put(file, place, size, sha256, {"IfNoneMatch": "*"} if is_new else {})
                return
            except StoreFailed as failure:
                code = _code(failure.__cause__)
                if is_new and code in UNSUPPORTED_CODES:
                    is_conditional = False
                elif code not in TAKEN_CODES:
                    raise
        raise StoreFailed(f"{place} is stored by another writer now, or may not be read")

    async def _put(self, file: Path, place: ObjectPlace, size: int, sha256: str, condition: dict[str, str]) -> None:
        body = await anyio.to_thread.run_sync(lambda: file.open("rb"))
        try:
            async with self._call() as client:
                await client.put_object(
                    Bucket=place.bucket, Key=place.key, Body=body, ContentLength=size,
                    ContentType=content_type(place.suffix), Metadata={SHA256_METADATA: sha256},
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(), **condition,
                )  # fmt: skip
        finally:
            body.close()

    async def copy(self, source: ObjectPlace, target: ObjectPlace) -> None:
        """See `ObjectStore`."""
        try:
            async with self._call() as client:
                await client.copy_object(
                    Bucket=target.bucket, Key=target.key, CopySource={"Bucket": source.bucket, "Key": source.key}
                )
        except StoreFailed as failure:
            if _code(failure.__cause__) not in MISSING_CODES:
                raise

    async def delete(self, place: ObjectPlace) -> None:
        """See `ObjectStore`."""
        async with self._call() as client:
            await client.delete_object(Bucket=place.bucket, Key=place.key)
