"""Service process with a callback receiver, started in order to be killed.

Usage: `python -m tests.crash.callback_service JOURNAL URL KEY PORT JOBS [resume]`. It opens a client with a receiver on
PORT, prints "open", submits JOBS jobs concurrently (0: none) and prints "submitted" when all were answered. With `resume`
it then calls `PikaClient.resume`. It ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from pika_async import AdaptivePolling, CallbackReceiver, GenerationRequest, Limits, PikaClient, SubmissionInDoubt

__all__ = ["serve"]


async def serve(journal: str, url: str, key: str, port: int, jobs: int, *, resumes: bool) -> None:
    """Run the service until standard input is closed."""
    receiver = CallbackReceiver(f"http://127.0.0.1:{port}", port=port)
    limits = Limits(submitting=16, max_in_flight=1000)
    policy = AdaptivePolling(expected_seconds=600)  # so that only a callback triggers a poll in time
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
