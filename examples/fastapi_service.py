"""The service of aiohttp_service.py on FastAPI: `uvicorn fastapi_service:app --timeout-graceful-shutdown 3`.

GET /videos/{key}?wait=20 waits up to 20 s for the job. SIGTERM gives requests 3 s, then submitted jobs DRAIN seconds.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any

import attrs
from fastapi import Body, FastAPI, HTTPException, Query, Request, responses

from pika_async import CallbackReceiver, Job, PikaClient
from pika_async.errors import ConfigurationError, InvalidRequest, PikaError, SubmissionRejected

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
# The URL of a callback ends in a secret, so the access log gets no line for it.
logging.getLogger("uvicorn.access").addFilter(lambda record: "/callbacks/" not in record.getMessage())


def create_client() -> tuple[PikaClient, CallbackReceiver]:
    if not (public_url := os.environ.get("PUBLIC_URL")):
        raise ConfigurationError(setting="PUBLIC_URL", reason="is not set; give the URL at which CometAPI calls back")
    receiver = CallbackReceiver(f"{public_url}/hooks")
    base_url = os.environ.get("COMETAPI_BASE_URL")
    return PikaClient("cometapi", base_url=base_url, journal="videos.db", callbacks=receiver), receiver


try:
    pika, callbacks = create_client()
except ConfigurationError as error:  # such as a missing variable
    print(error, file=sys.stderr)
    sys.exit(2)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    try:
        await pika.open()
    except PikaError as error:  # such as a journal that another process has; uvicorn would print a traceback
        print(error, file=sys.stderr, flush=True)
        os._exit(2)
    async with aclosing(pika):
        resuming = asyncio.create_task(pika.resume())
        yield
        await pika.aclose(drain=float(os.environ.get("DRAIN", "0")))
    await asyncio.gather(resuming, return_exceptions=True)


app = FastAPI(lifespan=lifespan)
app.mount("/hooks", callbacks.asgi)


def as_json(job: Job) -> dict[str, Any]:
    url, error = job.video and job.video.url, job.error and job.error.message
    return {"key": job.key, "status": job.status, "task_id": job.task_id, "url": url, "error": error}


@app.exception_handler(PikaError)
async def handle_error(_: Request, error: PikaError) -> responses.Response:  # 503: the client may try again
    status = 400 if isinstance(error, InvalidRequest | SubmissionRejected) else 503
    return responses.JSONResponse({"error": error.type, "message": error.message}, status)


@app.post("/videos", status_code=202)
async def post_video(key: Annotated[str, Body()], prompt: Annotated[str, Body()]) -> dict[str, Any]:
    return as_json(await pika.submit(prompt, key=key))


@app.get("/videos/{key}")
async def get_video(key: str, wait: Annotated[float, Query(ge=0, le=20)] = 0) -> dict[str, Any]:
    if (job := await pika.job(key)) is None:
        raise HTTPException(404, "no such job")
    with suppress(TimeoutError):
        job = await pika.wait(job, timeout=wait)
    return as_json(job)


@app.get("/health")
async def health() -> responses.Response:
    stats = pika.stats()
    return responses.JSONResponse(attrs.asdict(stats), 200 if stats.open and stats.stopped is None else 503)
