"""A service that lives to be killed: `python -m tests.crash.service JOURNAL URL KEY PORT JOBS [resume]`.

Opens a client with its own receiver on PORT, tells "open", submits JOBS jobs side by side (0: none) and tells
"submitted" when all were answered; with `resume` it calls that. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from pika_async import AdaptivePolling, CallbackReceiver, GenerationRequest, Limits, PikaClient, SubmissionInDoubt

__all__ = ["serve"]


async def serve(journal: str, url: str, key: str, port: int, jobs: int, *, resumes: bool) -> None:
    """One life."""
    receiver = CallbackReceiver(f"http://127.0.0.1:{port}", port=port)
    limits = Limits(submitting=16, max_in_flight=1000)
    policy = AdaptivePolling(expected_seconds=600)  # so that nothing but a callback brings a look in time
    async with PikaClient(
        "cometapi", api_key=key, base_url=url, journal=journal, callbacks=receiver, limits=limits, polling=policy
    ) as pika:
        print("open", flush=True)

        async def submit(number: int) -> None:
            with contextlib.suppress(SubmissionInDoubt):
                await pika.submit(GenerationRequest(f"job {number}", key=f"job-{number}"))

        async def work() -> None:
            await asyncio.gather(*(submit(number) for number in range(jobs)))
            print("submitted", flush=True)
            if resumes:
                await pika.resume()

        working = asyncio.create_task(work())
        await asyncio.to_thread(sys.stdin.read)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


if __name__ == "__main__":
    path, url, key, port, jobs, *more = sys.argv[1:]
    asyncio.run(serve(path, url, key, int(port), int(jobs), resumes=bool(more)))
