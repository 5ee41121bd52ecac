"""A web service on aiohttp. POST /videos with a key and a prompt submits, and the same key again pays nothing; GET
/videos/KEY tells how it stands, also after a restart; GET /health is for a dashboard: its `unknown` are the doubts that
wait for a person. CometAPI calls back under PUBLIC_URL, which is where it reaches this service. Ended by SIGTERM it
keeps every receipt; started again it follows what was accepted. COMETAPI_BASE_URL may be an emulator's.
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


def shown(job: Job) -> dict[str, Any]:
    url, error = job.video and job.video.url, job.error and job.error.message
    return {"key": job.key, "status": job.status, "task_id": job.task_id, "url": url, "error": error}


async def submit(request: web.Request) -> web.Response:
    try:
        match await request.json():
            case {"key": str(key), "prompt": str(prompt)}:  # no more than that from strangers: an image may be a path
                return web.json_response(shown(await pika.submit(prompt, key=key)), status=202)
            case _:
                return web.json_response({"error": "give a key and a prompt"}, status=400)
    except (PikaError, ValueError) as error:  # `InvalidRequest` is a ValueError, and so is a body that is no JSON
        status = 400 if isinstance(error, ValueError | SubmissionRejected) else 503  # 503: the same may be asked again
        return web.json_response({"error": type(error).__name__, "message": str(error)}, status=status)


async def look(request: web.Request) -> web.Response:
    job = await pika.job(request.match_info["key"])
    return web.json_response(shown(job) if job else {"error": "no such job"}, status=200 if job else 404)


async def health(_: web.Request) -> web.Response:
    return web.json_response(attrs.asdict(pika.stats()))


async def opened(_: web.Application) -> AsyncIterator[None]:
    async with pika:
        resuming = asyncio.create_task(pika.resume())
        yield
    await asyncio.gather(resuming, return_exceptions=True)


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.post("/videos", submit), web.get("/videos/{key}", look), web.get("/health", health)])
    app.add_subapp("/hooks", callbacks.app)
    app.cleanup_ctx.append(opened)
    web.run_app(app, port=int(os.environ.get("PORT", "8080")), shutdown_timeout=20)
