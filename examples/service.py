"""A service's core: orders come in while others are waited for; a failed order tells why and stops no other."""

import asyncio
import os

from pika_async import GenerationRequest, JobStatus, PikaClient, PikaError


async def serve(pika: PikaClient, orders: asyncio.Queue[str]) -> None:
    while True:
        order = await orders.get()
        try:
            job = await pika.submit(GenerationRequest(f"a film for {order}", key=order))
            print(f"{order}: accepted as {job.task_id}")
            job = await pika.wait(job)
            print(f"{order}: {job.status}", job.video.url if job.video else job.error)
        except PikaError as error:
            print(f"{order}: {error}")
        finally:
            orders.task_done()


async def main() -> None:
    client = PikaClient("native", base_url=os.environ["PIKA_BASE_URL"], journal="orders.db")
    async with client as pika, asyncio.TaskGroup() as group:
        for doubt in await pika.jobs(JobStatus.UNKNOWN):  # an earlier process was killed while it sent these
            print(f"look it up at the provider, then resolve it: {doubt.error}")
        orders: asyncio.Queue[str] = asyncio.Queue()
        servers = [group.create_task(serve(pika, orders), name=f"server {n}") for n in range(4)]
        for number in range(6):
            await orders.put(f"order-{number}")
        await orders.put("order-0")  # asked for twice, paid for once
        await orders.join()
        print(f"{len(await pika.jobs(JobStatus.SUCCEEDED))} videos")
        for server in servers:
            server.cancel()


if __name__ == "__main__":
    asyncio.run(main())
