"""A web service on aiohttp. CometAPI sends callbacks to PUBLIC_URL; COMETAPI_BASE_URL may be an emulator's address.

POST /videos {"key": ..., "prompt": ...} submits a job and charges each key once; GET /videos/{key} returns its status,
also after a restart; GET /health returns statistics, with status 503 while nothing is submitted: `stopped` says why.
On SIGTERM the service keeps the task ids of the submitted jobs, which the next start resumes.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
from aiohttp import web

from pika_async import CallbackReceiver, ConfigurationError, Job, PikaClient, PikaError, SubmissionRejected

PIKA = web.AppKey("pika", PikaClient)


def as_json(job: Job) -> dict[str, Any]:
    url, error = job.video and job.video.url, job.error and job.error.message
    return {"key": job.key, "status": job.status, "task_id": job.task_id, "url": url, "error": error}


async def post_video(request: web.Request) -> web.Response:
    try:
        match await request.json():
            case {"key": str(key), "prompt": str(prompt)}:  # no other fields: an `image` could name a local file
                return web.json_response(as_json(await request.app[PIKA].submit(prompt, key=key)), status=202)
            case _:
                return web.json_response({"error": "key and prompt must be strings"}, status=400)
    except (PikaError, ValueError) as error:  # InvalidRequest is a ValueError, and so is a JSONDecodeError
        status = 400 if isinstance(error, ValueError | SubmissionRejected) else 503  # 503: the client may try again
        return web.json_response({"error": type(error).__name__, "message": str(error)}, status=status)


async def get_video(request: web.Request) -> web.Response:
    job = await request.app[PIKA].job(request.match_info["key"])
    return web.json_response(as_json(job) if job else {"error": "no such job"}, status=200 if job else 404)


async def health(request: web.Request) -> web.Response:
    stats = request.app[PIKA].stats()
    return web.json_response(attrs.asdict(stats), status=200 if stats.open and stats.stopped is None else 503)


async def run_client(app: web.Application) -> AsyncIterator[None]:
    async with app[PIKA] as pika:
        resuming = asyncio.create_task(pika.resume())
        yield
    await asyncio.gather(resuming, return_exceptions=True)


async def close_client(app: web.Application) -> None:  # before aiohttp waits for its handlers: this ends their waits
    await app[PIKA].aclose()


def create_app() -> web.Application:
    if not (public_url := os.environ.get("PUBLIC_URL")):
        raise ConfigurationError(setting="PUBLIC_URL", reason="is not set; give the URL at which CometAPI calls back")
    callbacks = CallbackReceiver(f"{public_url}/hooks")
    base_url = os.environ.get("COMETAPI_BASE_URL")
    app = web.Application()
    app[PIKA] = PikaClient("cometapi", base_url=base_url, journal="videos.db", callbacks=callbacks)
    app.add_routes([web.post("/videos", post_video), web.get("/videos/{key}", get_video), web.get("/health", health)])
    app.add_subapp("/hooks", callbacks.app)
    app.cleanup_ctx.append(run_client)
    app.on_shutdown.append(close_client)
    return app


def main(app: Callable[[], web.Application] = create_app) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The URL of a callback ends in a secret, so the access log gets no line for it.
    logging.getLogger("aiohttp.access").addFilter(lambda record: "/callbacks/" not in record.getMessage())
    try:
        web.run_app(app(), port=int(os.environ.get("PORT", "8080")), shutdown_timeout=2)
    except PikaError as error:  # such as a missing variable, or a journal that another process has
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
