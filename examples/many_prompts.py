"""A stream of requests, at most six in flight, each handled when it is finished.

Run it again after an interruption: the journal knows which requests were submitted, so nothing is charged twice.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from pika_async import GenerationRequest, JobStatus, Limits, PikaClient, PikaError, debug_logging


async def requests() -> AsyncIterator[GenerationRequest]:
    for animal in ("cat", "dog", "heron", "otter", "lynx", "newt", "crane", "bat"):
        yield GenerationRequest(f"a {animal} that reads the news", key=animal, frame_rate=12)


async def main() -> None:
    limits = Limits(max_in_flight=6)
    base_url = os.environ["PIKA_BASE_URL"]
    async with PikaClient("native", base_url=base_url, journal="animals.db", limits=limits) as pika:
        async for job in pika.as_settled(requests(), download_to="animals"):
            if job.status is JobStatus.SUCCEEDED and job.file:
                print(f"{job.key}: {job.file} after {job.polls} polls")
            else:
                print(f"{job.key}: {job.status}, {job.error}")


if __name__ == "__main__":
    if missing := [name for name in ("PIKA_API_KEY", "PIKA_BASE_URL") if not os.environ.get(name)]:
        print(f"set {' and '.join(missing)}, such as those that `pika-async emulate` prints", file=sys.stderr)
        sys.exit(2)
    debug_logging("INFO")  # one line for each change of a job, on standard error
    try:
        asyncio.run(main())
    except PikaError as error:  # such as a journal that another process has
        print(error, file=sys.stderr)
        sys.exit(2)
