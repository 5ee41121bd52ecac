"""A web service on aiohttp. CometAPI sends callbacks to PUBLIC_URL; COMETAPI_BASE_URL may be an emulator's address.

POST /videos {"key": ..., "prompt": ...} submits a job and charges each key once; GET /videos/{key} returns its status,
also after a restart; GET /health returns statistics, such as the number of jobs in doubt (`unknown`). On SIGTERM the
service keeps the task ids of the submitted jobs, which the next start resumes.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import attrs
from aiohttp import web

from pika_async import CallbackReceiver, Job, PikaClient, PikaError, SubmissionRejected

callbacks = CallbackReceiver(f"{os.environ['PUBLIC_URL']}/hooks")
pika = PikaClient("cometapi", base_url=os.environ.get("COMETAPI_BASE_URL"), journal="videos.db", callbacks=callbacks)


def as_json(job: Job) -> dict[str, Any]:
    url, error = job.video and job.video.url, job.error and job.error.message
    return {"key": job.key, "status": job.status, "task_id": job.task_id, "url": url, "error": error}


async def post_video(request: web.Request) -> web.Response:
    try:
        match await request.json():
            case {"key": str(key), "prompt": str(prompt)}:  # no other fields: an `image` could name a local file
                return web.json_response(as_json(await pika.submit(prompt, key=key)), status=202)
            case _:
                return web.json_response({"error": "key and prompt must be strings"}, status=400)
    except (PikaError, ValueError) as error:  # InvalidRequest is a ValueError, and so is a JSONDecodeError
        status = 400 if isinstance(error, ValueError | SubmissionRejected) else 503  # 503: the client may try again
        return web.json_response({"error": type(error).__name__, "message": str(error)}, status=status)


async def get_video(request: web.Request) -> web.Response:
    job = await pika.job(request.match_info["key"])
    return web.json_response(as_json(job) if job else {"error": "no such job"}, status=200 if job else 404)


async def health(_: web.Request) -> web.Response:
    return web.json_response(attrs.asdict(pika.stats()))


async def run_client(_: web.Application) -> AsyncIterator[None]:
    async with pika:
        resuming = asyncio.create_task(pika.resume())
        yield
    await asyncio.gather(resuming, return_exceptions=True)


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.post("/videos", post_video), web.get("/videos/{key}", get_video), web.get("/health", health)])
    app.add_subapp("/hooks", callbacks.app)
    app.cleanup_ctx.append(run_client)
    web.run_app(app, port=int(os.environ.get("PORT", "8080")), shutdown_timeout=20)
