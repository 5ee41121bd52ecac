# %%
"""A notebook, to be run cell by cell in an editor that supports `# %%`, or as a script.

Each cell opens the client again. The journal keeps the jobs, so a cell that is run twice is charged once. In Jupyter,
which runs an event loop already, write `await run(...)` instead of `asyncio.run(run(...))`.
"""

import asyncio
import os
import sys

from pika_async import GenerationRequest, JobStatus, PikaClient, debug_logging

if missing := [name for name in ("PIKA_API_KEY", "PIKA_BASE_URL") if not os.environ.get(name)]:
    print(f"set {' and '.join(missing)}, such as those that `pika-async emulate` prints", file=sys.stderr)
    sys.exit(2)
debug_logging("INFO")  # logs each change of a job to standard error; "DEBUG" also logs each poll
pika = PikaClient("native", base_url=os.environ["PIKA_BASE_URL"], journal="notebook.db")


async def run(*requests: GenerationRequest) -> None:
    print(f"{'key':12} {'status':10} {'polls':>5}  file")
    async with pika:
        async for job in pika.as_settled(requests, download_to="notebook"):
            print(f"{job.key:12} {job.status:10} {job.polls:5}  {job.file or job.error}")


# %%
cats = [GenerationRequest("a cat in the rain", key=f"cat-{seed}", seed=seed) for seed in range(3)]
asyncio.run(run(*cats))

# %% The first request again, and a new one: only the new one is charged.
asyncio.run(run(cats[0], GenerationRequest("a cat in the snow", key="cat-in-snow")))


# %%
async def count_videos() -> int:
    return sum([1 async for _ in pika.jobs(JobStatus.SUCCEEDED)])


print(asyncio.run(count_videos()), "videos; durations of such tasks:")
print(pika.polling.describe())
