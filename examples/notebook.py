# %%
"""A notebook: run it cell by cell, in any editor that knows `# %%`, or as a script. Each cell opens the client anew and
what the cells before have made is there: the journal holds it, so a cell that is run again pays nothing. In Jupyter,
where a loop is running already, write `await settle(...)` in place of `asyncio.run(settle(...))`.
"""

import asyncio
import os

from pika_async import GenerationRequest, JobStatus, PikaClient, debug_logging

debug_logging("INFO")  # each milestone on standard error; "DEBUG" shows each look
pika = PikaClient("native", base_url=os.environ["PIKA_BASE_URL"], journal="notebook.db")


async def settle(*requests: GenerationRequest) -> None:
    print(f"{'key':12} {'status':10} {'looks':>5}  file")
    async with pika:
        async for job in pika.as_settled(requests, download_to="notebook"):
            print(f"{job.key:12} {job.status:10} {job.polls:5}  {job.file or job.error}")


# %%
cats = [GenerationRequest("a cat in the rain", key=f"cat-{seed}", seed=seed) for seed in range(3)]
asyncio.run(settle(*cats))

# %% The first again, and another: only the other is paid for.
asyncio.run(settle(cats[0], GenerationRequest("a cat in the snow", key="cat-in-snow")))

# %%
print(len(asyncio.run(pika.jobs(JobStatus.SUCCEEDED))), "videos, and how long such tasks take:")
print(pika.polling.describe())
