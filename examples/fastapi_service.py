"""The service of aiohttp_service.py on FastAPI: `uvicorn fastapi_service:app --timeout-graceful-shutdown 20`.

GET /videos/{key}?wait=20 waits up to 20 s for the job. After SIGTERM submitted jobs have DRAIN seconds to finish."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import attrs
from fastapi import Body, FastAPI, HTTPException, Query, Request, responses

from pika_async import CallbackReceiver, InvalidRequest, Job, PikaClient, PikaError, SubmissionRejected

callbacks = CallbackReceiver(f"{os.environ['PUBLIC_URL']}/hooks")
pika = PikaClient("cometapi", base_url=os.environ.get("COMETAPI_BASE_URL"), journal="videos.db", callbacks=callbacks)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with pika:
        resuming = asyncio.create_task(pika.resume())
        yield
        await pika.aclose(drain=float(os.environ.get("DRAIN", "10")))
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
async def health() -> dict[str, Any]:
    return attrs.asdict(pika.stats())
