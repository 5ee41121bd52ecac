"""A lazy stream of prompts, at most six at the gateway, each handled as it settles; run again, it goes on."""

import asyncio
import os
from collections.abc import AsyncIterator

from pika_async import GenerationRequest, JobStatus, Limits, PikaClient


async def stories() -> AsyncIterator[GenerationRequest]:
    for animal in ("cat", "dog", "heron", "otter", "lynx", "newt", "crane", "bat"):
        yield GenerationRequest(f"a {animal} that reads the news", key=animal, frame_rate=12)


async def main() -> None:
    limits = Limits(max_in_flight=6)
    base_url = os.environ["PIKA_BASE_URL"]
    async with PikaClient("native", base_url=base_url, journal="animals.db", limits=limits) as pika:
        async for job in pika.as_settled(stories(), download_to="animals"):
            if job.status is JobStatus.SUCCEEDED and job.file:
                print(f"{job.key}: {job.file}, asked {job.polls} times")
            else:
                print(f"{job.key}: {job.status}, {job.error}")


if __name__ == "__main__":
    asyncio.run(main())
