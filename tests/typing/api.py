"""Public types as users rely on them; never run, only checked by mypy and pyright."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import assert_type

from PIL import Image

from pika_async import (
    Account,
    AdaptivePolling,
    BatchReport,
    Camera,
    FixedInterval,
    GenerationRequest,
    Job,
    JobEvent,
    JobSettled,
    Limits,
    PikaClient,
    PikaError,
    PollingPolicy,
    Provider,
    RequestFields,
    Routing,
    Snapshot,
    Video,
    debug_logging,
    find_provider,
    load_accounts,
)
from pika_async.models.fields import Media


async def use(pika: PikaClient) -> None:
    request = GenerationRequest("a cat", image=b"...", camera=Camera(pan="left"), aspect_ratio=1.5, model="1.5")
    assert_type(await pika.generate("a cat", effect="Inflate"), Video)
    assert_type(await pika.generate("a cat", effect="Vaporize", strict=False), Video)
    picture = Image.new("RGB", (1, 1))
    assert_type(GenerationRequest("a cat", image=picture).image, Media | None)
    with Path("cat.png").open("rb") as file:
        assert_type(
            GenerationRequest("a cat", image=file, ingredients=[io.BytesIO(b"..."), picture, "cat.png"]).ingredients[0],
            Media,
        )
    fields: RequestFields = {"camera": {"pan": "left"}, "model": 1.5, "ingredients": ["https://pika.example/1.png"]}
    assert_type(await pika.submit("a cat", **fields), Job)
    assert_type(GenerationRequest("a cat", **fields).camera, Camera | None)
    assert_type(await pika.generate(request), Video)
    job = await pika.submit(request)
    assert_type(job, Job)
    assert_type(await pika.wait(job, timeout=3), Job)
    assert_type(await pika.poll(job), Snapshot)
    assert_type(await pika.download(job, "cat.mp4"), Path)
    assert_type(await pika.download(job.key, Path("cat.mp4"), overwrite=True), Path)
    assert_type(await pika.wait(job.key, timeout=60), Job)
    assert_type(await pika.poll(job.key), Snapshot)
    assert_type(await pika.adopt("64d8d683", key="cat"), Job)
    assert_type(await pika.resubmit("cat", new_seed=True), Job)
    assert_type(await pika.run([request, "a dog"], download_to=Path("videos")), BatchReport)
    assert_type(await pika.jobs("running"), Sequence[Job])
    async for listed in pika.jobs():
        assert_type(listed, Job)
    assert_type(await pika.job("key"), Job | None)
    assert_type(await pika.resolve("key", charged=False), Job)
    pika.pause_submitting()
    pika.resume_submitting()
    pika.set_max_in_flight(20)
    assert_type(await pika.cancel_planned(), int)
    async for settled in pika.as_settled(["a cat"]):
        assert_type(settled, Job)
        assert_type(settled.error, PikaError | None)
        assert_type(settled.file, Path | None)
    assert_type(pika.events(), AsyncGenerator[JobEvent, None])
    async for event in pika.events(after=7):
        assert_type(event.number, int)
        assert_type(event.job, Job)
        if isinstance(event, JobSettled):
            await pika.aclose(drain=2.5)
    await pika.aclose(drain=True)


async def use_hooks(pika: PikaClient) -> None:
    @pika.on_settled
    async def log_key(job: Job) -> None:
        print(job.key)

    @pika.on_settled
    def return_key(job: Job) -> str:
        return job.key

    assert_type(return_key(await pika.submit("a cat")), str)
    await log_key(await pika.submit("a dog"))


policy: PollingPolicy = AdaptivePolling(expected_seconds=90)
policy = FixedInterval(5)
assert_type(AdaptivePolling().describe()["native/-/text/plain"].median, float)
client = PikaClient(find_provider("native"), base_url="https://pika.example", polling=policy, limits=Limits())
client.polling.describe()
account = Account(find_provider("gptge"), name="second", api_key="...", api_key_file=Path("key.txt"), price=0.28)
assert_type(account.provider, Provider)
assert_type(account.name, str)
assert_type(account.api_key_file, Path | None)
assert_type(Account("cometapi", price=[{"price": 0.28}, {"price": 0.4, "effect": True}], weight=2).budget, float | None)
assert_type(load_accounts("accounts.toml"), list[Account])
Routing(strategy="cheapest")
assert_type(debug_logging("INFO"), logging.Handler)
assert_type(find_provider("CometAPI"), Provider)
